"""The measurements of the SSH servers. Each takes the servers in turn inside every round, another one first each
time, so that what else the machine does meets all of them alike."""

import os
import time
from pathlib import Path

import procs

GIB = 1 << 30
CIPHERS = {
    "chacha20-poly1305": "chacha20-poly1305@openssh.com",
    "aes128-gcm": "aes128-gcm@openssh.com",
    "aes256-gcm": "aes256-gcm@openssh.com",
}
SFTP_CIPHERS = ("chacha20-poly1305", "aes128-gcm")
KEX = {"curve25519": "curve25519-sha256", "the client's default": None}
LOGINS_BEFORE_MEMORY = 10
SESSIONS = 100


def in_turn(servers, round_number):
    first = round_number % len(servers)
    return servers[first:] + servers[:first]


def random_file(path, size):
    with open(path, "wb") as file:
        left = size
        while left:
            piece = os.urandom(min(left, 1 << 20))
            file.write(piece)
            left -= len(piece)
    return path


def memory(servers, client, file):
    """Idle after ten logins, then during one push that nobody times."""
    found = {}
    for server in servers:
        for _ in range(LOGINS_BEFORE_MEMORY):
            client.login(server)
        procs.settle(server.process.pid, server.idle_processes)
        time.sleep(1)
        idle = procs.tree_memory(server.process.pid)
        result = {"idle": idle, "processes": {}}
        if server.name == "myelin":
            worker = server.worker()
            result["processes"] = {
                "supervisor": procs.memory(server.process.pid),
                "ssh worker": procs.memory(worker),
            }
            procs.forget_peak(worker)
            before = procs.resident(worker)
        with procs.PeakMemory(server.process.pid) as sampled:
            client.push(server, file, CIPHERS["chacha20-poly1305"])
        result["peak"] = sampled.peak
        if server.name == "myelin":
            result["growth"] = procs.resident(worker, "VmHWM") - before
        procs.settle(server.process.pid, server.idle_processes)
        found[server.name] = result
    return found


def sessions(servers, client):
    """Memory while so many clients have a command that waits: of all processes but the commands, and of our worker."""
    found = {}
    for server in servers:
        clients = []
        try:
            for _ in range(SESSIONS):
                clients.append(client.session(server))
            found[server.name] = procs.tree_memory(server.process.pid, leave_out=("cat", "sh", "bash", "dash"))
            if server.name == "myelin":
                found["worker"] = procs.memory(server.worker())
        finally:
            for one in clients:
                one.stdin.close()
            for one in clients:
                one.wait(timeout=60)
                one.stdout.close()
        procs.settle(server.process.pid, server.idle_processes)
    return found


def upload(servers, client, file, sink, rounds, say):
    """Throughput in MB/s, server CPU and sink CPU in seconds per GiB: {cipher: {server: [(…)]}}."""
    size = Path(file).stat().st_size
    found = {cipher: {server.name: [] for server in servers} for cipher in CIPHERS}
    report = Path(f"{sink}.cpu")
    for number in range(rounds):
        for name, cipher in CIPHERS.items():
            for server in in_turn(servers, number):
                if cipher not in server.ciphers:
                    continue
                report.unlink(missing_ok=True)
                before = procs.cpu_seconds(server.process.pid)
                took = client.push(server, file, cipher)
                procs.settle(server.process.pid, server.idle_processes)
                all_cpu = procs.cpu_seconds(server.process.pid) - before
                sink_cpu = float(report.read_text())
                found[name][server.name].append((size / took / 1e6, all_cpu * GIB / size, sink_cpu * GIB / size))
        say(f"upload: round {number + 1} of {rounds}")
    return found


def transfers(servers, client, file, rounds, say):
    """SFTP both ways, throughput in MB/s and server CPU in seconds per GiB: {(cipher, way): {server: [(…)]}}."""
    size = Path(file).stat().st_size
    servers = [server for server in servers if server.sftp]
    found = {}
    for number in range(rounds):
        for name in SFTP_CIPHERS:
            for way in ("put", "get"):
                for server in in_turn(servers, number):
                    target = server.folder / "copy"
                    target.unlink(missing_ok=True)
                    before = procs.cpu_seconds(server.process.pid)
                    took = client.copy(server, way, file, target, CIPHERS[name])
                    procs.settle(server.process.pid, server.idle_processes)
                    cpu = procs.cpu_seconds(server.process.pid) - before
                    if target.stat().st_size != size:
                        raise SystemExit(f"sftp {way} at {server.name} copied {target.stat().st_size} of {size} bytes")
                    target.unlink()
                    runs = found.setdefault((name, way), {})
                    runs.setdefault(server.name, []).append((size / took / 1e6, cpu * GIB / size))
        say(f"sftp: round {number + 1} of {rounds}")
    return found


def logins(servers, client, count, say):
    """Seconds of a login with a command that does nothing: {kex: {server: […]}}."""
    found = {name: {server.name: [] for server in servers} for name in KEX}
    for number in range(count):
        for name, kex in KEX.items():
            for server in in_turn(servers, number):
                found[name][server.name].append(client.login(server, kex))
    say(f"login: {count} rounds")
    return found


def starts(servers, client, count, say):
    """Seconds from exec to the first byte and to the end of the first login. The servers are stopped before."""
    banner = {server.name: [] for server in servers}
    without_key = {server.name: [] for server in servers}
    login = {server.name: [] for server in servers}
    for number in range(count):
        for server in in_turn(servers, number):
            began = server.start()
            banner[server.name].append(server.first_banner() - began)
            server.stop()

            began = server.start()
            server.first_banner()
            client.login(server)
            login[server.name].append(time.monotonic() - began)
            server.stop()

            server.forget_host_key()
            began = server.start(server.command_without_host_key())
            without_key[server.name].append(server.first_banner() - began)
            server.stop()
    say(f"start: {count} rounds")
    return {"banner": banner, "without key": without_key, "login": login}
