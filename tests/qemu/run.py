#!/usr/bin/env python3
"""Tests on an emulated board: an ARM64 system with U-Boot, two slots, and Myelin as its only SSH daemon.

    tests/qemu/run.py              the life of a board, some power cuts and resets: for every run of the tests
    tests/qemu/run.py soak         thousands of power cuts and hundreds of resets, an hour and more
    tests/qemu/run.py life|powercut|resets|measure [--states N] [--cycles N] [--updates N] [--boots N] [--seed N]

Needs the board's Myelin (scripts/cross.sh aarch64-unknown-linux-musl) and one for this machine (cargo build).
"""

import argparse
import sys
import time
import traceback

import firmware
import life
import measure
import powercut
import resets


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
    parser.add_argument("what", nargs="*", choices=[[], "life", "powercut", "resets", "measure", "soak"], default=[])
    parser.add_argument("--updates", type=int, default=1, help="updates in the record that power cuts are made of")
    parser.add_argument("--losses", type=int, default=1, help="random losses after each entry of the record")
    parser.add_argument("--boots", type=int, default=3, help="states that are started for real")
    parser.add_argument("--cycles", type=int, default=3, help="resets")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of everything that is random")
    options = parser.parse_args()
    what = options.what or ["life", "powercut", "resets"]
    if "soak" in what:
        what = ["powercut", "resets"]
        options.updates, options.losses, options.boots, options.cycles = 4, 8, 40, 500
    print(f"seed {options.seed}", flush=True)

    tally = Tally()
    if tally.case("image", firmware.prepare):
        if "life" in what:
            board = life.Life()
            with board.board:
                # Each case needs the ones before it.
                all(tally.case(case.__name__, case) for case in board.cases())
        if "powercut" in what:
            tally.case("power cuts", powercut.run, options.updates, options.losses, options.boots, options.seed)
        if "measure" in what:
            tally.case("measure", measure.run)
        if "resets" in what:
            tally.case("resets", resets.run, options.cycles, options.seed)
    print(f"qemu: {tally.passed} passed, {tally.failed} failed")
    sys.exit(tally.failed > 0)


if __name__ == "__main__":
    main()
