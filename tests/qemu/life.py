"""The life of a board: updates over SSH, fallbacks, and damage it must get over.

Each case goes on where the one before it ended, as on a board on a desk.
"""

import os
import subprocess
import time

import firmware
from board import Board, BoardError, layout

# Exit status of `myelin upload` (src/host/upload.rs)
DONE, REFUSED, RUNS_ANOTHER, NOT_BACK = 0, 1, 7, 8


class Life:
    """One board and its disk, through all cases."""

    def __init__(self):
        self.board = Board(firmware.disk("life"), firmware.FOLDER, firmware.KEY)

    def cases(self):
        return [
            self.first_start,
            self.update_is_on_trial,
            self.no_update_during_a_trial,
            self.reset_ends_the_trial,
            self.validated_firmware_stays,
            self.kernel_that_cannot_be_started,
            self.kernel_that_panics,
            self.nobody_can_log_in,
            self.firmware_for_another_board,
            self.one_damaged_environment_copy,
            self.three_updates_in_a_row,
            self.validates_itself,
            self.never_well,
            self.data_is_repaired,
            self.data_beyond_repair,
            self.both_environment_copies_damaged,
        ]

    def first_start(self):
        seconds, *_ = self.board.up("a", "1.0.0")
        print(f"  up {seconds:.1f} s after power-on")
        status = self.board.status()
        expect(status, running="a", next="a", pending_reboot=False)
        assert status["slots"]["a"]["validated"] is True, status
        assert self.board.ssh("mount | grep ' /data '").startswith("/dev/"), "no /data"
        self.board.ssh("echo kept > /data/mark && sync")

    def update_is_on_trial(self):
        started = time.monotonic()
        self.upload(firmware.good("2.0.0"), DONE)
        self.board.up("b", "2.0.0")
        print(f"  pushed and restarted in {time.monotonic() - started:.1f} s")
        status = self.board.status()
        expect(status, running="b", next="b", pending_reboot=False)
        assert status["slots"]["b"]["version"] == "2.0.0", status

    def no_update_during_a_trial(self):
        words = self.upload(firmware.good("2.0.0"), REFUSED)
        assert "on trial" in words, words
        expect(self.board.status(), running="b", next="b")

    def reset_ends_the_trial(self):
        self.restart()
        self.board.wait("b was not validated, going back to a")
        self.board.up("a", "1.0.0")
        expect(self.board.status(), running="a", next="a")
        assert self.board.ssh("cat /data/mark") == "kept\n"

    def validated_firmware_stays(self):
        self.install(firmware.good("2.0.0"), "b", "2.0.0")
        self.restart()
        self.board.up("b", "2.0.0")
        self.restart()
        self.board.up("b", "2.0.0")

    def kernel_that_cannot_be_started(self):
        self.falls_back(firmware.bad_kernel("3.0.0"))

    def kernel_that_panics(self):
        self.falls_back(firmware.panics("3.1.0"))

    def nobody_can_log_in(self):
        self.upload(firmware.mute("3.2.0"), NOT_BACK, "--wait=15")
        self.board.up("a", "3.2.0", answers=False)
        self.restart()
        self.board.wait("a was not validated, going back to b")
        self.board.up("b", "2.0.0")
        expect(self.board.status(), running="b", next="b")

    def firmware_for_another_board(self):
        words = self.upload(firmware.other_platform("4.0.0"), REFUSED)
        assert "toaster" in words, words
        expect(self.board.status(), running="b", next="b", pending_reboot=False)

    def one_damaged_environment_copy(self):
        for copy in "ENV_A", "ENV_B":
            self.board.reset()
            self.damage(layout()[copy], 1)
            self.board.power_on().up("b", "2.0.0")
            expect(self.board.status(), running="b", next="b")
            # The next change makes the copy good again.
            self.validate()

    def three_updates_in_a_row(self):
        self.install(firmware.good("2.1.0"), "a", "2.1.0")
        self.upload(firmware.good("2.2.0"), DONE)
        self.board.up("b", "2.2.0")
        self.restart()
        self.board.up("a", "2.1.0")
        self.install(firmware.good("2.0.0"), "b", "2.0.0")

    def validates_itself(self):
        """The default: a login through the real port is proof enough."""
        self.upload(firmware.validates_itself("2.3.0"), DONE)
        self.board.up("a", "2.3.0")
        started = time.monotonic()
        while self.board.status()["slots"]["a"]["validated"] is not True:
            assert time.monotonic() - started < 60, self.board.ssh("dmesg | tail -20")
        self.restart()
        self.board.up("a", "2.3.0")

    def never_well(self):
        """Myelin itself goes back when the time of the trial is over."""
        self.upload(firmware.never_well("3.3.0"), DONE)
        self.board.up("b", "3.3.0")
        started = time.monotonic()
        self.board.up("a", "2.3.0")
        print(f"  back after {time.monotonic() - started:.0f} s")
        expect(self.board.status(), running="a", next="a", pending_reboot=False)

    def data_is_repaired(self):
        self.board.ssh("sync")
        self.board.reset()
        self.damage(layout()["DATA"] + 2, 2)  # the superblock
        self.board.power_on().up("a", "2.3.0")
        assert "repairing" in self.board.ssh("dmesg | grep myelin-data")
        assert self.board.ssh("cat /data/mark") == "kept\n"

    def data_beyond_repair(self):
        self.board.reset()
        # Nothing is left but a sign that there was a file system, with a mount in it.
        start = layout()["DATA"] * 512
        subprocess.check_call(["fallocate", "--punch-hole", "--offset", str(start), "--length", str(128 << 20),
                               self.board.disk])
        with open(self.board.disk, "r+b") as disk:
            disk.seek(start + 1024 + 44)
            disk.write(b"\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\xff\xff\x53\xef")
        known_hosts = self.board.known_hosts.read_bytes()
        self.board.known_hosts.unlink()
        self.board.power_on().up("a", "2.3.0")
        expect(self.board.status(), running="a", next="a")
        assert "tmpfs" in self.board.ssh("mount | grep ' /data '")
        print("  /data:", self.board.ssh("cat /run/alarms/data").strip())
        self.board.known_hosts.write_bytes(known_hosts)

    def both_environment_copies_damaged(self):
        self.board.reset()
        for copy in "ENV_A", "ENV_B":
            self.damage(layout()[copy], 1)
        self.board.known_hosts.unlink()
        self.board.power_on().wait("environment from none")
        self.board.up("a", "2.3.0")
        print("  status says:", self.board.status()["problem"])

    # What the cases are made of

    def upload(self, file, status, *options):
        code, words = self.board.upload(file, *options)
        assert code == status, f"myelin upload ended with {code}, not {status}: {words}\n{self.board.tail()}"
        return words

    def install(self, file, slot, version):
        self.upload(file, DONE)
        self.board.up(slot, version)
        self.validate()

    def falls_back(self, file):
        """Pushed to slot a while b runs."""
        self.upload(file, RUNS_ANOTHER)
        self.board.wait("a was not validated, going back to b")
        self.board.up("b", "2.0.0")
        expect(self.board.status(), running="b", next="b", pending_reboot=False)

    def validate(self):
        validate(self.board)

    def restart(self):
        self.board.reset()
        self.board.power_on()

    def damage(self, block, count):
        with open(self.board.disk, "r+b") as disk:
            disk.seek(block * 512)
            disk.write(os.urandom(count * 512))


def validate(board):
    board.ssh("myelin firmware validate && sync")
    status = board.status()
    assert status["slots"][status["running"]]["validated"] is True, status


def expect(status, **values):
    found = {name: status[name] for name in values}
    if found != values:
        raise BoardError(f"expected {values}, found {status}")
