"""The life of a board: updates over SSH, fallbacks, and damage it must get over.

Each case goes on where the one before it ended, as on a board on a desk.
"""

import subprocess
import time

import firmware
from board import Board, layout
from steps import DONE, NOT_BACK, REFUSED, RUNS_ANOTHER, Steps, expect


class Life(Steps):
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
            self.kernel_that_is_missing,
            self.firmware_for_another_board,
            self.firmware_that_is_not_accepted,
            self.firmware_that_is_too_large,
            self.one_damaged_environment_copy,
            self.data_is_full,
            self.data_cannot_be_written,
            self.three_updates_in_a_row,
            self.validates_itself,
            self.nobody_gets_in_any_more,
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
        # The filter of the thread that serves us, and what it has started.
        filters = self.board.ssh("grep ^Seccomp: /proc/$PPID/status /proc/self/status | cut -f 2")
        assert filters == "2\n0\n", filters
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

    def kernel_that_is_missing(self):
        """The slot is switched to, and then the card loses the kernel's file."""
        self.configure('[firmware]\nsuccess_action = "none"\n')
        self.upload(firmware.good("2.1.0"), DONE, "--no-wait")
        expect(self.board.status(), running="b", next="a", pending_reboot=True)
        self.configure("")
        self.board.ssh("sync")
        self.board.reset()
        subprocess.check_call(["mdel", "-i", f"{self.board.disk}@@{layout()['BOOT_A'] * 512}", "::Image"])
        self.board.power_on().wait("a was not validated, going back to b")
        self.board.up("b", "2.0.0")
        expect(self.board.status(), running="b", next="b", pending_reboot=False)

    def firmware_for_another_board(self):
        words = self.upload(firmware.other_platform("4.0.0"), REFUSED)
        assert "toaster" in words, words
        expect(self.board.status(), running="b", next="b", pending_reboot=False)

    def firmware_that_is_not_accepted(self):
        """By what the device says, before anything is written, the slot that does not run included."""
        before, good = self.board.status(), firmware.good("2.1.0")
        for rules, words in (
            ('[firmware]\nminimum_version = "2.1.1"', "nothing older than 2.1.1"),
            ('[firmware.accept]\nplatform = ["toaster"]', "takes toaster only"),
            ('[firmware.accept]\nproduct = ["bread"]', "takes bread only"),
            (f'[firmware]\npublic_keys = ["{firmware.public_key()}"]', "signed"),
        ):
            self.configure(rules)
            said = self.upload(good, REFUSED)
            assert words in said, said
            assert self.board.status() == before, self.board.status()
        said = self.upload(firmware.signed_by_another(good), REFUSED)
        assert "signed with none" in said, said
        assert self.board.status() == before, self.board.status()
        self.configure("")

    def firmware_that_is_too_large(self):
        """Such a file is not made. One that was made carelessly ends before the running slot, which lies behind its own."""
        said = firmware.too_large("4.1.0")
        assert "assert-size" in said, said
        words = self.upload(firmware.for_larger_slots("4.2.0"), REFUSED)
        assert "too large for its slot" in words, words
        expect(self.board.status(), running="b", next="b", pending_reboot=False)
        self.restart()
        self.board.up("b", "2.0.0")

    def one_damaged_environment_copy(self):
        for copy in "ENV_A", "ENV_B":
            self.board.reset()
            self.damage(layout()[copy], 1)
            self.board.power_on().up("b", "2.0.0")
            expect(self.board.status(), running="b", next="b")
            # The next change makes the copy good again.
            self.validate()

    def data_is_full(self):
        fill = "for size in 1M 1k; do dd if=/dev/zero bs=$size >> /data/full 2>/dev/null; done; ! echo x > /data/more"
        self.board.ssh(fill + " 2>/dev/null && sync")
        said = self.board.ssh("echo ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x | "
                              "myelin keys add - 2>&1 || echo failed")
        assert said.endswith("failed\n") and "space" in said, said
        self.install(firmware.good("2.1.0"), "a", "2.1.0")
        self.restart()
        self.board.up("a", "2.1.0")
        self.board.ssh("rm -f /data/full /data/more && sync")

    def data_cannot_be_written(self):
        """The device keeps its name and its keys, proves itself, and takes the next update."""
        self.upload(firmware.read_only_data("2.4.0"), DONE)
        self.board.up("b", "2.4.0")
        assert " ro," in self.board.ssh("grep ' /data ' /proc/mounts")
        self.proves_itself("b")
        assert self.board.ssh("cat /data/mark") == "kept\n"
        self.install(firmware.good("2.1.0"), "a", "2.1.0")

    def three_updates_in_a_row(self):
        self.install(firmware.good("2.0.0"), "b", "2.0.0")
        self.upload(firmware.good("2.2.0"), DONE)
        self.board.up("a", "2.2.0")
        self.restart()
        self.board.up("b", "2.0.0")
        self.install(firmware.good("2.1.0"), "a", "2.1.0")

    def validates_itself(self):
        """The default: a login through the real port is proof enough."""
        self.upload(firmware.validates_itself("2.3.0"), DONE)
        self.board.up("b", "2.3.0")
        self.proves_itself("b")
        self.restart()
        self.board.up("b", "2.3.0")

    def nobody_gets_in_any_more(self):
        """The daemon runs, but its logins fail: it feeds the watchdog no more, and that restarts the board."""
        self.configure('[watchdog]\ndevice = "/dev/watchdog"\ntimeout = 10\nlogin_limit = 30\n')
        self.board.ssh("sync")
        self.restart()
        self.board.up("b", "2.3.0")
        give_up = time.monotonic() + 120
        while self.board.ssh("cat /sys/class/watchdog/watchdog0/state") != "active\n":
            assert time.monotonic() < give_up, self.board.ssh("dmesg | tail -20")
        # Longer than the hardware's limit and the other one.
        time.sleep(45)
        assert self.board.ssh("cut -d . -f 1 /proc/uptime").strip().isdigit()
        self.board.ssh("(sleep 1; ip link set lo down) > /dev/null 2>&1 &")
        self.board.wait("Initiating system reboot", seconds=240)
        self.board.up("b", "2.3.0")
        self.configure("")
        self.board.ssh("sync")

    def never_well(self):
        """Myelin itself goes back when the time of the trial is over."""
        self.upload(firmware.never_well("3.3.0"), DONE)
        self.board.up("a", "3.3.0")
        started = time.monotonic()
        self.board.up("b", "2.3.0")
        print(f"  back after {time.monotonic() - started:.0f} s")
        expect(self.board.status(), running="b", next="b", pending_reboot=False)

    def data_is_repaired(self):
        self.board.ssh("sync")
        self.board.reset()
        self.damage(layout()["DATA"] + 2, 2)  # the superblock
        self.board.power_on().up("b", "2.3.0")
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
        self.board.power_on().up("b", "2.3.0")
        expect(self.board.status(), running="b", next="b")
        assert "tmpfs" in self.board.ssh("mount | grep ' /data '")
        print("  /data:", self.board.ssh("cat /run/alarms/data").strip())
        self.board.known_hosts.write_bytes(known_hosts)

    def both_environment_copies_damaged(self):
        self.board.reset()
        for copy in "ENV_A", "ENV_B":
            self.damage(layout()[copy], 1)
        self.board.known_hosts.unlink()
        self.board.power_on().wait("environment from none")
        # Slot a, whatever is in it, for nothing says more.
        self.board.up("a", "3.3.0")
        print("  status says:", self.board.status()["problem"])

    def falls_back(self, file):
        """Pushed to slot a while b runs."""
        self.upload(file, RUNS_ANOTHER)
        self.board.wait("a was not validated, going back to b")
        self.board.up("b", "2.0.0")
        expect(self.board.status(), running="b", next="b", pending_reboot=False)
