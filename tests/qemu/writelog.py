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

    def __init__(self, number, flags, sector, count, data):
        self.number, self.flags, self.sector, self.count, self.data = number, flags, sector, count, data

    def touches(self, sectors):
        return self.sector < sectors.stop and sectors.start < self.sector + self.count


def entries(path):
    """All entries that are in the log by now; the number in its header lags behind."""
    with open(path, "rb") as log:
        magic, _, _, size = struct.unpack("<QQQL", log.read(28))
        assert magic == MAGIC and size == SECTOR, f"{path} is no write log"
        log.seek(SECTOR)
        number = 0
        while len(head := log.read(SECTOR)) == SECTOR:
            sector, count, flags, _ = struct.unpack("<QQQQ", head[:32])
            data = b"" if flags & (DISCARD | MARK) else log.read(count * SECTOR)
            number += 1
            yield Entry(number, flags, sector, count, data)


def length(path):
    return sum(1 for _ in entries(path))


class Layer:
    """A write that has not been flushed, or what of it has reached the disk: `lost` has a bit for each sector."""

    def __init__(self, entry, lost=0):
        self.entry, self.lost = entry, lost

    def pieces(self, sectors):
        """What lies in these sectors: (first sector, data)."""
        entry = self.entry
        first, end = max(entry.sector, sectors.start), min(entry.sector + entry.count, sectors.stop)
        step = 1 if self.lost else max(end - first, 1)
        for sector in range(first, end, step):
            at = sector - entry.sector
            if not self.lost >> at & 1:
                yield sector, entry.data[at * SECTOR:(at + step) * SECTOR]


class Disk:
    """An image file, and layers that are on top of it without being in it."""

    def __init__(self, path):
        self.path, self.file, self.top = Path(path), open(path, "r+b", buffering=0), []

    def read(self, sectors):
        self.file.seek(sectors.start * SECTOR)
        found = bytearray(self.file.read(len(sectors) * SECTOR))
        for layer in self.on_top(sectors):
            for sector, data in layer.pieces(sectors):
                at = (sector - sectors.start) * SECTOR
                found[at:at + len(data)] = data
        return bytes(found)

    def on_top(self, sectors):
        return [layer for layer in self.top if layer.entry.touches(sectors)]

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
            for layer in self.on_top(sectors):
                for sector, data in layer.pieces(sectors):
                    os.pwrite(target.fileno(), data, (sector - sectors.start) * SECTOR)
