"""The Markdown page: what must be reached first, then every figure."""

from statistics import median

from ssh_part import SESSIONS

MIB = 1024.0


def spread(values, scale=1.0, digits=0):
    """median (min-max)"""
    low, middle, high = (f"{value * scale:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}–{high})"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def ratio(values, others):
    return median(values) / median(others)


class Targets:
    """The rows of "must reach"."""

    def __init__(self):
        self.rows = []

    def at_least(self, what, value, target, shown, goal=None):
        self._add(what, f"≥ {target}" + (f" (goal {goal})" if goal else ""), value >= target, shown)

    def at_most(self, what, value, target, shown, unit=""):
        self._add(what, f"≤ {target}{unit}", value <= target, shown)

    def unknown(self, what, target, why):
        self.rows.append((what, target, "–", f"not measured: {why}"))

    def _add(self, what, target, reached, shown):
        self.rows.append((what, target, shown, "yes" if reached else "**no**"))


def targets(results):
    rows = Targets()
    _ssh_targets(rows, results)
    _own_targets(rows, results)
    _applet_targets(rows, results["applet"])
    return table(("What", "Target", "Measured", "Reached"), rows.rows)


def _ssh_targets(rows, results):
    if "OpenSSH" not in results["servers"]:
        rows.unknown("everything that is compared with OpenSSH", "", "install openssh-server")
        return
    for cipher, target, goal in (("chacha20-poly1305", 1.3, 1.4), ("aes128-gcm", 1.5, 1.6)):
        runs = results["upload"][cipher]
        value = ratio([run[0] for run in runs["myelin"]], [run[0] for run in runs["OpenSSH"]])
        rows.at_least(f"upload, {cipher}, times OpenSSH", value, target, f"{value:.2f}", goal)
    for cipher, runs in results["upload"].items():
        value = ratio([run[1] for run in runs["myelin"]], [run[1] for run in runs["OpenSSH"]])
        rows.at_most(f"server CPU per GiB, {cipher}, of OpenSSH's", value, 0.75, f"{value:.2f}")
    for (cipher, way), runs in results["sftp"].items():
        value = ratio([run[0] for run in runs["myelin"]], [run[0] for run in runs["OpenSSH"]])
        rows.at_least(f"sftp {way}, {cipher}, times OpenSSH", value, 0.9, f"{value:.2f}")
    for kex, runs in results["login"].items():
        value = ratio(runs["myelin"], runs["OpenSSH"])
        rows.at_most(f"login and no-op command, kex {kex}, of OpenSSH's", value, 0.15, f"{value:.2f}")
    starts = results["start"]
    value = ratio(starts["banner"]["myelin"], starts["banner"]["OpenSSH"])
    rows.at_most("exec to first banner, host key on disk, of OpenSSH's", value, 0.6, f"{value:.2f}")
    value = ratio(starts["without key"]["myelin"], starts["banner"]["OpenSSH"])
    rows.at_most("exec to first banner, host key made, of OpenSSH's with its key on disk", value, 2, f"{value:.2f}")


def _own_targets(rows, results):
    memory = results["memory"]["myelin"]
    idle, processes = memory["idle"]["Pss"], memory["processes"]
    supervisor, worker = (processes[name]["Private_Dirty"] for name in ("supervisor", "ssh worker"))
    size = results["sizes"]["myelin"]["programs"]
    rows.at_most("PSS of all processes after ten logins", idle / MIB, 5, f"{idle / MIB:.2f} MiB", " MiB")
    rows.at_most("private dirty, supervisor", supervisor, 512, f"{supervisor} KiB", " KiB")
    rows.at_most("private dirty, idle ssh worker", worker, 1536, f"{worker} KiB", " KiB")
    growth = memory["growth"] / MIB
    pushed = results["size"] >> 20
    rows.at_most(f"growth of the worker's RSS during a push of {pushed} MiB", growth, 4, f"{growth:.2f} MiB", " MiB")
    worker = results["sessions"]["worker"]["Rss"] / MIB
    rows.at_most(f"RSS of the ssh worker with {SESSIONS} sessions", worker, 32, f"{worker:.1f} MiB", " MiB")
    rows.at_most("release binary, stripped", size / MIB / MIB, 5, f"{size / MIB / MIB:.2f} MiB", " MiB")


def _applet_targets(rows, applet):
    for size, found in applet.items():
        where = f"{size >> 20} MiB root file system"
        if isinstance(found, str):
            rows.unknown(f"applet, peak memory, {where}", "≤ 16 MiB", found)
            rows.unknown(f"applet, apply, {where}, times as fast as `unzip \\| dd`", "≥ 1", found)
            continue
        peak = max(run[1] for run in found["myelin"]) / MIB
        rows.at_most(f"applet, peak memory, {where}", peak, 16, f"{peak:.1f} MiB", " MiB")
        speed = ratio([run[0] for run in found["unzip | dd"]], [run[0] for run in found["myelin"]])
        rows.at_least(f"applet, apply, {where}, times as fast as `unzip \\| dd`", speed, 1, f"{speed:.2f}")


def upload(results):
    rows = []
    for cipher, runs in results["upload"].items():
        for server in results["servers"]:
            own = runs[server]
            if not own:
                rows.append((cipher, server, "not built in", "", "", "", ""))
                continue
            rates, cpu, sink = zip(*own)
            against = runs.get("OpenSSH") or own
            rows.append(
                (
                    cipher,
                    server,
                    spread(rates),
                    f"{ratio(rates, [run[0] for run in against]):.2f}",
                    spread(cpu, digits=2),
                    f"{ratio(cpu, [run[1] for run in against]):.2f}",
                    f"{median(sink):.2f}",
                )
            )
    head = ("Cipher", "Server", "MB/s", "of OpenSSH's", "Server CPU s/GiB", "of OpenSSH's", "the sink's part, s/GiB")
    return table(head, rows)


def sftp(results):
    rows = []
    for (cipher, way), runs in results["sftp"].items():
        for server, own in runs.items():
            rates, cpu = zip(*own)
            against = runs.get("OpenSSH") or own
            of_rates, of_cpu = (ratio(values, [run[n] for run in against]) for n, values in enumerate((rates, cpu)))
            rows.append(
                (way, cipher, server, spread(rates), f"{of_rates:.2f}", spread(cpu, digits=2), f"{of_cpu:.2f}")
            )
    head = ("Way", "Cipher", "Server", "MB/s", "of OpenSSH's", "Server CPU s/GiB", "of OpenSSH's")
    return table(head, rows)


def latency(results):
    rows = []
    series = [(f"login and no-op command, kex {kex}", runs) for kex, runs in results["login"].items()]
    names = {
        "banner": "exec to first banner, host key on disk",
        "without key": "exec to first banner, host key missing",
        "login": "exec to the end of the first login",
    }
    series += [(names[name], runs) for name, runs in results["start"].items()]
    for what, runs in series:
        for server in results["servers"]:
            against = runs.get("OpenSSH") or runs[server]
            rows.append((what, server, spread(runs[server], 1000, 1), f"{ratio(runs[server], against):.2f}"))
    return table(("What", "Server", "ms", "of OpenSSH's"), rows)


def memory(results):
    rows = []
    for server in results["servers"]:
        found = results["memory"][server]
        for name, process in found["processes"].items():
            rows.append((f"{server}: {name}", *_mib(process), "", ""))
        peak = found["peak"]
        rows.append(
            (f"{server}: all processes", *_mib(found["idle"]), f"{peak['Rss'] / MIB:.1f}", f"{peak['Pss'] / MIB:.1f}")
        )
    head = ("Server", "Idle RSS", "Idle PSS", "Idle private dirty", "Peak RSS", "Peak PSS")
    return table(head, rows)


def sessions(results):
    found = results["sessions"]
    rows = [(server, *_mib(found[server])) for server in results["servers"]]
    rows.insert(1, ("myelin: ssh worker", *_mib(found["worker"])))
    return table(("Server", "RSS", "PSS", "Private dirty"), rows)


def _mib(process):
    return [f"{process[key] / MIB:.2f}" for key in ("Rss", "Pss", "Private_Dirty")]


def sizes(results):
    rows = []
    for server, size in results["sizes"].items():
        programs, libraries = size["programs"] / MIB / MIB, size["libraries"] / MIB / MIB
        rows.append((server, f"{programs:.2f}", f"{libraries:.2f}"))
    return table(("Server", "Programs", "Libraries besides the C library"), rows)


def applet(results):
    rows = []
    for size, found in results["applet"].items():
        if isinstance(found, str):
            rows.append((f"{size >> 20} MiB", "", f"not measured: {found}", ""))
            continue
        for way, runs in found.items():
            seconds, peaks = zip(*runs)
            name = way.replace("|", "\\|")
            rows.append((f"{size >> 20} MiB", name, spread(seconds, 1000), f"{max(peaks) / MIB:.1f}"))
    return table(("Root file system", "Way", "ms", "Peak memory of the largest process, MiB"), rows)


def page(results):
    machine = "\n".join(f"- {line}" for line in results["machine"])
    notes = "\n".join(f"- {note}" for note in results["notes"])
    noise = spread(results["noise"], 1000)
    pushed = results["size"] >> 20
    return f"""# Benchmarks

Made by `{results["command"]}`; do not edit. Everything runs on one machine over 127.0.0.1, the servers in turn
inside each of {results["rounds"]} rounds; figures are median (min–max). Single figures mean little on a busy
machine, ratios from one run do.

{machine}
- noise: hashing the same 32 MiB took {noise} ms during the run
{notes}

## What must be reached

{targets(results)}
## Upload

A random file of {pushed} MiB through Debian's `ssh` into the same sink behind each server: the subsystem `fwup` of
Myelin and OpenSSH, a command for dropbear. The time is that of the whole command, login included. Server CPU is that
of all its processes, with the sink.

{upload(results)}
## SFTP

A random file of {results["sftp size"] >> 20} MiB, put and got by Debian's `sftp` in at most 5 rounds, on a real disk without fsync. Server CPU
is that of all its processes.

{sftp(results)}
## Latency

{latency(results)}
With the key missing, the figures of OpenSSH and dropbear are those of their key program and then the server.

## Memory

In MiB, from /proc/PID/smaps_rollup: idle after ten logins, and the largest sum of all processes without the sink
during one push with chacha20-poly1305.

{memory(results)}
The same with {SESSIONS} clients logged in, each with a command that waits, without the commands:

{sessions(results)}
## Size

In MiB, stripped.

{sizes(results)}
## Applet

`myelin fwup -a -d IMG -i FW -t complete` beside `unzip -p FW data/rootfs.img | dd of=IMG bs=128K
conv=notrunc,fdatasync`, and beside the real fwup, followed by `sync -d`, when it is on PATH. A quarter of the root
file system can be compressed.

{applet(results)}"""
