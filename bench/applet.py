"""The applet `myelin fwup` beside `unzip | dd`, and beside the real fwup when there is one on PATH."""

import os
import shutil
import subprocess
from pathlib import Path

CONFIGURATION = """
file-resource rootfs.img { host-path = "${ROOTFS}" }
task complete {
    on-resource rootfs.img { raw_write(0) }
}
"""
# Of a root file system most is compressed already (squashfs), some is not.
PLAIN_SHARE = 4


def _rootfs(path, size):
    """Half-compressible content of `size` bytes."""
    text = b"".join(b"line %d of a file that nobody has compressed\n" % number for number in range(25_000))
    with open(path, "wb") as file:
        written = 0
        while written < size:
            block = text[: 1 << 20] if (written >> 20) % PLAIN_SHARE == 0 else os.urandom(1 << 20)
            block = block[: size - written]
            file.write(block)
            written += len(block)


class Applet:
    def __init__(self, folder, myelin, peak):
        self.folder, self.myelin, self.peak = Path(folder), Path(myelin).resolve(), peak
        self.folder.mkdir(parents=True)

    def archive(self, size):
        """Makes a .fw file with a root file system of `size` bytes, with whichever fwup can; None if none can."""
        rootfs, configuration = self.folder / "rootfs.img", self.folder / "fwup.conf"
        archive = self.folder / f"{size >> 20}.fw"
        _rootfs(rootfs, size)
        configuration.write_text(CONFIGURATION)
        environment = {**os.environ, "ROOTFS": str(rootfs)}
        words = ["-c", "-f", str(configuration), "-o", str(archive)]
        for program in ([str(self.myelin), "fwup"], ["fwup"]):
            if program == ["fwup"] and not shutil.which("fwup"):
                continue
            done = subprocess.run([*program, *words], env=environment, capture_output=True)
            if done.returncode == 0 and archive.exists():
                return archive
        return None

    def ways(self, archive, image):
        """What is compared: a name and a command."""
        line = f"unzip -p '{archive}' data/rootfs.img | dd of='{image}' bs=128K conv=notrunc,fdatasync status=none"
        ways = {
            "myelin": [str(self.myelin), "fwup", "-a", "-q", "-d", str(image), "-i", str(archive), "-t", "complete"],
            "unzip | dd": ["/bin/sh", "-c", line],
        }
        if shutil.which("fwup"):
            apply = f"fwup -a -q -d '{image}' -i '{archive}' -t complete && sync -d '{image}'"
            ways["fwup"] = ["/bin/sh", "-c", apply]
        return ways

    def measure(self, size, rounds, say):
        """{way: [(seconds, peak KiB)]}, or a text that says why not."""
        archive = self.archive(size)
        if archive is None:
            return "this build's applet cannot make archives yet"
        image, report = self.folder / "target.img", self.folder / "peak"
        found = {}
        for number in range(rounds):
            ways = list(self.ways(archive, image).items())
            first = number % len(ways)
            for name, command in ways[first:] + ways[:first]:
                with open(image, "wb") as file:
                    file.truncate(size)
                os.sync()
                done = subprocess.run([str(self.peak), str(report), *command], capture_output=True)
                if done.returncode != 0:
                    return f"{name} failed with {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
                seconds, peak = report.read_text().split()
                found.setdefault(name, []).append((float(seconds), int(peak)))
            with open(self.folder / "rootfs.img", "rb") as one, open(image, "rb") as other:
                if one.read() != other.read():
                    return "what was written is not what the archive holds"
        say(f"applet: {size >> 20} MiB, {rounds} rounds")
        for path in (archive, image, self.folder / "rootfs.img"):
            path.unlink()
        return found
