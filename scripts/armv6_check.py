#!/usr/bin/env python3
"""Whether an ARMv6 program holds instructions that its processor does not know.

    scripts/armv6_check.py PROGRAM

The program needs its symbols; `make cross` builds it so. Some functions may hold such instructions, for they run only
where the processor has said that it knows them.
"""

import re
import subprocess
import sys
from collections import Counter

PROCESSOR = "arm1176jzf-s"
CHOSEN_AT_RUN_TIME = re.compile(
    r"""\w*neon\w* | (?:ring_core_\w+)?_(?:bsaes|vpaes)_\w+   # ring, by the features that it has looked up
    | \._\w+                                           # and local labels of that
    | __a_(?:cas|barrier)_v7                           # musl, by HWCAP
    | .*(?:save|restore)VFPWithFSTMD.* | .*saveVFPv3.* | .*restoreVFPv3.*   # libunwind, for frames with such registers
    """, re.VERBOSE)


def main():
    program = sys.argv[1]
    listing = subprocess.Popen(["llvm-objdump", "-d", f"--mcpu={PROCESSOR}", "--no-show-raw-insn", program],
                               stdout=subprocess.PIPE, text=True)
    function, unknown, instructions = "?", Counter(), 0
    for line in listing.stdout:
        if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = match[1]
        elif re.match(r" *[0-9a-f]+:", line):
            instructions += 1
            unknown[function] += "<unknown>" in line
    if listing.wait():
        sys.exit(f"{program} cannot be disassembled")
    unknown = +unknown
    foreign = {name: number for name, number in unknown.items() if not CHOSEN_AT_RUN_TIME.fullmatch(name)}
    print(f"{program}: {instructions} instructions, {unknown.total()} of them unknown to {PROCESSOR}, in {len(unknown)} functions")
    for name, number in sorted(foreign.items()):
        print(f"  {number} in {name}, which is not chosen at run time")
    sys.exit(bool(foreign) or not instructions)


if __name__ == "__main__":
    main()
