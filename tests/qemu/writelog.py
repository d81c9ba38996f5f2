"""QEMU's write log (blklogwrites, the format of dm-log-writes), and disks made of it."""

import os
import struct
import subprocess
from pathlib import Path

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6A736677736872


class Entry:
    """One write, flush or discard, in the order in which they ended."""

    def __init__(self, flags, sector, count, data):
        self.flags, self.sector, self.count, self.data = flags, sector, count, data

    def sectors(self):
        return range(self.sector, self.sector + self.count)


def entries(path):
    """All entries that are in the log by now; the number in its header lags behind."""
    with open(path, "rb") as log:
        magic, _, _, size = struct.unpack("<QQQL", log.read(28))
        assert magic == MAGIC and size == SECTOR, f"{path} is no write log"
        log.seek(SECTOR)
        while len(head := log.read(SECTOR)) == SECTOR:
            sector, count, flags, _ = struct.unpack("<QQQQ", head[:32])
            data = b"" if flags & (DISCARD | MARK) else log.read(count * SECTOR)
            yield Entry(flags, sector, count, data)


def length(path):
    return sum(1 for _ in entries(path))


class Disk:
    """An image file, and sectors that are on top of it without being in it."""

    def __init__(self, path):
        self.path, self.file, self.top = Path(path), open(path, "r+b", buffering=0), {}

    def read(self, sectors):
        self.file.seek(sectors.start * SECTOR)
        found = bytearray(self.file.read(len(sectors) * SECTOR))
        for sector, data in self.on_top(sectors):
            at = (sector - sectors.start) * SECTOR
            found[at:at + SECTOR] = data
        return bytes(found)

    def on_top(self, sectors):
        return [(sector, data) for sector, data in self.top.items() if sector in sectors]

    def write(self, entry):
        self.file.seek(entry.sector * SECTOR)
        self.file.write(entry.data)

    def discard(self, entry):
        """The card may have forgotten it."""
        subprocess.check_call(["fallocate", "--punch-hole", "--offset", str(entry.sector * SECTOR),
                               "--length", str(entry.count * SECTOR), self.path])

    def extract(self, sectors, path):
        """These sectors as a file of their own; what was never written stays a hole."""
        source, first, end = self.file.fileno(), sectors.start * SECTOR, sectors.stop * SECTOR
        with open(path, "wb", buffering=0) as target:
            target.truncate(end - first)
            at = first
            while at < end:
                try:
                    start = os.lseek(source, at, os.SEEK_DATA)
                except OSError:
                    break
                at = min(os.lseek(source, start, os.SEEK_HOLE), end)
                while start < at:
                    data = os.pread(source, min(at - start, 1 << 20), start)
                    start += os.pwrite(target.fileno(), data, start - first)
            for sector, data in self.on_top(sectors):
                os.pwrite(target.fileno(), data, (sector - sectors.start) * SECTOR)
