#!/bin/sh
# Checks buildroot-package and meta-layer with tools from PyPI, in the pinned versions: kconfiglib, oelint-adv, and the
# parser of bitbake. What needs no download is in tests/packaging.rs already.
set -eu
cd "$(dirname "$0")/.."
tools=target/packaging-tools

if ! cmp -s tests/packaging/requirements.txt "$tools/requirements.txt"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check -r tests/packaging/requirements.txt
    cp tests/packaging/requirements.txt "$tools/requirements.txt"
fi

"$tools/bin/python" tests/packaging/kconfig.py
"$tools/bin/python" tests/packaging/yocto_parse.py
(
    cd meta-layer
    # shellcheck disable=SC2046 # no file name of ours has a space
    "../$tools/bin/oelint-adv" --quiet --relpaths $(
        find . -name '*.bb' -o -name '*.bbappend' -o -name '*.bbclass' -o -name '*.inc' -o -name layer.conf
    )
)
echo "oelint-adv: no fault"
