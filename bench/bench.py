#!/usr/bin/env python3
"""Myelin beside OpenSSH and dropbear, and its applet beside `unzip | dd`, in one run; writes a Markdown page.

Needs Debian's openssh-server, openssh-client, dropbear-bin, unzip and a C compiler for two tiny programs. Everything
it writes lies under target/bench, and every process it starts is ended.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import report
import ssh_part
from applet import Applet
from client import Client
from servers import Dropbear, Myelin, OpenSsh, missing

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "target" / "bench"
MIB = 1 << 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--myelin", required=True, help="the release binary")
    parser.add_argument("--output", required=True, help="the Markdown file to write")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of uploads and of the applet (7)")
    parser.add_argument("--size", type=int, default=512, help="MiB of one upload (512)")
    parser.add_argument("--logins", type=int, default=20, help="rounds of logins and of starts (20)")
    parser.add_argument("--images", type=int, nargs="*", default=[64, 256], help="MiB of the applet's archives (64 256)")
    parser.add_argument("--quick", action="store_true", help="a short run that shows whether it works")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.size, chosen.logins, chosen.images = 3, 128, 5, [16, 64]
    return chosen


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def compile_tool(name):
    program = WORK / name
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / f"{name}.c")], check=True)
    return program


def machine():
    cpu = memory = "?"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                cpu = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory = f"{int(file.readline().split()[1]) // 1024} MiB"
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return [
        f"machine: {os.cpu_count()} × {cpu}, {memory}, {platform.machine()}",
        f"system: {system}, Linux {platform.release()}",
    ]


def noise():
    """Seconds that the same work takes; what it varies by is the machine's doing."""
    block = bytes(MIB)
    began = time.monotonic()
    digest = hashlib.sha256()
    for _ in range(32):
        digest.update(block)
    return time.monotonic() - began


def sizes(server):
    """Bytes of the programs, stripped, and of the libraries they load besides the C library."""
    programs, libraries = 0, {}
    for path in server.binaries():
        copy = WORK / "stripped"
        shutil.copy(path, copy)
        subprocess.run(["strip", str(copy)], check=True)
        programs += copy.stat().st_size
        copy.unlink()
        listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
        for line in listed.splitlines():
            words = line.split()
            if "=>" in words and len(words) > 2 and not words[0].startswith(("libc.so", "libm.so", "libgcc_s")):
                libraries[words[2]] = Path(words[2]).stat().st_size
    return {"programs": programs, "libraries": sum(libraries.values())}


def measure_ssh(servers, client, chosen, sink, results):
    file = ssh_part.random_file(WORK / "upload.bin", chosen.size * MIB)
    small = ssh_part.random_file(WORK / "small.bin", MIB)
    # Pages of a program that was built a moment ago would count as dirty memory of the process that runs it.
    os.sync()
    for server in servers:
        server.start()
        server.first_banner()
    results["memory"] = ssh_part.memory(servers, client, file)
    results["sessions"] = ssh_part.sessions(servers, client)
    say("memory: done")
    for server in servers:
        client.push(server, small, server.ciphers[0])
    results["noise"].append(noise())
    results["upload"] = ssh_part.upload(servers, client, file, sink, chosen.rounds, say)
    results["noise"].append(noise())
    copied = ssh_part.random_file(WORK / "copied.bin", min(chosen.size, 128) * MIB)
    results["sftp size"] = copied.stat().st_size
    results["sftp"] = ssh_part.transfers(servers, client, copied, min(chosen.rounds, 5), say)
    copied.unlink()
    results["noise"].append(noise())
    results["login"] = ssh_part.logins(servers, client, chosen.logins, say)
    results["noise"].append(noise())
    for server in servers:
        server.stop()
    results["start"] = ssh_part.starts(servers, client, chosen.logins, say)
    results["noise"].append(noise())
    file.unlink()


def main():
    chosen = arguments()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    sink, peak = compile_tool("sink"), compile_tool("peak")
    key = WORK / "client_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    absent = {kind.name: missing(kind) for kind in (OpenSsh, Dropbear)}
    servers = [Myelin(WORK / "myelin", key, sink, chosen.myelin)]
    servers += [kind(WORK / kind.name, key, sink) for kind in (OpenSsh, Dropbear) if not absent[kind.name]]
    results = {
        "command": "make bench" if len(sys.argv) == 5 else "python3 " + " ".join(sys.argv),
        "rounds": chosen.rounds,
        "size": chosen.size * MIB,
        "servers": [server.name for server in servers],
        "machine": machine(),
        "notes": [f"{name} takes no part: {why}" for name, why in absent.items() if why],
        "noise": [noise()],
        "sizes": {server.name: sizes(server) for server in servers},
    }
    results["machine"].append("servers: " + ", ".join(server.version() for server in servers))
    try:
        measure_ssh(servers, Client(key), chosen, sink, results)
    finally:
        for server in servers:
            server.stop()
    applet = Applet(WORK / "applet", chosen.myelin, peak)
    results["applet"] = {size * MIB: applet.measure(size * MIB, chosen.rounds, say) for size in chosen.images}
    results["noise"].append(noise())
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    results["machine"].append(f"load at the end: {load}; {time.strftime('%Y-%m-%d', time.gmtime())}")
    page = report.page(results)
    Path(chosen.output).parent.mkdir(parents=True, exist_ok=True)
    Path(chosen.output).write_text(page)
    shutil.rmtree(WORK)
    print(page[page.index("## What must") : page.index("## Upload")])


if __name__ == "__main__":
    main()
