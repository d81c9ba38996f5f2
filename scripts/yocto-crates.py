#!/usr/bin/env python3
"""Writes the list of crates that the Yocto recipe fetches, from Cargo.lock.

    scripts/yocto-crates.py            write meta-layer/.../myelin-crates.inc
    scripts/yocto-crates.py --check    only compare; exit status 1 when it differs

The result is what `bitbake -c update_crates myelin` would write, in the shape that oelint accepts.
"""

import sys
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOCK = TOP / "Cargo.lock"
LIST = TOP / "meta-layer/recipes-connectivity/myelin/myelin-crates.inc"

HEAD = "# Made from Cargo.lock by scripts/yocto-crates.py; do not edit.\n"


def crates(lock):
    """The packages that come from crates.io; our own has no source."""
    found = []
    for package in tomllib.loads(lock)["package"]:
        source = package.get("source")
        if source is None:
            continue
        if "crates.io" not in source:
            sys.exit(f"yocto-crates: {package['name']} comes from {source}, which the recipe cannot fetch")
        found.append((package["name"], package["version"], package["checksum"]))
    return found


def recipe_part(found):
    uris = "".join(f"    crate://crates.io/{name}/{version} \\\n" for name, version, _ in found)
    sums = "".join(f'SRC_URI[{name}-{version}.sha256sum] = "{checksum}"\n' for name, version, checksum in found)
    return f'{HEAD}\nSRC_URI += "\\\n{uris}"\n\n{sums}'


def main():
    text = recipe_part(crates(LOCK.read_text()))
    if sys.argv[1:] == ["--check"]:
        if not LIST.exists() or LIST.read_text() != text:
            sys.exit(f"yocto-crates: {LIST.relative_to(TOP)} is not that of Cargo.lock: run scripts/yocto-crates.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        LIST.write_text(text)


main()
