"""Resets: the running board is ended at a random moment of a random step, and must come back.

Whatever happened, SSH answers with the same host key, the added key still logs in, what was written to /data is
there, the slot table is consistent, and the next update is taken.
"""

import random
import subprocess
import threading
import time
from collections import Counter

import firmware
from board import Board, BoardError
from steps import validate

# An emulator that gets next to no time of this machine loses a connection now and then. So would a user's board; it is
# tried again.
ATTEMPTS = 3
# The steps, and how long each may take until the board is ended, in seconds.
STEPS = {"start": 3.0, "upload": 12.0, "restart": 4.0, "trial": 3.0, "validate": 0.6, "keys": 0.6}


class Resets:
    def __init__(self, seed, progress):
        self.random, self.progress = random.Random(seed), progress
        self.board = Board(firmware.disk("resets"), firmware.FOLDER, firmware.KEY)
        self.added = firmware.make_key("added")
        self.firmware = [firmware.good("2.0.0"), firmware.good("2.1.0")]
        self.written = None
        self.ended_in = Counter()

    def run(self, cycles):
        try:
            self.run_all(cycles)
        except Exception as error:
            self.progress.tell(faults=[(kind_of(error), f"after {sum(self.ended_in.values())} resets: {error}")])
            raise

    def run_all(self, cycles):
        started = time.monotonic()
        with self.board:
            self.board.up("a", "1.0.0")
            with open(f"{self.added}.pub") as public:
                self.board.ssh("myelin keys add -", stdin=public)
        for cycle in range(1, cycles + 1):
            self.cycle(cycle)
            self.progress.tell(cycles=cycle, during=self.ended_in)
            if cycle % 25 == 0 or cycle == cycles:
                seconds = (time.monotonic() - started) / cycle
                print(f"  {cycle} resets, {seconds:.1f} s each, during: {dict(self.ended_in)}", flush=True)
        with self.board:
            self.must_be_well()
        self.board.disk.unlink()

    def cycle(self, number):
        step = self.random.choice(list(STEPS))
        delay = self.random.uniform(0, STEPS[step])
        timer = threading.Timer(delay, self.board.reset)
        if step == "start":
            self.board.power_on()
            self.end(timer, step)
            return
        with self.board:
            self.must_be_well()
            self.board.ssh(f"echo {number} > /data/mark.new && sync && mv /data/mark.new /data/mark && sync")
            self.written = str(number)
            try:
                self.work(step, timer)
            except (BoardError, OSError, subprocess.SubprocessError):
                assert timer.is_alive() or self.board.process is None, "the board failed before it was reset"
            self.end(timer, step)

    def work(self, step, timer):
        """Everything up to the step undisturbed, then the step with the reset in it."""
        if step == "keys":
            timer.start()
            with open(f"{self.added}.pub") as public:
                self.board.ssh("myelin keys add -", stdin=public)
            return
        if step == "upload":
            timer.start()
        target = self.firmware[self.random.randrange(2)]
        for attempt in range(ATTEMPTS):
            code, words = self.board.upload(target, "--no-wait")
            if not code or timer.is_alive() or not self.board.process:
                break
            print(f"  attempt {attempt + 1}: myelin upload ended with {code}: {words[-300:]}", flush=True)
            print(self.board.ssh("dmesg | tail -n 8"), flush=True)
        else:
            raise AssertionError(f"no upload in {ATTEMPTS} attempts")
        if step == "restart":
            timer.start()
        self.board.up()
        if step == "trial":
            timer.start()
            self.board.ssh("true")
        if step == "validate":
            timer.start()
            validate(self.board)

    def end(self, timer, step):
        if timer.ident is None:
            timer.start()
        timer.join()
        self.board.reset()
        self.ended_in[step] += 1

    def must_be_well(self):
        """As its user finds it after the reset."""
        self.board.up()
        status = self.board.status()
        slot = status["running"]
        assert not status["problem"] and not status["pending_reboot"] and status["next"] == slot, status
        if status["slots"][slot]["validated"] is not True:
            validate(self.board)
        if self.written:
            mark = self.board.ssh("cat /data/mark").strip()
            assert mark == self.written, f"/data holds {mark}, and {self.written} was written"
        self.board.key, key = self.added, self.board.key
        self.board.ssh("true")
        self.board.key = key


def kind_of(error):
    """What the board has lost, from what ssh says of it."""
    if "HOST IDENTIFICATION HAS CHANGED" in str(error) or "Host key verification failed" in str(error):
        return "host key"
    return "added key" if "Permission denied" in str(error) else "device"


def run(cycles, seed, progress):
    Resets(seed, progress).run(cycles)
