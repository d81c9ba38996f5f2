"""What is measured, one function a table. Servers take turns inside each round, so that a busy moment
of the machine meets all of them; medians of the rounds are compared, never single runs."""

import os
import statistics
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def median(values):
    return statistics.median(values) if values else None


def run(words, source=None):
    """Runs a client and returns its seconds. A client that fails makes the whole benchmark fail."""
    with open(source or os.devnull, "rb") as stdin:
        begin = time.perf_counter()
        done = subprocess.run(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: "
                           f"{(done.stdout + done.stderr).decode(errors='replace')[-500:]}")
    return seconds


def cpu_seconds(server):
    """CPU of the server so far, with that of its children that ended: sessions and the sink."""
    total = 0
    for pid in server.pids():
        try:
            with open(f"/proc/{pid}/stat") as f:
                total += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            continue
    return total / TICK


def settled_cpu(server):
    """CPU after the session's processes have ended and were counted."""
    for _ in range(100):
        if len(server.pids()) <= server.idle_processes:
            break
        time.sleep(0.02)
    return cpu_seconds(server)


def start_all(servers):
    for server in servers:
        server.start()
        run(server.ssh(["true"]))
    time.sleep(0.5)
    for server in servers:
        server.idle_processes = len(server.pids())


def throughput(servers, source, rounds, ciphers):
    """{cipher: {server: ([MB/s], [CPU seconds per GiB])}}"""
    size = os.path.getsize(source)
    results = {}
    for cipher in ciphers:
        able = [s for s in servers if offers(s, cipher)]
        results[cipher] = {s.name: ([], []) for s in able}
        for number in range(rounds):
            # Another order each round: who comes first meets a colder cache.
            for server in able[number % len(able):] + able[:number % len(able)]:
                before = settled_cpu(server)
                seconds = run(server.ssh([], f"Ciphers={cipher}"), source)
                spent = settled_cpu(server) - before
                speeds, costs = results[cipher][server.name]
                speeds.append(size / seconds / 1e6)
                costs.append(spent / size * (1 << 30))
    return results


def offers(server, cipher):
    try:
        run(server.ssh(["true"], f"Ciphers={cipher}"))
        return True
    except RuntimeError:
        return False


def logins(servers, rounds, *options):
    """{server: [milliseconds]} of a login with a command that does nothing."""
    results = {s.name: [] for s in servers}
    for number in range(rounds):
        for server in servers[number % len(servers):] + servers[:number % len(servers)]:
            results[server.name].append(run(server.ssh(["true"], *options)) * 1000)
    return results


def starts(servers, rounds, before=lambda server: None):
    """{server: [milliseconds]} from exec to the first byte of the banner."""
    results = {s.name: [] for s in servers}
    for _ in range(rounds):
        for server in servers:
            server.stop()
            before(server)
            results[server.name].append(server.start() * 1000)
            server.stop()
    return results


def rollup(pid):
    """Pss, Rss and private dirty memory of a process, in KiB."""
    values = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    values[words[0].rstrip(":")] = int(words[1])
    except OSError:
        return None
    return {"pss": values.get("Pss", 0), "rss": values.get("Rss", 0), "dirty": values.get("Private_Dirty", 0)}


def is_sink(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
    except OSError:
        return True
    return words[0] == b"cat" or any(word.endswith(b"/sink") for word in words)


def memory(server):
    """Sum over the server's processes without the sink."""
    found = [rollup(pid) for pid in server.pids() if not is_sink(pid)]
    return {key: sum(part[key] for part in found if part) for key in ("pss", "rss", "dirty")}


def peak(server, source):
    """The largest sums while one file is pushed, sampled."""
    top = {"pss": 0, "rss": 0, "dirty": 0}
    ended = threading.Event()

    def sample():
        while not ended.is_set():
            now = memory(server)
            for key, value in now.items():
                top[key] = max(top[key], value)
            time.sleep(0.02)

    sampler = threading.Thread(target=sample)
    sampler.start()
    run(server.ssh([]), source)
    ended.set()
    sampler.join()
    return top


def high_water(pid):
    """The largest RSS of one process since the last reset, in KiB: no sample can miss it."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def growth(pid, push):
    """By how much the RSS of a process grows at most while `push` runs, in KiB."""
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")
    before = high_water(pid)
    push()
    return high_water(pid) - before
