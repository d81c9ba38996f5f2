"""What Myelin costs a board: time at the start, memory, bytes in the image. Times are those of the emulation."""

import statistics
import time

import firmware
from board import Board

MEMORY = r"""for p in $(pidof myelin); do
    awk -v name="$(tr '\0' ' ' < /proc/$p/cmdline)" '/^Pss:/ { pss = $2 } /^Private_Dirty:/ { dirty = $2 } /^Rss:/ { rss = $2 }
        END { print pss, dirty, rss, name }' /proc/$p/smaps_rollup
done"""

# When the daemon's process began (in 1/100 s of the guest's clock), and when the SSH worker was ready.
SHARE = r"""cut -d' ' -f22 /proc/$(cat /run/myelin.pid)/stat
dmesg | sed -n '/INFO host keys/ { s/^\[ *\([0-9.]*\).*/\1/; p; q }'"""


def run(rounds=3):
    disk = firmware.disk("measure")
    board = Board(disk, firmware.FOLDER, firmware.KEY)
    ups, logins, shares = starts(board, rounds)
    print(f"  power-on to the end of the start scripts {ups:.2f} s, to the end of the first login {logins:.2f} s")
    print("  Myelin's own share, from its first process to the host keys being loaded:")
    print(f"    {shares:.2f} s of this machine's time, in which QEMU translates each instruction that is new")
    *_, shares = starts(Board(disk, firmware.FOLDER, firmware.KEY, counts_instructions=True), rounds)
    print(f"    {shares:.3f} s of a processor with 1000 million instructions a second")
    with board:
        board.up()
        for _ in range(10):
            board.ssh("true")
        lines = board.ssh(MEMORY).strip().splitlines()
        print("  PSS, private dirty, RSS in KiB:")
        for line in lines:
            print("    " + line)
        print(f"  all processes: {sum(int(line.split()[0]) for line in lines)} KiB PSS")
    disk.unlink()
    with_it, without = firmware.FOLDER / "rootfs-1.0.0.squashfs", firmware.FOLDER / "rootfs-without.squashfs"
    empty = firmware.FOLDER / "empty"
    empty.write_bytes(b"")
    firmware.run("rootfs.sh", "without", without, MYELIN_TARGET=empty)
    cost = with_it.stat().st_size - without.stat().st_size
    print(f"  the root file system is {with_it.stat().st_size} bytes, {cost} of them for Myelin")


def starts(board, rounds):
    """Medians of seconds: power-on to the end of the start scripts, to the first login, and Myelin's own share."""
    figures = []
    for _ in range(rounds):
        with board:
            up, *_ = board.up()
            board.ssh("true")
            login = time.monotonic() - board.start
            started, served = board.ssh(SHARE).split()
            figures.append((up, login, float(served) - int(started) / 100))
    return [statistics.median(column) for column in zip(*figures)]
