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
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import firmware
from board import BoardError

PAUSE = 60


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


class Part:
    """A process of its own, in a folder of its own."""

    def __init__(self, name, what, seed, **figures):
        folder = firmware.FOLDER / f"soak-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.progress = name, folder / "progress.json"
        self.progress.unlink(missing_ok=True)
        options = {"seed": seed, "progress": self.progress} | figures
        words = [str(word) for option in options.items() for word in (f"--{option[0]}", option[1])]
        command = [sys.executable, str(Path(__file__).with_name("run.py")), what, *words]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            env=os.environ | {"QEMU_TEST_OUT": str(folder)})
        print(f"  {name}: {folder}/log", flush=True)

    def reached(self):
        return json.loads(self.progress.read_text()) if self.progress.exists() else {}

    def state(self):
        code = self.process.poll()
        return ", not finished" if code is None else ", failed" if code else ""


class Soak:
    """Power cuts, and the resets in two halves, for these wait most of their time."""

    def __init__(self, states, boots, updates, cycles, seed):
        self.states, self.cycles, self.seed = states, cycles, seed
        self.started, self.began = time.monotonic(), datetime.now(timezone.utc)
        # Asked before the report makes the work tree another one.
        self.versions = versions()
        self.cuts = Part("powercut", "powercut", seed, states=states, boots=boots, updates=updates)
        self.resets = [Part("resets-1", "resets", seed + 1, cycles=cycles - cycles // 2),
                       Part("resets-2", "resets", seed + 2, cycles=cycles // 2)]
        self.parts = [self.cuts, *self.resets]

    def run(self, report):
        try:
            while any(part.process.poll() is None for part in self.parts):
                report.write_text(self.report())
                time.sleep(PAUSE)
        finally:
            for part in self.parts:
                part.process.terminate()
        report.write_text(self.report())
        failed = [part.name for part in self.parts if part.process.returncode]
        if failed:
            raise BoardError(f"{' and '.join(failed)} failed: see the logs in {firmware.FOLDER}")

    def report(self):
        cuts, *resets = [part.reached() for part in self.parts]
        during = sum((Counter(part.get("during", {})) for part in resets), Counter())
        faults = [fault for part in (cuts, *resets) for fault in part.get("faults", [])]
        number = Counter(kind for kind, _ in faults)
        lines = [
            "# Soak: power cuts and resets",
            "",
            "Written by `make soak`. What is done, and how each state is judged, is told in [qemu.md](qemu.md#the-tests).",
            "",
            "| | |",
            "| --- | --- |",
            f"| begun | {self.began:%Y-%m-%d %H:%M} UTC, seed {self.seed} |",
            f"| power cuts: states judged | {cuts.get('states', 0)} of {self.states}{self.cuts.state()} |",
            f"| of these, states that were started for real | {cuts.get('booted', 0)} |",
            f"| resets of a running board | {sum(part.get('cycles', 0) for part in resets)} of {self.cycles}"
            f"{''.join(sorted({part.state() for part in self.resets}))} |",
            f"| **lost devices** | **{number['device']}** |",
            f"| **changed host keys** | **{number['host key']}** |",
            f"| **lost authorized keys** | **{number['added key']}** |",
            f"| duration | {minutes(time.monotonic() - self.started)}, all of it beside each other |",
            *(f"| {name} | {version} |" for name, version in self.versions.items()),
            "",
            "A lost device is a state in which what starts next, or what it would fall back to, is not complete, an",
            "installed or validated firmware is forgotten, or a start that does not end in a login.",
        ]
        if faults:
            lines += ["", "## Faults", "", *(f"- {kind}: {text}" for kind, text in faults)]
        lines += ["", "## Power cuts", ""]
        if "entries" in cuts:
            lines += [f"The record: a first start, a key added and {cuts['updates']} updates, each validated; {cuts['entries']} "
                      f"entries in the write log. {minutes(cuts['seconds'])}.", ""]
        lines += table(("states", "of this kind"), cuts.get("kinds", {}))
        lines += ["", "## Resets", "", "Two boards beside each other: "
                  + " and ".join(minutes(part.get("seconds", 0)) for part in resets) + ".", ""]
        lines += table(("resets", "during"), during)
        return "\n".join(lines) + "\n"


def versions():
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


def minutes(seconds):
    return f"{seconds / 60:.0f} minutes"


def table(head, figures):
    """Nothing where there is nothing."""
    rows = [f"| {number} | {what} |" for what, number in sorted(figures.items())]
    return [f"| {head[0]} | {head[1]} |", "| --: | --- |", *rows] if rows else ["Nothing yet."]
