#!/usr/bin/env python3
"""Whether programs that scripts/cross.sh has built are what their targets promise.

    scripts/cross_check.py TARGET...

No library where the program is to be static, no newer glibc than the floor, no more bytes than the limit; and it
runs as the smallest processor of its target, under qemu-user, up to a login over SSH with a command.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
SIZE_LIMIT = 5 << 20
GLIBC_FLOOR = os.environ.get("CROSS_GLIBC", "2.34")
GLIBC_LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "libutil.so.1", "libgcc_s.so.1"}
# How to run it here; nothing for glibc, whose library is not on this machine.
RUNNERS = {
    "aarch64-unknown-linux-musl": ["qemu-aarch64-static", "-cpu", "cortex-a53"],
    "armv7-unknown-linux-musleabihf": ["qemu-arm-static", "-cpu", "cortex-a7"],
    "arm-unknown-linux-musleabihf": ["qemu-arm-static", "-cpu", "arm1176"],
    "x86_64-unknown-linux-musl": [],
}


class Problem(Exception):
    pass


def check(target):
    program = TOP / "target/cross" / target / "release/myelin"
    if not program.exists():
        raise Problem(f"there is no {program}: run scripts/cross.sh {target}")
    size = program.stat().st_size
    if size > SIZE_LIMIT:
        raise Problem(f"{size} bytes, and {SIZE_LIMIT} are the limit")
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("-d", program)))
    if needed - (GLIBC_LIBRARIES if "-gnu" in target else set()):
        raise Problem(f"needs {', '.join(sorted(needed))}")
    asked = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", readelf("-V", program))}
    if asked and max(asked) > tuple(map(int, GLIBC_FLOOR.split("."))):
        raise Problem(f"asks for glibc {max(asked)}, and {GLIBC_FLOOR} is the floor")
    said = f"{size} bytes, needs {', '.join(sorted(needed)) or 'no library'}"
    if target in RUNNERS:
        runner = [*RUNNERS[target], str(program)]
        version = subprocess.check_output([*runner, "--version"], text=True).strip()
        said += f", runs ({version}), login in {login(runner):.1f} s"
    return said


def readelf(option, program):
    return subprocess.check_output(["readelf", "-W", option, program], text=True)


def login(runner):
    """Starts the SSH worker as the daemon would, which qemu-user cannot, and logs in; the seconds it took."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(folder)
        subprocess.check_call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"])
        config = folder / "config.toml"
        config.write_text(f'state_dir = "{folder}/state"\nruntime_dir = "{folder}/run"\n[ssh]\n'
                          f'authorized_keys = ["{(folder / "key.pub").read_text().strip()}"]\n')
        subprocess.check_output([*runner, "config", "check", str(config)])
        shell = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ exec "$@"'
        worker = subprocess.Popen(
            ["bash", "-c", shell, "worker", *runner, "--config", str(config), "worker", "ssh"],
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stderr=(folder / "log").open("wb"),
            env=os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "ssh"})
        try:
            started = time.monotonic()
            done = subprocess.run(
                ["ssh", "-F", "none", "-i", folder / "key", "-p", str(listener.getsockname()[1]), "-o",
                 "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR",
                 "root@127.0.0.1", "echo $((6 * 7))"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
            if done.stdout != "42\n":
                raise Problem(f"no login: {done.stdout}{done.stderr}{(folder / 'log').read_text()}")
            return time.monotonic() - started
        finally:
            worker.kill()
            worker.wait()


def main():
    failed = 0
    for target in sys.argv[1:]:
        try:
            print(f"{target}: {check(target)}", flush=True)
        except Problem as problem:
            print(f"{target}: FAILED: {problem}", flush=True)
            failed += 1
    print(f"cross: {len(sys.argv) - 1 - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
