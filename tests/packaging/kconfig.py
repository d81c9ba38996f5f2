#!/usr/bin/env python3
"""Loads our Config.in files and every defconfig with kconfiglib (tests/packaging/requirements.txt).

Buildroot's own symbols are stubs made from buildroot-symbols.txt, so this finds syntax errors, attributes out of
place, misspelled names and symbols of ours that get lost; dependencies among Buildroot's symbols it does not know.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["CONFIG_"] = ""  # Buildroot's symbols have no prefix; read when kconfiglib is imported
import kconfiglib  # noqa: E402

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent / "buildroot-package"
os.environ["BR2_EXTERNAL_MYELIN_PATH"] = str(TREE)


def stubs():
    text = ""
    for line in (HERE / "buildroot-symbols.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, kind, *note = line.split()
        if note == ["on"]:
            text += f"config {name}\n\tdef_bool y\n"
        elif note == ["off"]:
            text += f"config {name}\n\tdef_bool n\n"
        else:
            text += f'config {name}\n\t{kind} "{name}"\n'
    return text + f'source "{TREE}/Config.in"\n'


def load(folder):
    main = Path(folder) / "Config.in"
    main.write_text(stubs())
    return kconfiglib.Kconfig(str(main), warn_to_stderr=False)


def lost(config, defconfig):
    """The lines of a defconfig that the result does not contain."""
    config.load_config(str(defconfig))
    with tempfile.NamedTemporaryFile("r") as result:
        config.write_config(result.name, save_old=False)
        have = set(result.read().splitlines())
    lines = [line for line in defconfig.read_text().splitlines() if line.startswith("BR2_") or line.endswith(" is not set")]
    return [line for line in lines if line not in have]


def main():
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        faults += load(folder).warnings
        for defconfig in sorted((TREE / "configs").glob("*_defconfig")):
            config = load(folder)
            faults += [f"{defconfig.name}: lost: {line}" for line in lost(config, defconfig)]
            faults += [f"{defconfig.name}: {warning}" for warning in config.warnings]
        wrong = Path(folder) / "wrong_defconfig"
        wrong.write_text("BR2_PACKAGE_MYELIM=y\n")
        if not lost(load(folder), wrong):
            faults.append("a misspelled symbol was not noticed")
    print("\n".join(faults) or f"kconfiglib {'.'.join(map(str, kconfiglib.VERSION))}: no fault")
    sys.exit(1 if faults else 0)


main()
