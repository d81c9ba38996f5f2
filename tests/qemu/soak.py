"""Thousands of power cuts and hundreds of resets, beside each other, and a report of them.

The report is written anew every minute, so that a soak which is cut short leaves what it has reached.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import firmware
from board import BoardError

PAUSE = 60
PARTS = "powercut", "resets"


class Progress:
    """What a part has reached, in a file for whoever writes the report."""

    def __init__(self, path=None):
        self.path, self.figures, self.started = path, {}, time.monotonic()

    def tell(self, **figures):
        self.figures |= figures | {"seconds": time.monotonic() - self.started}
        if self.path:
            temporary = Path(f"{self.path}.new")
            temporary.write_text(json.dumps(self.figures))
            temporary.replace(self.path)


class Soak:
    """Both parts as processes of their own, each in its own folder."""

    def __init__(self, states, boots, updates, cycles, seed):
        self.wanted = {"powercut": states, "resets": cycles}
        self.seed, self.started, self.began = seed, time.monotonic(), datetime.now(timezone.utc)
        figures = {"powercut": ["--states", states, "--boots", boots, "--updates", updates], "resets": ["--cycles", cycles]}
        self.parts = {}
        for name in PARTS:
            folder = firmware.FOLDER / f"soak-{name}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "progress.json"
            path.unlink(missing_ok=True)
            command = [sys.executable, Path(__file__).with_name("run.py"), name, "--seed", seed, "--progress", path,
                       *figures[name]]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=subprocess.STDOUT, env=os.environ | {"QEMU_TEST_OUT": str(folder)})
            self.parts[name] = process, path
            print(f"  {name}: {folder}/log", flush=True)

    def run(self, report):
        try:
            while any(process.poll() is None for process, _ in self.parts.values()):
                time.sleep(PAUSE)
                report.write_text(self.report())
        finally:
            for process, _ in self.parts.values():
                process.terminate()
        report.write_text(self.report())
        failed = [name for name, (process, _) in self.parts.items() if process.returncode]
        if failed:
            raise BoardError(f"{' and '.join(failed)} failed: see the logs in {firmware.FOLDER}")

    def report(self):
        reached = {name: json.loads(path.read_text()) if path.exists() else {} for name, (_, path) in self.parts.items()}
        cuts, resets = reached["powercut"], reached["resets"]
        faults = [*cuts.get("faults", []), *resets.get("faults", [])]
        number = {kind: sum(fault[0] == kind for fault in faults) for kind in ("device", "host key", "added key")}
        lines = [
            "# Soak: power cuts and resets",
            "",
            "Written by `make soak`. What is done, and how each state is judged, is told in [qemu.md](qemu.md#the-tests).",
            "",
            "| | |",
            "| --- | --- |",
            f"| begun | {self.began:%Y-%m-%d %H:%M} UTC, seed {self.seed} |",
            f"| power cuts: states judged | {cuts.get('states', 0)} of {self.wanted['powercut']}{self.state('powercut')} |",
            f"| of these, states that were started for real | {cuts.get('booted', 0)} |",
            f"| resets of a running board | {resets.get('cycles', 0)} of {self.wanted['resets']}{self.state('resets')} |",
            f"| **lost devices** | **{number['device']}** |",
            f"| **changed host keys** | **{number['host key']}** |",
            f"| **lost authorized keys** | **{number['added key']}** |",
            f"| duration | {(time.monotonic() - self.started) / 60:.0f} minutes, both beside each other |",
            *(f"| {name} | {version} |" for name, version in self.versions().items()),
            "",
            "A lost device is a state in which what starts next, or what it would fall back to, is not complete, an",
            "installed or validated firmware is forgotten, or a start that does not end in a login.",
        ]
        if faults:
            lines += ["", "## Faults", "", *(f"- {kind}: {text}" for kind, text in faults)]
        lines += ["", "## Power cuts", ""]
        if "entries" in cuts:
            lines += [f"The record: a first start, a key added and {cuts['updates']} updates, each validated; {cuts['entries']} "
                      f"entries in the write log. {cuts['seconds'] / 60:.0f} minutes.", ""]
        lines += table(("states", "of this kind"), cuts.get("kinds", {}))
        lines += ["", "## Resets", ""]
        if "seconds" in resets:
            lines += [f"{resets['seconds'] / 60:.0f} minutes.", ""]
        lines += table(("resets", "during"), resets.get("during", {}))
        return "\n".join(lines) + "\n"

    def state(self, name):
        process, _ = self.parts[name]
        if process.poll() is None:
            return " (not finished)"
        return " (failed)" if process.returncode else ""

    def versions(self):
        def first_line(*command):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=firmware.TOP)
            return done.stdout.partition("\n")[0] or "unknown"

        kernel = re.search(rb"Linux version (\S+)", Path(firmware.FOLDER, "Image").read_bytes())
        return {
            "Myelin": first_line("git", "describe", "--always", "--dirty"),
            "QEMU": first_line("qemu-system-aarch64", "--version"),
            "U-Boot": first_line("dpkg-query", "-W", "-f", "${Version}\n", "u-boot-qemu"),
            "guest": f"Linux {kernel[1].decode()}" if kernel else "unknown",
            "machine": f"{os.cpu_count()} processors, Linux {platform.release()}",
        }


def table(head, figures):
    """Nothing where there is nothing."""
    rows = [f"| {number} | {what} |" for what, number in sorted(figures.items())]
    return [f"| {head[0]} | {head[1]} |", "| --: | --- |", *rows] if rows else ["Nothing yet."]
