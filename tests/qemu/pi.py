"""A Raspberry Pi's way of choosing a slot: tryboot and autoboot.txt, with the firmware files of buildroot-package/board/rpi.

No emulator has the Pi's own boot firmware, so it is played here, as its documentation has it: autoboot.txt of the
first partition names the partition that boots; the flag that reboot(2) sets with the argument "0 tryboot" chooses
the section [tryboot] for one start, and is gone then, as after a power cut. The rest is real: kernel, Myelin, reboot(2).
"""

import os
import re
import subprocess

import firmware
from board import Board, host_myelin, layout
from steps import DONE, RUNS_ANOTHER, Steps, expect

MODEL = "rpi3"
# The Pi's card is the first disk of the virt board here.
CARD, DISK = "/dev/mmcblk0p", "/dev/vda"
RESTARTS = r"reboot: Restarting system(?: with command '(.*)')?"


class PiBoard(Board):
    """The virt board, started as a Pi starts."""

    tryboot = False

    def command(self, serial="stdio"):
        command = super().command(serial)
        at = command.index("-bios")
        partition, self.tryboot = self.chosen_partition(), False
        boot = layout()[{2: "BOOT_A", 3: "BOOT_B"}[partition]]
        image = firmware.FOLDER / "pi-kernel"
        image.write_bytes(self.file(boot, "Image"))
        words = self.file(boot, "cmdline.txt").decode().strip().replace(CARD, DISK)
        # Debian's kernel has its drivers in modules; a Pi's has them built in and needs no initramfs.
        command[at:at + 2] = ["-kernel", image, "-initrd", firmware.FOLDER / "initrd.img", "-append", words, "-no-reboot"]
        return [str(word) for word in command]

    def chosen_partition(self):
        section, partition = "all", None
        for line in self.file(layout()["COMMON"], "autoboot.txt").decode().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line.startswith("boot_partition=") and (section == "all" or self.tryboot):
                partition = int(line.partition("=")[2])
        return partition

    def file(self, block, name):
        return subprocess.check_output(["mtype", "-i", f"{self.disk}@@{block * 512}", f"::{name}"])

    def goes_on(self, process):
        if process.wait() != 0:
            return None
        asked = [match[1] or "" for _, line in self.console if (match := re.search(RESTARTS, line))]
        self.tryboot = bool(asked) and "tryboot" in asked[-1]
        self.process = self.emulator() if asked else None
        return self.process


class Life(Steps):
    """Updates on trial by tryboot, left by a power cut, kept by a validation."""

    def __init__(self):
        disk = firmware.FOLDER / "pi.img"
        disk.unlink(missing_ok=True)
        Board(disk).known_hosts.unlink(missing_ok=True)
        with disk.open("wb") as image:
            image.truncate(512 << 20)
        fwup("-a", "-q", "-d", disk, "-i", pi_firmware("1.0.0"), "-t", "complete")
        self.board = PiBoard(disk, firmware.FOLDER, firmware.KEY)

    def cases(self):
        return [self.pi_first_start, self.pi_power_cut_ends_the_trial, self.pi_root_that_cannot_be_mounted,
                self.pi_validated_firmware_stays]

    def pi_first_start(self):
        self.board.up("a", "1.0.0")
        expect(self.board.status(), running="a")
        self.board.ssh("echo kept > /data/mark && sync")

    def pi_power_cut_ends_the_trial(self):
        self.upload(pi_firmware("2.0.0", EXTRA=firmware.waits_for_us()), DONE)
        self.board.up("b", "2.0.0")
        status = self.board.status()
        assert status["slots"]["b"]["validated"] is not True, status
        self.restart()
        self.board.up("a", "1.0.0")

    def pi_root_that_cannot_be_mounted(self):
        nothing = firmware.FOLDER / "pi-nothing"
        nothing.write_bytes(bytes(1 << 20))
        self.upload(pi_firmware("3.0.0", root=nothing), RUNS_ANOTHER)
        self.board.up("a", "1.0.0")

    def pi_validated_firmware_stays(self):
        """Myelin's own login proves it, and autoboot.txt is rewritten."""
        self.upload(pi_firmware("2.1.0"), DONE)
        self.board.up("b", "2.1.0")
        self.proves_itself("b")
        self.restart()
        self.board.up("b", "2.1.0")
        assert self.board.ssh("cat /data/mark") == "kept\n"


def pi_firmware(version, root=None, **settings):
    """The model's own fwup.conf; files that only the Pi's boot firmware would read are empty."""
    conf, ops = firmware.TOP / "buildroot-package/board/rpi", firmware.FOLDER / "pi-ops.fw"
    files = firmware.FOLDER / "pi-files"
    names = re.findall(r'host-path = "\$\{(?:IMAGES|FIRMWARE|OVERLAYS)\}/(.*)"', (conf / MODEL / "resources.conf").read_text())
    for path in (folder / name for name in names for folder in (files, files / "overlays")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch()
    (files / "Image").unlink()
    (files / "Image").symlink_to(firmware.FOLDER / "Image")
    fwup("-c", "-f", conf / "fwup-ops.conf", "-o", ops)
    if root is None:
        root = firmware.FOLDER / f"pi-rootfs-{version}.squashfs"
        firmware.run("rootfs.sh", version, root, OPS=ops, **settings)
    result = firmware.FOLDER / f"pi-{version}.fw"
    fwup("-c", "-f", conf / "fwup.conf", "-o", result, VERSION=version, ROOTFS=root, IMAGES=files, FIRMWARE=files,
         CONFIG_TXT=conf / MODEL / "config.txt")
    return result


def fwup(*arguments, **settings):
    environment = {name: str(value) for name, value in (settings | {"BOARD": MODEL}).items()}
    subprocess.check_call([host_myelin(), "fwup", *map(str, arguments)], env=os.environ | environment)
