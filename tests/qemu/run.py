#!/usr/bin/env python3
"""Tests on an emulated board: an ARM64 system with U-Boot, two slots, and Myelin as its only SSH daemon.

    tests/qemu/run.py              the life of three boards, some power cuts and resets: for every run of the tests,
                                   in two halves at the same time
    tests/qemu/run.py soak         thousands of power cuts and hundreds of resets, hours; --report FILE
    tests/qemu/run.py life|pi|pi3|powercut|resets|measure [--states N] [--cycles N] [--updates N] [--boots N] [--seed N]

Needs the board's Myelin (scripts/cross.sh aarch64-unknown-linux-musl) and one for this machine (cargo build).
"""

import argparse
import os
import signal
import subprocess
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


# An emulated board keeps one processor busy, and most machines have two. They take about as long.
HALVES = ["life"], ["pi", "pi3", "powercut", "resets"]


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
    what = options.what or HALVES[0]
    usual = (10_000, 4, 40, 500) if "soak" in what else (300, 1, 3, 3)
    for name, default in zip(("states", "updates", "boots", "cycles"), usual):
        if getattr(options, name) is None:
            setattr(options, name, default)
    print(f"seed {options.seed}", flush=True)
    # So that no board is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if options.what:
        sys.exit(run(what, options) > 0)
    words = [sys.executable, __file__, *HALVES[1], *sys.argv[1:], "--seed", str(options.seed)]
    with subprocess.Popen(words, env=os.environ | {"QEMU_TEST_OUT": str(firmware.FOLDER / "half")}) as other:
        try:
            failed = run(what, options)
            failed += other.wait() != 0
        finally:
            other.terminate()
    sys.exit(failed > 0)


def run(what, options):
    """How many cases have failed."""
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
            tally.case("power cuts", powercut.run, options.updates, options.states, options.boots, options.seed, progress)
        if "measure" in what:
            tally.case("measure", measure.run)
        if "resets" in what:
            tally.case("resets", resets.run, options.cycles, options.seed, progress)
        if "soak" in what:
            whole = soak.Soak(options.states, options.boots, options.updates, options.cycles, options.seed)
            tally.case("soak", whole.run, options.report)
    print(f"qemu: {', '.join(what)}: {tally.passed} passed, {tally.failed} failed", flush=True)
    return tally.failed


if __name__ == "__main__":
    main()
