"""What the cases of a board's life are made of."""

import os
import time

from board import BoardError

# Exit status of `myelin upload` (src/host/upload.rs)
DONE, REFUSED, RUNS_ANOTHER, NOT_BACK = 0, 1, 7, 8


class Steps:
    """Of something that has a board."""

    def upload(self, file, status, *options):
        code, words = self.board.upload(file, *options)
        assert code == status, f"myelin upload ended with {code}, not {status}: {words}\n{self.board.tail()}"
        return words

    def install(self, file, slot, version):
        self.upload(file, DONE)
        self.board.up(slot, version)
        self.validate()

    def validate(self):
        validate(self.board)

    def proves_itself(self, slot):
        give_up = time.monotonic() + 60
        while self.board.status()["slots"][slot]["validated"] is not True:
            assert time.monotonic() < give_up, self.board.ssh("dmesg | tail -20")

    def configure(self, text):
        """What this device does otherwise; comes back when the daemon does it."""
        again = "dmesg | grep -c 'configuration read again' || true"
        known = self.board.ssh(again)
        self.board.ssh("mkdir -p /data/myelin && cat > /data/myelin/config.toml", stdin=text)
        give_up = time.monotonic() + 60
        while self.board.ssh(again) == known:
            assert time.monotonic() < give_up, self.board.ssh("dmesg | tail -20")
            # The kernel may have dropped the line that is waited for.
            self.board.ssh("/etc/init.d/S50myelin reload && sleep 1")

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
