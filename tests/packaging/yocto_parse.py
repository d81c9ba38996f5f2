#!/usr/bin/env python3
"""Parses the layer with bitbake's own parser, from the PyPI package bitbake-setup 2.19.0.

oe-core is not there, so its classes are empty stubs: syntax errors and Python errors of our files are found, with
their lines; what oe-core does with the variables is not.

    python3 -m venv v; v/bin/pip install bitbake-setup==2.19.0; v/bin/python tests/packaging/yocto_parse.py
"""

import os
import sys
import tempfile
import types
from pathlib import Path

for missing in ("hashserv", "hashserv.client"):
    sys.modules[missing] = types.ModuleType(missing)  # bb imports them, parsing does not use them

import bb.data  # noqa: E402
import bb.data_smart  # noqa: E402
import bb.event  # noqa: E402
import bb.parse  # noqa: E402
import bb.siggen  # noqa: E402

LAYER = Path(__file__).resolve().parent.parent.parent / "meta-layer"
STUBS = ["base", "cargo", "cargo-update-recipe-crates", "core-image", "image-artifact-names", "native", "systemd",
         "update-rc.d"]
CONF = """\
OVERRIDES = "${MACHINEOVERRIDES}:class-target"
MACHINEOVERRIDES = "${MACHINE}"
BPN = "myelin"
PN = "myelin"
PV = "0.1.0"
FILE_DIRNAME = "${@os.path.dirname(d.getVar('FILE', False) or '')}"
THISDIR = "${FILE_DIRNAME}"
COMMON_LICENSE_DIR = "/licences"
STAGING_DATADIR_NATIVE = "/native"
DISTRO_FEATURES = "systemd sysvinit"
DEPLOY_DIR_IMAGE = "/deploy"
"""


def data(folder, machine):
    d = bb.data.init()
    d.setVar("MACHINE", machine)
    d.setVar("BBPATH", f"{folder}:{LAYER}")
    d.setVar("TOPDIR", str(folder))
    d.setVar("__bbclasstype", "recipe")
    bb.parse.siggen = bb.siggen.init(d)
    d = bb.parse.handle(str(Path(folder) / "conf/bitbake.conf"), d, True)
    d.setVar("LAYERDIR", str(LAYER))
    return bb.parse.handle(str(LAYER / "conf/layer.conf"), d, True)


def main():
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/conf")
        os.makedirs(f"{folder}/classes")
        Path(f"{folder}/conf/bitbake.conf").write_text(CONF)
        for name in STUBS:
            Path(f"{folder}/classes/{name}.bbclass").write_text("# stub\n")
        for machine, board in (("qemuarm64", "qemu_aarch64"), ("raspberrypi4-64", "rpi4"), ("other", "")):
            for path in sorted(LAYER.rglob("*.bb")) + sorted(LAYER.rglob("*.bbappend")):
                d = data(folder, machine)
                source = path
                if path.suffix == ".bbappend":  # the parser takes it as part of a recipe only
                    path = Path(folder) / "append_1.bb"
                    path.write_text(source.read_text())
                variants = bb.parse.handle(str(path), d, False)
                for variant in variants.values() if isinstance(variants, dict) else [variants]:
                    for name in variant.keys():
                        if not variant.getVarFlag(name, "func", False):
                            variant.getVar(name)
                if path.name == "myelin-image.bb":
                    d = data(folder, machine)
                    d = bb.parse.handle(str(LAYER / "classes-recipe/image_types_myelin_fw.bbclass"), d, True)
                    checks.append(d.getVar("MYELIN_BOARD") == board)
                    checks.append(d.getVar("MYELIN_FWUP_CONF").endswith("/fwup.conf"))
                    d.getVarFlag("do_image_fw", "depends")
                    d.getVarFlag("do_image_fw", "file-checksums")
    if not all(checks):
        sys.exit("yocto_parse: the board of a machine is not found")
    print("yocto_parse: no fault")


main()
