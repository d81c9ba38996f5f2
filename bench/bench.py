#!/usr/bin/env python3
"""Myelin beside OpenSSH's sshd and dropbear, and the applet beside unzip and dd.

    python3 bench/bench.py [--myelin target/release/myelin] [--output docs/benchmarks.md]

Writes one Markdown page: a table of the targets with pass or fail, then all medians. Standard library only.
Run it on a machine that does nothing else; it takes about five minutes.
"""

import argparse
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import applet
import measure
import namespace
from measure import median
from servers import Dropbear, Myelin, OpenSsh

CIPHERS = ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
CURVE = "KexAlgorithms=curve25519-sha256"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--myelin", default="target/release/myelin", help="the release binary")
    parser.add_argument("--output", default="docs/benchmarks.md")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each throughput (at least 7 count)")
    parser.add_argument("--logins", type=int, default=21)
    parser.add_argument("--size", type=int, default=512, help="MiB of one push")
    parser.add_argument("--rootfs", type=int, default=256, help="MiB of the applet's root file system")
    parser.add_argument("--only", choices=["ssh", "applet"], help="leave the other part out")
    return parser.parse_args()


class Report:
    """Collects the page."""

    def __init__(self):
        self.targets = []
        self.sections = []

    def target(self, what, goal, value, text, least=True):
        """A line of the first table. `value` is compared with `goal`, `text` is what stands there."""
        good = value >= goal if least else value <= goal
        sign = "at least" if least else "at most"
        self.targets.append((what, f"{sign} {goal:g}", text, "yes" if good else "**no**"))
        say(f"{what}: {text} ({sign} {goal:g}: {'yes' if good else 'NO'})")

    def table(self, title, command, head, rows):
        lines = [f"## {title}", "", f"`{command}`", "", row(head), row(["---"] * len(head))]
        self.sections.append("\n".join(lines + [row(r) for r in rows]))

    def page(self, facts):
        head = ["Target", "Wanted", "Measured", "Reached"]
        parts = ["# Benchmarks", "Made by `make bench` (bench/bench.py); all figures of one run on one machine. "
                 "Servers take turns inside each round; medians are compared.", "\n".join(facts),
                 "## Targets\n\n" + "\n".join([row(head), row(["---"] * 4)] + [row(t) for t in self.targets])]
        return "\n\n".join(parts + self.sections) + "\n"


def row(cells):
    return "| " + " | ".join(str(c) for c in cells) + " |"


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def spread(values, form="{:.0f}"):
    if not values:
        return "not offered"
    return f"{form.format(median(values))} ({form.format(min(values))}–{form.format(max(values))})"


def ssh_part(args, work, report):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(work, "user")], check=True)
    own_home = namespace.plain_home(work, os.path.join(work, "user.pub"))
    myelin, openssh = Myelin(work, args.myelin), OpenSsh(work)
    servers = [myelin, openssh]
    if shutil.which("dropbear") and own_home:
        servers.append(Dropbear(work))
    else:
        say("dropbear is left out: it needs its package, and root for a home with our key")
    source = os.path.join(work, "upload.bin")
    with open(source, "wb") as f:
        for _ in range(args.size):
            f.write(os.urandom(1 << 20))
    try:
        start_part(args, report, servers, myelin, openssh)
        measure.start_all(servers)
        login_part(args, report, servers)
        memory_part(args, report, servers, myelin, source)
        throughput_part(args, report, servers, source)
    finally:
        for server in servers:
            server.stop()
    os.remove(source)
    size_part(report, servers)
    return [server.version() for server in servers]


def start_part(args, report, servers, myelin, openssh):
    say("start")

    def forget(server):
        if server is myelin:
            myelin.forget_host_key()

    kept = measure.starts(servers, args.rounds)
    made = measure.starts([myelin], args.rounds, forget)
    theirs = median(kept[openssh.name])
    ratio = median(kept[myelin.name]) / theirs
    report.target("exec to banner, host key on disk, against OpenSSH", 0.6, ratio, f"{ratio:.2f}", least=False)
    ratio = median(made[myelin.name]) / theirs
    report.target("exec to banner, host key to be made, against OpenSSH with its key", 2, ratio, f"{ratio:.2f}",
                  least=False)
    rows = [[name, spread(times, "{:.1f}")] for name, times in kept.items()]
    rows.append(["Myelin, host key to be made", spread(made[myelin.name], "{:.1f}")])
    report.table("From exec to the first byte of the banner", "measure.starts: exec, connect until it answers",
                 ["Server", "ms, median (min–max)"], rows)


def login_part(args, report, servers):
    say("logins")
    curve = measure.logins(servers, args.logins, CURVE)
    default = measure.logins(servers, args.logins)
    ratio = median(curve["Myelin"]) / median(curve["OpenSSH sshd"])
    report.target("login and a no-op command (curve25519), against OpenSSH", 0.15, ratio, f"{ratio:.3f}", least=False)
    client = floor(args.logins)
    rows = [[s.name, spread(curve[s.name], "{:.1f}"), spread(default[s.name], "{:.1f}")] for s in servers]
    report.table("Login and a command that does nothing",
                 f"ssh -F none -o {CURVE} HOST true (the client's own start, `ssh -V`, takes {client:.1f} ms of it)",
                 ["Server", "curve25519, ms, median (min–max)", "client's own choice of kex"], rows)


def floor(rounds):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(["ssh", "-V"], stderr=subprocess.DEVNULL)
        times.append((time.perf_counter() - begin) * 1000)
    return median(times)


def memory_part(args, report, servers, myelin, source):
    say("memory")
    for server in servers:
        server.stop()
        server.start()
        for _ in range(10):
            measure.run(server.ssh(["true"]))
    time.sleep(2)
    idle = {s.name: measure.memory(s) for s in servers}
    supervisor, worker = measure.rollup(myelin.process.pid), measure.rollup(myelin.worker())
    everything = idle["Myelin"]["pss"] / 1024
    report.target("MiB PSS of all processes after ten logins", 5, everything, f"{everything:.2f}", least=False)
    report.target("KiB private dirty memory, supervisor", 512, supervisor["dirty"], supervisor["dirty"], least=False)
    report.target("MiB private dirty memory, idle worker", 1.5, worker["dirty"] / 1024, f"{worker['dirty'] / 1024:.2f}",
                  least=False)
    grown = measure.growth(myelin.worker(), lambda: measure.run(myelin.ssh([]), source)) / 1024
    report.target(f"MiB growth of the worker's RSS in a push of {args.size} MiB", 4, grown, f"{grown:.2f}", least=False)
    busy = {s.name: measure.peak(s, source) for s in servers}
    mib = lambda kib: f"{kib / 1024:.1f}"
    rows = [[s.name] + [mib(m[key]) for m in (idle[s.name], busy[s.name]) for key in ("rss", "pss", "dirty")]
            for s in servers]
    report.table("Memory", "/proc/PID/smaps_rollup of all processes without the sink, after ten logins and sampled during a push",
                 ["Server", "idle RSS, MiB", "idle PSS", "idle private dirty", "peak RSS", "peak PSS", "peak private dirty"], rows)


def throughput_part(args, report, servers, source):
    say("throughput")
    measure.start_all([s for s in servers if s.process is None])
    for server in servers:
        server.idle_processes = len(server.pids())
    results = measure.throughput(servers, source, args.rounds, CIPHERS)
    rows = []
    for cipher, found in results.items():
        name = cipher.split("@")[0]
        speed, cost = found["Myelin"]
        their_speed, their_cost = found["OpenSSH sshd"]
        if name in GOALS:
            ratio = median(speed) / median(their_speed)
            report.target(f"upload, {name}, against OpenSSH (goal {GOALS[name][1]})", GOALS[name][0], ratio, f"{ratio:.2f}")
        ratio = statistics.mean(cost) / max(statistics.mean(their_cost), 1e-9)
        report.target(f"server CPU per GiB, {name}, against OpenSSH", 0.75, ratio, f"{ratio:.2f}", least=False)
        for server in servers:
            speeds, costs = found.get(server.name, ([], []))
            relation = f"{median(speeds) / median(their_speed):.2f}" if speeds else ""
            rows.append([server.name, name, spread(speeds), relation,
                         f"{statistics.mean(costs):.2f}" if costs else ""])
    report.table(f"Upload of {args.size} MiB into a sink, {args.rounds} rounds",
                 "ssh -F none -o Ciphers=CIPHER -s HOST fwup < FILE (dropbear: ssh HOST SINK < FILE); the sink is `cat >/dev/null`",
                 ["Server", "Cipher", "MB/s, median (min–max)", "against OpenSSH", "server CPU s/GiB, with the sink"], rows)


# Cipher: what must hold, and the goal.
GOALS = {"chacha20-poly1305": (1.3, 1.4), "aes128-gcm": (1.5, 1.6)}


def size_part(report, servers):
    sizes = {s.name: sum(os.path.getsize(path) for path in s.binaries()) / (1 << 20) for s in servers}
    report.target("MiB of the stripped binary", 5, sizes["Myelin"], f"{sizes['Myelin']:.2f}", least=False)
    report.table("Size of the program", "the file's size; the others need their libraries besides",
                 ["Program", "MiB"], [[name, f"{size:.2f}"] for name, size in sizes.items()])


def applet_part(args, work, report):
    say("applet")
    largest, rows = 0, []
    for size in (args.rootfs, args.rootfs * 2):
        archive, rootfs = applet.make_archive(os.path.abspath(args.myelin), work, size << 20)
        times, memory = applet.apply(os.path.abspath(args.myelin), work, archive, rootfs, max(5, args.rounds // 2))
        largest = max(largest, memory)
        ours, theirs = median(times["myelin fwup"]), median(times["unzip and dd"])
        if size == args.rootfs:
            report.target("apply, seconds against unzip and dd", 1, ours / theirs, f"{ours / theirs:.2f}", least=False)
        rows += [[way, f"{size} ({os.path.getsize(archive) >> 20})", spread(seconds, "{:.2f}"), f"{median(seconds) / theirs:.2f}"]
                 for way, seconds in times.items()]
        os.remove(archive)
    report.target("MiB RSS of the applet at its peak, two sizes of archive", 16, largest / 1024, f"{largest / 1024:.1f}", least=False)
    report.table("Applying an archive to a file",
                 "myelin fwup -a -q -i FW -d IMG -t upgrade; unzip -p FW data/rootfs.img | dd of=IMG bs=128K conv=notrunc,fdatasync",
                 ["Way", "MiB (in the archive)", "s, median (min–max)", "against unzip and dd"], rows)


def facts(versions, rounds):
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith(("model name", "Model"))), "unknown")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return [f"- {datetime.date.today()}, {model}, {os.cpu_count()} cores, Linux {platform.release()}, load at the end {load}",
            f"- {'; '.join(versions)}", f"- at least {rounds} rounds each"]


def main():
    args = arguments()
    namespace.enter()
    if not os.path.exists(args.myelin):
        sys.exit(f"{args.myelin} is missing: cargo build --release")
    report, versions = Report(), []
    with tempfile.TemporaryDirectory(prefix="myelin-bench-") as work:
        if args.only != "applet":
            versions = ssh_part(args, work, report)
        if args.only != "ssh":
            applet_part(args, work, report)
    page = report.page(facts(versions, args.rounds))
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    with open(args.output, "w") as f:
        f.write(page)
    say(f"written: {args.output}")
    # A target that is not reached does not fail the run: the table says it.


if __name__ == "__main__":
    main()
