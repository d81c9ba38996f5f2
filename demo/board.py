#!/usr/bin/env python3
"""Myelin on a board: an ARM64 image under QEMU, updated over SSH, and what happens when an update is no good.

    demo/board.py      (make demo builds what it needs)
"""

import os
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
os.environ.setdefault("QEMU_TEST_OUT", str(TOP / "target/demo"))
sys.path += [str(TOP / "image"), str(TOP / "tests/qemu")]
import firmware  # noqa: E402
from board import Board, host_myelin  # noqa: E402


def say(text):
    print(f"\n\033[1m== {text}\033[0m", flush=True)


def show(command):
    print(f"\033[2m$ {command}\033[0m", flush=True)


def slots(board):
    show("ssh BOARD myelin firmware status")
    print(board.ssh("myelin firmware status").rstrip(), flush=True)


def upload(board, file):
    """Its own words go to the terminal."""
    show(f"myelin upload BOARD {file.name}")
    command = [host_myelin(), "upload", *board.ssh_options(), "root@127.0.0.1", str(file)]
    status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    print(f"myelin upload ends with exit status {status}", flush=True)
    return status


def boot_loader(board):
    """What U-Boot and the start scripts have said since the last time."""
    shown = getattr(board, "shown", 0)
    board.shown = len(board.console)
    for _, line in board.console[shown:board.shown]:
        if line and line.startswith(("slots:", "board:", "U-Boot 20", "data:", "initramfs:")):
            print(f"   console: {line}")


def main():
    say("A key pair, a firmware file, and a disk image made by installing that file")
    show("image/build.sh 1.0.0")
    firmware.prepare()

    board = Board(firmware.disk("demo"), firmware.FOLDER, firmware.KEY)
    say("The board starts: U-Boot chooses slot a, Linux comes up, Myelin answers")
    with board:
        seconds, *_ = board.up("a", "1.0.0")
        boot_loader(board)
        print(f"up {seconds:.1f} s after power-on")
        show("ssh BOARD uname -a")
        print(board.ssh("uname -a").rstrip())
        slots(board)

        say("An update over SSH: version 2.0.0 goes into slot b, the board restarts, and b is on trial")
        good = firmware.validates_itself("2.0.0")
        started = time.monotonic()
        assert upload(board, good) == 0
        board.up("b", "2.0.0")
        print(f"pushed, written, restarted in {time.monotonic() - started:.0f} s")
        boot_loader(board)

        say("Somebody can log in, so Myelin ends the trial: slot b stays")
        while board.status()["slots"]["b"]["validated"] is not True:
            time.sleep(1)
        slots(board)

        say("Version 3.0.0 has a kernel that panics: the boot loader goes back by itself")
        assert upload(board, firmware.panics("3.0.0")) != 0
        board.up("b", "2.0.0")
        boot_loader(board)
        slots(board)

        say("The board is reset while the next update is written: the running slot is untouched")
        push = subprocess.Popen([host_myelin(), "upload", *board.ssh_options(), "--quiet", "root@127.0.0.1",
                                 str(firmware.validates_itself("4.0.0"))], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (update := board.status()["update"]) or update["bytes"] < 4 << 20:
            time.sleep(0.1)
        print(f"{update['bytes']} bytes are written; the board is reset")
        board.reset()
        push.wait()
    board.shown = 0
    with board:
        board.up("b", "2.0.0")
        boot_loader(board)
        slots(board)
    board.disk.unlink()
    say("Done: every update that was good runs, and the board came back from every one that was not")


if __name__ == "__main__":
    main()
