"""The applet beside the shortest pipeline that writes the same bytes, and beside the real fwup."""

import os
import shutil
import subprocess
import time

CONF = """
require-fwup-version = "0.15.0"
meta-product = "bench"
meta-version = "1.0.0"
file-resource rootfs.img { host-path = "%s" }
task upgrade { on-resource rootfs.img { raw_write(0) } }
"""


def real_files():
    for folder in ("/usr/bin", "/usr/lib", "/usr/share"):
        for parent, _, names in os.walk(folder):
            for name in sorted(names):
                path = os.path.join(parent, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path


def make_rootfs(path, size):
    """Real files in a row, so that it deflates as a root file system does."""
    with open(path, "wb") as out:
        for source in real_files():
            with open(source, "rb") as f:
                out.write(f.read(8 << 20))
            if out.tell() >= size:
                break
        out.write(os.urandom(max(0, size - out.tell())))
        out.truncate(size)


def make_archive(myelin, work, size):
    rootfs = os.path.join(work, "rootfs.img")
    make_rootfs(rootfs, size)
    conf = os.path.join(work, "fwup.conf")
    with open(conf, "w") as f:
        f.write(CONF % rootfs)
    archive = os.path.join(work, f"bench-{size >> 20}.fw")
    subprocess.run([myelin, "fwup", "-c", "-f", conf, "-o", archive], check=True)
    return archive, rootfs


def timed(words, shell=False):
    """Seconds and the largest RSS in KiB of a command that must end well."""
    begin = time.perf_counter()
    child = subprocess.Popen(words, shell=shell, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = status
    if status:
        raise RuntimeError(f"{words} failed: {errors.decode(errors='replace')[-500:]}")
    return seconds, usage.ru_maxrss


def apply(myelin, work, archive, rootfs, rounds):
    """({way: [seconds]}, the applet's largest RSS in KiB); the written image is compared each time."""
    image = os.path.join(work, "disk.img")
    real = shutil.which("fwup")
    ways = {
        "myelin fwup": [myelin, "fwup", "-a", "-q", "-i", archive, "-d", image, "-t", "upgrade"],
        "unzip and dd": f"unzip -p '{archive}' data/rootfs.img | dd of='{image}' bs=128K "
                        "conv=notrunc,fdatasync 2>/dev/null",
    }
    if real and os.path.realpath(real) != os.path.realpath(myelin):
        ways["fwup"] = f"'{real}' -a -q -i '{archive}' -d '{image}' -t upgrade && sync -d '{image}'"
    times = {way: [] for way in ways}
    largest = 0
    names = list(ways)
    for number in range(rounds):
        for way in names[number % len(names):] + names[:number % len(names)]:
            with open(image, "wb") as f:
                f.truncate(os.path.getsize(rootfs) + (1 << 20))
            subprocess.run(["sync", "-d", image], check=True)
            words = ways[way]
            seconds, rss = timed(words, shell=isinstance(words, str))
            times[way].append(seconds)
            if way == "myelin fwup":
                largest = max(largest, rss)
            check(image, rootfs, way)
    return times, largest


def check(image, rootfs, way):
    size = str(os.path.getsize(rootfs))
    if subprocess.run(["cmp", "-n", size, image, rootfs]).returncode:
        raise RuntimeError(f"{way} wrote other bytes")
