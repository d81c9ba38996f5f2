#!/usr/bin/env python3
"""Tests on an emulated board: an ARM64 system with U-Boot, two slots, and Myelin as its only SSH daemon.

    tests/qemu/run.py              the life of three boards, some power cuts and resets: for every run of the tests
    tests/qemu/run.py soak         thousands of power cuts and hundreds of resets, hours; --report FILE
    tests/qemu/run.py life|pi|pi3|powercut|resets|measure [--states N] [--cycles N] [--updates N] [--boots N] [--seed N]

Needs the board's Myelin (scripts/cross.sh aarch64-unknown-linux-musl) and one for this machine (cargo build).
"""

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

import firmware
import life
import measure
import pi
import powercut
import resets
import soak


class Tally:
    def __init__(self):
        self.passed = self.failed = 0
        self.started = time.monotonic()

    def case(self, name, test, *arguments):
        """Runs one test; whether it passed."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {name}", flush=True)
        try:
            test(*arguments)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            self.failed += 1
            return False
        self.passed += 1
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[[], "life", "pi", "pi3", "powercut", "resets", "measure", "soak"], default=[])
    parser.add_argument("--states", type=int, help="power cuts: states that are judged (300; soak: 10000)")
    parser.add_argument("--updates", type=int, help="updates in the record that they are made of (1; soak: 4)")
    parser.add_argument("--boots", type=int, help="states that are started for real (3; soak: 40)")
    parser.add_argument("--cycles", type=int, help="resets (3; soak: 500)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of everything that is random")
    parser.add_argument("--report", type=Path, default=firmware.FOLDER / "soak.md", help="of a soak")
    parser.add_argument("--progress", type=Path, help="where a part of a soak writes what it has reached")
    options = parser.parse_args()
    what = options.what or ["life", "pi", "pi3", "powercut", "resets"]
    usual = (10_000, 4, 40, 500) if "soak" in what else (300, 1, 3, 3)
    asked = options.states, options.updates, options.boots, options.cycles
    states, updates, boots, cycles = (default if value is None else value for value, default in zip(asked, usual))
    print(f"seed {options.seed}", flush=True)
    # So that no board is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))

    tally = Tally()
    if tally.case("image", firmware.prepare):
        for name, life_of_one in (("life", life.Life), ("pi", pi.Life), ("pi3", pi.Card)):
            if name in what:
                one = life_of_one()
                with one.board:
                    # Each case needs the ones before it.
                    all(tally.case(case.__name__, case) for case in one.cases())
        progress = soak.Progress(options.progress)
        if "powercut" in what:
            tally.case("power cuts", powercut.run, updates, states, boots, options.seed, progress)
        if "measure" in what:
            tally.case("measure", measure.run)
        if "resets" in what:
            tally.case("resets", resets.run, cycles, options.seed, progress)
        if "soak" in what:
            tally.case("soak", soak.Soak(states, boots, updates, cycles, options.seed).run, options.report)
    print(f"qemu: {tally.passed} passed, {tally.failed} failed")
    sys.exit(tally.failed > 0)


if __name__ == "__main__":
    main()
