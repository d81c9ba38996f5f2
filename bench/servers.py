"""The three SSH servers of the benchmark, each with the same key, the same shell and the same sink.

A sink stands in for fwup: it reads everything, drops it, and ends as fwup does. Each server is started
from scratch in a folder of its own and listens on 127.0.0.1.
"""

import os
import pwd
import shutil
import socket
import subprocess
import time

# What fwup does with its input, without the card: read all, say so, end the exit handshake.
SINK = "#!/bin/sh\ncat >/dev/null\nprintf 'Success!\\n\\032\\000'\ncat >/dev/null\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def shell():
    return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"


class Server:
    """A server that can be started and stopped; `name` stands in the tables."""

    def __init__(self, work, name):
        self.name = name
        self.work = os.path.join(work, name.split()[0].lower())
        os.makedirs(self.work, mode=0o700)
        self.port = free_port()
        self.process = None
        self.user_key = os.path.join(work, "user")
        self.sink = self.write("sink", SINK, 0o755)

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.work, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def start(self):
        """Starts it and returns the seconds from exec to the first byte of its banner."""
        log = open(os.path.join(self.work, "log"), "ab")
        begin = time.perf_counter()
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                        start_new_session=True)
        while time.perf_counter() < begin + 20:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
                    if s.recv(1):
                        return time.perf_counter() - begin
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.0002)
        log.flush()
        with open(log.name) as f:
            raise RuntimeError(f"{self.name} does not listen; its log ends with:\n" + f.read()[-2000:])

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pids(self):
        """The server's processes: the one that was started and all below it."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    parents[int(pid)] = int(f.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def ssh(self, command, *options):
        """The client's command line for a session; `command` is a list, empty for the sink."""
        words = ["ssh", "-F", "none", "-p", str(self.port), "-i", self.user_key]
        for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
                       "LogLevel=ERROR", "BatchMode=yes") + options:
            words += ["-o", option]
        return words + (["127.0.0.1"] + command if command else self.sink_words())

    def sink_words(self):
        return ["-s", "127.0.0.1", "fwup"]


class OpenSsh(Server):
    def __init__(self, work):
        super().__init__(work, "OpenSSH sshd")
        self.key = os.path.join(self.work, "host_ed25519")
        self.make_key()
        # Without PAM: the quickest login that sshd has.
        self.config = self.write("sshd_config", "\n".join([
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.key}", "UsePAM no",
            "StrictModes no", f"AuthorizedKeysFile {self.user_key}.pub", "PidFile none", "MaxStartups 100",
            f"Subsystem fwup {self.sink}", ""]))
        os.makedirs("/run/sshd", exist_ok=True)

    def make_key(self):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)

    def command(self):
        return [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", self.config]

    def version(self):
        return subprocess.run(["ssh", "-V"], stderr=subprocess.PIPE, text=True).stderr.strip()

    def binaries(self):
        return [shutil.which("sshd") or "/usr/sbin/sshd"]


class Dropbear(Server):
    """Its key file is that of root's home: namespace.plain_home() puts one there."""

    def __init__(self, work):
        super().__init__(work, "dropbear")
        self.key = os.path.join(self.work, "host_ed25519")
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", self.key], check=True, capture_output=True)

    def command(self):
        program = shutil.which("dropbear") or "/usr/sbin/dropbear"
        return [program, "-F", "-E", "-p", f"127.0.0.1:{self.port}", "-r", self.key, "-P", ""]

    def sink_words(self):
        # It has no subsystems but sftp; a command is the same thing on the wire.
        return ["127.0.0.1", self.sink]

    def version(self):
        found = subprocess.run(["dropbear", "-V"], capture_output=True, text=True)
        return (found.stderr + found.stdout).strip()

    def binaries(self):
        return [shutil.which("dropbear") or "/usr/sbin/dropbear"]


class Myelin(Server):
    def __init__(self, work, binary):
        super().__init__(work, "Myelin")
        self.binary = os.path.abspath(binary)
        with open(f"{self.user_key}.pub") as f:
            key = f.read().strip()
        target = self.write("target.img", "")
        self.config = self.write("config.toml", "\n".join([
            f'state_dir = "{self.work}/state"', f'runtime_dir = "{self.work}/run"', "[ssh]",
            'listen_address = ["127.0.0.1"]', f"port = {self.port}", f'authorized_keys = ["{key}"]',
            f'shell = "{shell()}"', "[firmware]", f'fwup = "{self.sink}"', f'devpath = "{target}"',
            f'env_config = "{self.work}/none"', 'success_action = "none"', ""]))

    def command(self):
        return [self.binary, "daemon", "--config", self.config]

    def forget_host_key(self):
        shutil.rmtree(os.path.join(self.work, "state"), ignore_errors=True)

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.strip()

    def binaries(self):
        return [self.binary]

    def worker(self):
        return next(pid for pid in self.pids() if pid != self.process.pid)
