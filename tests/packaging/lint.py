#!/usr/bin/env python3
"""Checks buildroot-package/ by the rules of Buildroot's check-package, as far as they are about lines.

    lint.py FOLDER        check an external tree; findings on stdout, exit status 1 if there are any
    lint.py --self-test   check that each rule finds what it is for

check-package itself needs a Buildroot tree; where there is one, it has the last word.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MANUAL_HEADER = 80
HELP_WIDTH = 62
HASH_DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
DEFAULTS = {
    "INSTALL_STAGING": "NO", "INSTALL_TARGET": "YES", "INSTALL_IMAGES": "NO", "REDISTRIBUTE": "YES",
}
# Variables of others that a package may add to.
FOREIGN = {"BR_NO_CHECK_HASH_FOR", "TARGET_FINALIZE_HOOKS", "LINUX_POST_PATCH_HOOKS", "PACKAGES_PERMISSIONS_TABLE"}


class Findings(list):
    def add(self, path, line, text):
        self.append(f"{path}:{line}: {text}")


def common(path, text, out):
    lines = text.split("\n")
    if not text.endswith("\n"):
        out.add(path, len(lines), "missing newline at the end")
    elif len(lines) > 1 and lines[-2] == "":
        out.add(path, len(lines) - 1, "empty line at the end")
    for number, (line, before) in enumerate(zip(lines[:-1], [None] + lines), 1):
        if line == "" and before == "":
            out.add(path, number, "consecutive empty lines")
        if line != line.rstrip():
            out.add(path, number, "trailing white space")


def kconfig(path, text, out):
    order = ["type", "default", "depends on", "select", "help"]
    reached, in_help, first_of_help, continued = 0, False, False, False
    seen, conditions = set(), []
    for number, line in enumerate(text.split("\n"), 1):
        word = line.split(" ")[0].strip()
        if in_help:
            if line == "":
                if first_of_help:
                    out.add(path, number, "help begins with an empty line")
                continue
            if line.startswith("\t"):
                first_of_help = False
                if not re.match(r"\t  \S", line):
                    out.add(path, number, "help text: one tab, two spaces")
                elif len(line) - 3 > HELP_WIDTH and not re.fullmatch(r"\t  https?://\S+", line):
                    out.add(path, number, f"help text: at most {HELP_WIDTH} characters")
                continue
            in_help = False
        if continued:
            if not line.startswith("\t"):
                out.add(path, number, "continuation lines begin with a tab")
            continued = line.endswith("\\")
            continue
        continued = line.endswith("\\")
        if line.lstrip().startswith("#") or line == "":
            continue
        if re.match(r"\s*(config|menuconfig|if|endif|menu|endmenu|choice|endchoice|comment|source)\b", line):
            if line[0].isspace():
                out.add(path, number, f"{word} must not be indented")
            reached = 0
            if word == "if":
                conditions.append(line)
            elif word == "endif" and conditions:
                conditions.pop()
            elif word == "config":
                symbol = (line, tuple(conditions))
                if symbol in seen:
                    out.add(path, number, "symbol defined twice")
                seen.add(symbol)
            continue
        kind = re.match(r"\s*(bool|string|int|hex|tristate|prompt|default|depends on|select|imply|help)\b", line)
        if not kind:
            out.add(path, number, "what is this line?")
            continue
        if not re.match(r"\t\S", line):
            out.add(path, number, "attributes are indented by one tab")
        name = kind.group(1)
        name = {"imply": "select"}.get(name, name if name in order else "type")
        if name == "default" and re.fullmatch(r"\s*default n", line):
            out.add(path, number, "default n is the default")
        place = order.index(name)
        if place < reached:
            out.add(path, number, f"order: {', '.join(order)}")
        reached = place
        in_help = first_of_help = name == "help"


def hashes(path, text, out):
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() == "" or line.startswith("#"):
            continue
        fields = line.split("  ")
        if len(fields) != 3 or any(" " in field or "\t" in field for field in fields):
            out.add(path, number, "three fields, two spaces between them")
        elif HASH_DIGITS.get(fields[0]) != len(fields[1]) or not re.fullmatch("[0-9a-f]+", fields[1]):
            out.add(path, number, "unknown type of hash, or wrong length")


def makefile(path, text, out):
    package = re.sub(r"[.-]", "_", Path(path).stem).upper()
    lines = text.split("\n")
    header = ["#" * MANUAL_HEADER, "#", None, "#", "#" * MANUAL_HEADER, ""]
    if Path(path).name != "external.mk" and (
        len(lines) < 6
        or any(want is not None and have != want for have, want in zip(lines, header))
        or not re.match(r"# \S", lines[2])
    ):
        out.add(path, 1, f"header: {MANUAL_HEADER} hashes, the name, {MANUAL_HEADER} hashes, an empty line")
    if not text.isascii():
        out.add(path, 1, "ASCII only")
    in_define = continued = False
    depth, assigned, version_seen = 0, set(), False
    for number, line in enumerate(lines, 1):
        after_backslash, continued = continued, line.endswith("\\")
        if re.search(r"(?<! )\\$|  \\$", line) and not line.endswith("\t\\"):
            out.add(path, number, "one space before a backslash")
        if continued and number < len(lines) and lines[number] == "":
            out.add(path, number, "backslash before an empty line")
        if re.search(r"(?<!\$)\$\{", line):
            out.add(path, number, "$(VAR), not ${VAR}")
        if re.match(r"\s*ifn?def\b", line):
            out.add(path, number, "ifeq or ifneq, not ifdef")
        if "$(HOST_DIR)/usr" in line:
            out.add(path, number, "nothing goes to $(HOST_DIR)/usr")
        if line.startswith("define "):
            in_define = True
            continue
        if line == "endef":
            in_define = False
            continue
        if in_define or after_backslash:
            if line and not line.startswith("#") and not re.match(r"\t|if|else|endif", line):
                out.add(path, number, "commands and continuation lines begin with a tab")
            continue
        if line.startswith("\t"):
            out.add(path, number, "only commands and continuation lines begin with a tab")
        if re.match(r"ifn?(eq|def)\b", line):
            depth += 1
        elif line == "endif":
            depth -= 1
        assignment = re.match(r"(?:override )?([A-Za-z0-9_]+)\s*(\+=|[:?]?=)\s*(.*)", line)
        if not assignment or Path(path).name == "external.mk":
            continue
        name, operator, value = assignment.groups()
        if line.startswith("override "):
            continue
        if not re.match(rf"(HOST_|ROOTFS_)?{package}_", name):
            if name not in FOREIGN:
                out.add(path, number, f"{name}: variables begin with {package}_")
            continue
        suffix = re.sub(rf"^(HOST_|ROOTFS_)?{package}_", "", name)
        if suffix == "VERSION":
            version_seen = True
        if DEFAULTS.get(suffix) == value or (suffix == "SOURCE" and value == f"{Path(path).stem}-$({package}_VERSION).tar.gz"):
            out.add(path, number, f"{name}: that is the default")
        if (suffix, value) in {("CPE_ID_VENDOR", f"{Path(path).stem}_project"), ("CPE_ID_PRODUCT", Path(path).stem)}:
            out.add(path, number, f"{name}: that is the default")
        if suffix == "CPE_ID_VERSION" and not version_seen:
            out.add(path, number, "the version comes before its CPE")
        if depth and suffix in {"DEPENDENCIES", "CONF_OPTS"} and operator == "=":
            out.add(path, number, f"{name}: += in a condition")
        if operator == "=" and not depth:
            if name in assigned:
                out.add(path, number, f"{name}: assigned twice")
            assigned.add(name)
        if depth and re.match(rf"\$\({name}\)", value):
            out.add(path, number, f"{name}: += in a condition")


def init_script(path, text, out):
    daemon = None
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\t* ", line):
            out.add(path, number, "tabs only")
        found = re.match(r"DAEMON=[\"']?([^\"']*)", line)
        if found:
            if daemon is not None:
                out.add(path, number, "DAEMON defined twice")
            daemon = found.group(1)
            if "/" in daemon:
                out.add(path, number, "DAEMON without a path")
        pid_file = re.match(r"PIDFILE=[\"']?([^\"']*)", line)
        if pid_file and pid_file.group(1) not in {"/var/run/$DAEMON.pid", "/var/run/${DAEMON}.pid"}:
            out.add(path, number, "PIDFILE=\"/var/run/$DAEMON.pid\"")
    if daemon is None:
        out.add(path, 1, "DAEMON is not defined")
    elif not re.fullmatch(r"S\d\d" + re.escape(daemon), Path(path).name):
        out.add(path, 1, f"the file's name is S, two digits, {daemon}")


def patch(path, text, out):
    if not re.fullmatch(r"\d{4}-.*\.patch", Path(path).name):
        out.add(path, 1, "patches are called NNNN-text.patch")
    for field in ("Signed-off-by:", "Upstream:"):
        if not re.search(f"^{field}", text, re.M):
            out.add(path, 1, f"no {field}")
    if re.search(r"^Subject: \[PATCH \d+/\d+\]", text, re.M):
        out.add(path, 1, "made with git format-patch -N")


def shell(path, out):
    run = subprocess.run(["shellcheck", "--external-sources", path], capture_output=True, text=True)
    if run.returncode:
        out.add(path, 1, "shellcheck:\n" + run.stdout + run.stderr)


def check(path, out):
    name = Path(path).name
    data = Path(path).read_bytes()
    text = data.decode(errors="replace")
    may_be_executable = False
    if name.startswith("Config."):
        kconfig(path, text, out)
    elif name.endswith("_defconfig"):
        if "BR2_DOWNLOAD_FORCE_CHECK_HASHES=y" not in text.split("\n"):
            out.add(path, 1, "BR2_DOWNLOAD_FORCE_CHECK_HASHES=y is missing")
    elif name.endswith(".hash"):
        hashes(path, text, out)
    elif name.endswith(".mk"):
        makefile(path, text, out)
    elif name.endswith(".patch"):
        patch(path, text, out)
    elif re.match(r"S\d\d", name):
        init_script(path, text, out)
        shell(path, out)
        may_be_executable = "/etc/init.d/" in path
    elif text.startswith("#!/bin/sh") or text.startswith("#!/usr/bin/env bash"):
        shell(path, out)
        may_be_executable = True
    else:
        may_be_executable = None
    if may_be_executable is not None:
        common(path, text, out)
    if not may_be_executable and os.access(path, os.X_OK):
        out.add(path, 1, "must not be executable")


def tree(folder):
    out = Findings()
    for needed in ("external.desc", "external.mk", "Config.in"):
        if not (Path(folder) / needed).is_file():
            out.add(folder, 0, f"no {needed}")
    description = Path(folder) / "external.desc"
    if description.is_file() and not re.fullmatch(r"name: [A-Za-z0-9_]+\ndesc: .{1,40}\n", description.read_text()):
        out.add(description, 1, "name: LETTERS_AND_DIGITS, desc: at most 40 characters")
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            check(str(path), out)
    return out


BAD = {
    "Config.in": ("config BR2_X\n    bool \"x\"\n\tdepends on Y\n\tdefault n\n\thelp\n\t  x\n", [
        "attributes are indented", "order", "default n"]),
    "Config.in.host": ("\tconfig BR2_X\n\tbool \"x\"\n\thelp\n\n\t text\n\t  " + "x" * 63 + "\nconfig BR2_Y\nconfig BR2_Y\n", [
        "must not be indented", "begins with an empty line", "one tab, two spaces", "at most 62", "defined twice"]),
    "configs/x_defconfig": ("BR2_arm=y \n\n\n", ["FORCE_CHECK_HASHES", "trailing", "consecutive", "at the end"]),
    "package/x/x.hash": ("sha256 00  x\nsha256  00  x\n", ["three fields", "wrong length"]),
    "package/x/x.mk": (
        "# x\nX_SOURCE = x-$(X_VERSION).tar.gz\nX_INSTALL_STAGING = NO\nY = 1\nX_A = ${B}\\\n\nifdef Z\n\tX_B = 1\nendif\n"
        "X_A = 2\nifeq ($(Z),y)\nX_DEPENDENCIES = z\nX_C = $(X_C) z\nendif\ndefine X_I\n  ls $(HOST_DIR)/usr\nendef\n"
        "X_CPE_ID_PRODUCT = x\n# \u00e9", [
            "header", "X_SOURCE: that is the default", "X_INSTALL_STAGING", "begin with X_", "not ${VAR}",
            "one space before", "before an empty line", "not ifdef", "only commands", "assigned twice",
            "X_DEPENDENCIES: +=", "X_C: +=", "begin with a tab", "$(HOST_DIR)/usr", "X_CPE_ID_PRODUCT", "ASCII",
            "missing newline"]),
    "package/x/S50x": ("#!/bin/sh\nDAEMON=\"/usr/bin/y\"\nPIDFILE=\"/run/y.pid\"\nif true; then\n  rm $1\nfi\n", [
        "without a path", "PIDFILE", "tabs only", "S, two digits", "SC2086"]),
    "patches/x/fix.patch": ("Subject: [PATCH 1/2] x\n", ["NNNN", "Signed-off-by", "Upstream", "format-patch"]),
    "board/post-build.sh": ("#!/bin/sh\nrm $1\n", ["SC2086"]),
    "external.desc": ("name: A-B\ndesc: x\n", ["LETTERS"]),
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, _) in BAD.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (Path(folder) / "package/x/x.hash").chmod(0o755)
        found = tree(folder)
        missed = [
            f"{name}: {want}" for name, (_, wants) in BAD.items() for want in wants
            if not any(name in line and want in line for line in found)
        ]
        if not any("must not be executable" in line for line in found):
            missed.append("must not be executable")
        if not any("no external.mk" in line for line in found):
            missed.append("no external.mk")
    if missed:
        sys.exit("lint: these faults were not found:\n" + "\n".join(missed + ["found:"] + found))


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    elif len(sys.argv) == 2:
        found = tree(sys.argv[1])
        print("\n".join(found))
        sys.exit(1 if found else 0)
    else:
        sys.exit(__doc__)


main()
