#!/usr/bin/env python3
"""QEMU's virt board with our disk: what `make qemu` starts, and what the tests and the demo drive.

    image/board.py [DISK]       starts the board on this terminal; Ctrl-A X ends it

Emulated, with one processor: that starts fastest and is the same on every machine. U-Boot chooses the slot, so
a board behaves as one on a desk does. `reset` ends the emulator: what the guest has written stays, for it is in
the page cache of this machine. That is a reset, not a power cut; those are played by tests/qemu/powercut.py.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
OUT = Path(os.environ.get("IMAGE_OUT", TOP / "target/image"))
U_BOOT = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
UP = r"board: up, slot (\w), version (\S+), after (\S+) s"


def layout():
    """Where everything lies on the disk, in blocks of 512 bytes."""
    text = (TOP / "buildroot-package/board/common/layout.conf").read_text()
    return {name: int(value) for name, value in re.findall(r"^define\((\w+), (\d+)\)", text, re.MULTILINE)}


def host_myelin():
    """Myelin for this machine, as the image scripts find it: what was built last."""
    if named := os.environ.get("MYELIN"):
        return named
    built = [path for path in (TOP / "target/release/myelin", TOP / "target/debug/myelin") if path.exists()]
    if built:
        return str(max(built, key=lambda path: path.stat().st_mtime))
    sys.exit("there is no Myelin for this machine: run cargo build, or name one in MYELIN")


def copy_disk(source, target):
    subprocess.check_call(["cp", "--sparse=always", source, target])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class BoardError(Exception):
    """The board did something else than was waited for."""


class Board:
    """One board. Its console is a list of lines with the seconds since power-on."""

    def __init__(self, disk, folder=OUT, key=None, write_log=None, counts_instructions=False):
        self.disk, self.folder, self.key = Path(disk), Path(folder), key
        self.port = free_port()
        self.known_hosts = Path(f"{disk}.known_hosts")
        self.write_log, self.counts_instructions = write_log, counts_instructions
        self.process = None
        self.console, self.read = [], 0
        self.news = threading.Condition()

    def command(self, serial="stdio"):
        disk = ["-drive", f"if=none,id=disk,file={self.disk},format=raw,cache=writeback"]
        if self.write_log:
            Path(self.write_log).write_bytes(b"")
            disk = ["-blockdev", f"driver=file,node-name=file,filename={self.disk}",
                    "-blockdev", "driver=raw,node-name=raw,file=file",
                    "-blockdev", f"driver=file,node-name=log,filename={self.write_log}",
                    "-blockdev", "driver=blklogwrites,node-name=disk,file=raw,log=log,log-sector-size=512"]
        # An instruction is a nanosecond of the guest's clock, however busy this machine is.
        clock = ["-icount", "shift=0"] if self.counts_instructions else []
        return ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", "512",
                "-accel", "tcg", *clock, "-bios", U_BOOT,
                "-drive", f"if=pflash,unit=1,format=raw,readonly=on,file={self.folder}/flash.img",
                *disk, "-device", "virtio-blk-device,drive=disk",
                "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22",
                "-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device",
                "-display", "none", "-monitor", "none", "-serial", serial]

    def power_on(self):
        self.start = time.monotonic()
        self.console, self.read = [], 0
        self.process = self.emulator()
        threading.Thread(target=self._listen, args=(self.process, self.console), daemon=True).start()
        return self

    def emulator(self):
        return subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def goes_on(self, process):
        """What follows an emulator that has ended: the next one, where it is not QEMU that does a reboot."""

    def _listen(self, process, console):
        """Puts lines on the console of this start; None is its end."""
        def add(*lines):
            with self.news:
                now = time.monotonic() - self.start
                console.extend((now, None if line is None else line.decode("utf-8", "replace")) for line in lines)
                self.news.notify_all()

        while process:
            rest = b""
            while chunk := os.read(process.stdout.fileno(), 4096):
                *lines, rest = re.split(rb"\r*\n", rest + chunk)
                add(*lines)
            add(rest)
            process = self.goes_on(process)
        add(None)

    def wait(self, pattern, seconds=120):
        """The next line of the console that matches: (seconds since power-on, match)."""
        end = time.monotonic() + seconds
        with self.news:
            while True:
                while self.read < len(self.console):
                    at, line = self.console[self.read]
                    self.read += 1
                    if line is None:
                        raise BoardError(f"the board went off, without {pattern!r}; {self.tail()}")
                    if match := re.search(pattern, line):
                        return at, match
                left = end - time.monotonic()
                if left <= 0:
                    raise BoardError(f"no {pattern!r} in {seconds} s; {self.tail()}")
                self.news.wait(left)

    def up(self, slot=None, version=None, seconds=120, answers=True):
        """Waits until that slot has started and SSH answers: (seconds to the end of the start, slot, version)."""
        at, match = self.wait(UP, seconds)
        if (slot or match[1], version or match[2]) != (match[1], match[2]):
            raise BoardError(f"slot {match[1]} with {match[2]} came up, not slot {slot} with {version}; {self.tail()}")
        if answers:
            self.answers(seconds)
        return at, match[1], match[2]

    def answers(self, seconds=60):
        """Waits until SSH says who it is. Before that, QEMU takes connections and resets them."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise BoardError(f"SSH does not answer in {seconds} s; {self.tail()}")

    def tail(self):
        return "the console ends: " + " | ".join(line for _, line in self.console[-12:] if line)

    def reset(self):
        """Nothing of the guest runs after this."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def __enter__(self):
        return self.power_on()

    def __exit__(self, *_):
        self.reset()

    def ssh_options(self):
        """A host key that changes is an error, as it would be for a user."""
        return ["-F", "none", "-p", str(self.port), "-i", str(self.key), "-o", "IdentitiesOnly=yes",
                "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.known_hosts}",
                "-o", "HostKeyAlias=board", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"]

    def ssh(self, command, stdin=None, check=True, seconds=120):
        """Runs a command on the board, which reads a file or a text; what it prints."""
        given = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin or subprocess.DEVNULL}
        done = subprocess.run(["ssh", *self.ssh_options(), "root@127.0.0.1", command], text=True, timeout=seconds,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given)
        if check and done.returncode:
            raise BoardError(f"{command!r} ended with {done.returncode}: {done.stdout}{done.stderr}; {self.tail()}")
        return done.stdout

    def status(self):
        return json.loads(self.ssh("myelin firmware status --json"))

    def upload(self, firmware, *options):
        """`myelin upload`; its exit status and its words."""
        options = options or ["--wait=120"]
        command = [host_myelin(), "upload", *self.ssh_options(), *options, "root@127.0.0.1", str(firmware)]
        done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        return done.returncode, done.stdout


def main():
    disk = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT / "disk.img"
    if not disk.exists():
        sys.exit(f"there is no {disk}: run make image")
    if not shutil.which("qemu-system-aarch64") or not Path(U_BOOT).exists():
        sys.exit("QEMU or its U-Boot is missing: apt-get install qemu-system-arm u-boot-qemu")
    board = Board(disk)
    board.port = int(os.environ.get("QEMU_PORT", board.port))
    print(f"""The board starts here. It is up when it says so, after some seconds; then, from another terminal:

    ssh -p {board.port} root@127.0.0.1                                     log in
    myelin upload -p {board.port} root@127.0.0.1 FILE.fw                   update it

Ctrl-A X ends it.
""", flush=True)
    command = board.command("mon:stdio")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
