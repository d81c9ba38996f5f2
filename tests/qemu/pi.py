"""A Raspberry Pi's way of choosing a slot: tryboot and autoboot.txt, with the firmware files of buildroot-package/board/rpi.

No emulator has the Pi's own boot firmware, so it is played here, as its documentation has it: autoboot.txt of the
first partition names the partition that boots; the flag that reboot(2) sets with the argument "0 tryboot" chooses
the section [tryboot] for one start, and is gone then, as after a power cut. The rest is real: kernel, Myelin, reboot(2).

The virt board stands in for the Pi where it restarts, for it is fast and has a reset; QEMU's own Pi 3 starts the same
card by its SD host, its UART and the network of its USB.
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
# Debian's kernel for machines, and what else starts with it.
DEBIAN = firmware.FOLDER / MODEL
# Four processors are emulated there, on a busy machine by one.
LONG = 400
RESTARTS = r"reboot: Restarting system(?: with command '(.*)')?"


class PiBoard(Board):
    """The virt board, started as a Pi starts."""

    tryboot = False

    def command(self, serial="stdio"):
        command = super().command(serial)
        at = command.index("-bios")
        image, words = self.chosen()
        # Debian's kernel has its drivers in modules; a Pi's has them built in and needs no initramfs.
        command[at:at + 2] = ["-kernel", image, "-initrd", firmware.FOLDER / "initrd.img",
                              "-append", words.replace(CARD, DISK), "-no-reboot"]
        return [str(word) for word in command]

    def chosen(self):
        """The kernel that starts, and its command line."""
        partition, self.tryboot = self.chosen_partition(), False
        boot = layout()[{2: "BOOT_A", 3: "BOOT_B"}[partition]]
        image = firmware.FOLDER / "pi-kernel"
        image.write_bytes(self.file(boot, "Image"))
        return image, self.file(boot, "cmdline.txt").decode().strip()

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


class Pi3Board(PiBoard):
    """QEMU's Raspberry Pi 3."""

    def command(self, serial="stdio"):
        image, words = self.chosen()
        command = ["qemu-system-aarch64", "-M", "raspi3b", "-accel", "tcg", "-kernel", image,
                   "-dtb", DEBIAN / f"{MODEL}.dtb", "-initrd", DEBIAN / "initrd.img", "-append", words,
                   "-drive", f"if=sd,format=raw,file={self.disk}",
                   "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22", "-device", "usb-net,netdev=net",
                   "-display", "none", "-monitor", "none", "-serial", serial, "-no-reboot"]
        return [str(word) for word in command]


class Card(Steps):
    """The card in a Pi 3: written by the task `complete`, started, and started again after its power was cut."""

    def __init__(self):
        firmware.run("kernel.sh", MODEL)
        self.board = Pi3Board(card("pi3", pi_firmware("1.0.3", kernel=DEBIAN / "Image")), firmware.FOLDER, firmware.KEY)

    def cases(self):
        return [self.pi3_starts_from_its_card, self.pi3_starts_again_as_the_same]

    def pi3_starts_from_its_card(self):
        self.board.up("a", "1.0.3", LONG)
        expect(self.board.status(), running="a")
        data = self.board.ssh("readlink -f $(grep ' /data ' /proc/mounts | cut -d' ' -f1)")
        assert data == "/dev/mmcblk0p7\n", data
        self.board.ssh("echo kept > /data/mark && sync")

    def pi3_starts_again_as_the_same(self):
        self.restart()
        self.board.up("a", "1.0.3", LONG)
        assert self.board.ssh("cat /data/mark") == "kept\n"


class Life(Steps):
    """Updates on trial by tryboot, left by a power cut, kept by a validation."""

    def __init__(self):
        self.board = PiBoard(card("pi", pi_firmware("1.0.0")), firmware.FOLDER, firmware.KEY)

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


def card(name, file):
    """A new card with that firmware in slot a."""
    disk = firmware.FOLDER / f"{name}.img"
    disk.unlink(missing_ok=True)
    Board(disk).known_hosts.unlink(missing_ok=True)
    with disk.open("wb") as image:
        image.truncate(512 << 20)
    fwup("-a", "-q", "-d", disk, "-i", file, "-t", "complete")
    return disk


def pi_firmware(version, root=None, kernel=firmware.FOLDER / "Image", **settings):
    """The model's own fwup.conf; files that only the Pi's boot firmware would read are empty."""
    conf, ops = firmware.TOP / "buildroot-package/board/rpi", firmware.FOLDER / "pi-ops.fw"
    files = firmware.FOLDER / "pi-files"
    names = re.findall(r'host-path = "\$\{(?:IMAGES|FIRMWARE|OVERLAYS)\}/(.*)"', (conf / MODEL / "resources.conf").read_text())
    for path in (folder / name for name in names for folder in (files, files / "overlays")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch()
    (files / "Image").unlink()
    (files / "Image").symlink_to(kernel)
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
