"""The servers that are compared: how each is configured, started and ended. All listen on 127.0.0.1 only."""

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path

USER = pwd.getpwuid(os.getuid())
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
# How long a server may take to start before the run is given up.
START_LIMIT = 20.0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class Server:
    """One server program with a folder of its own. `start` may be called again after `stop`."""

    name = ""
    #: Whether it serves SFTP.
    sftp = True
    #: Processes of the idle server.
    idle_processes = 1
    ciphers = ("chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

    def __init__(self, folder, client_key, sink):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.public_key = Path(f"{client_key}.pub").read_text().strip()
        self.sink = sink
        self.process = None
        self.log = open(self.folder / "log", "wb")
        self.port = free_port()
        self.configure()

    # What the kinds of servers differ in.

    def configure(self):
        """Writes what the server reads, its host key included."""

    def command(self):
        """What is executed to start it."""
        raise NotImplementedError

    def command_without_host_key(self):
        """The same for a device that starts for the first time. Called after `forget_host_key`."""
        return self.command()

    def forget_host_key(self):
        for path in self.folder.rglob("*host_*key*"):
            if path.is_file():
                path.unlink()

    def before_exec(self):
        """Runs in the child."""

    def push_words(self):
        """What the client asks for to reach the sink: words before and after the host."""
        return ["-s"], ["fwup"]

    def version(self):
        raise NotImplementedError

    def binaries(self):
        """The programs that must be installed for a login and a command."""
        raise NotImplementedError

    # What they have in common.

    def start(self, command=None):
        """Starts the server; gives the moment of its exec (time.monotonic)."""
        reader, writer = os.pipe()

        def prepare():
            self.before_exec()
            os.write(writer, repr(time.monotonic()).encode())

        self.process = subprocess.Popen(
            command or self.command(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            preexec_fn=prepare,
        )
        os.close(writer)
        began = float(os.read(reader, 64))
        os.close(reader)
        return began

    def first_banner(self):
        """Waits for the first byte that a client gets; gives the moment of it."""
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=START_LIMIT) as client:
                    if client.recv(1):
                        return time.monotonic()
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended at its start: see {self.folder}/log")
            time.sleep(0.0002)
        raise SystemExit(f"{self.name} does not answer: see {self.folder}/log")

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class Myelin(Server):
    name = "myelin"
    idle_processes = 2

    def __init__(self, folder, client_key, sink, program):
        self.program = Path(program).resolve()
        super().__init__(folder, client_key, sink)

    def configure(self):
        target = self.folder / "disk.img"
        target.touch()
        # A store without slots: no update waits for a reboot after the first push.
        store = self.folder / "environment"
        store.write_text("nerves_serial_number=bench\n")
        text = f"""
            state_dir = "{self.folder}/state"
            runtime_dir = "{self.folder}/run"
            [ssh]
            listen_address = ["127.0.0.1"]
            port = {self.port}
            authorized_keys = ["{self.public_key}"]
            [firmware]
            fwup = "{self.sink}"
            devpath = "{target}"
            env_file = "{store}"
            success_action = "none"
        """
        (self.folder / "config.toml").write_text(text)

    def command(self):
        return [str(self.program), "daemon", "--config", str(self.folder / "config.toml")]

    def worker(self):
        """The pid of the ssh worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip()

    def binaries(self):
        return [self.program]


class OpenSsh(Server):
    name = "OpenSSH"

    def configure(self):
        self.host_key = self.folder / "ssh_host_ed25519_key"
        self.make_host_key()
        (self.folder / "authorized_keys").write_text(self.public_key + "\n")
        # Debian's sshd_config but for the files, the address and the sink, and without PAM: no server has less to
        # do for a login.
        text = f"""
            ListenAddress 127.0.0.1:{self.port}
            HostKey {self.host_key}
            PidFile none
            AuthorizedKeysFile {self.folder}/authorized_keys
            StrictModes no
            KbdInteractiveAuthentication no
            UsePAM no
            PrintMotd no
            AcceptEnv LANG LC_*
            Subsystem fwup {self.sink}
            Subsystem sftp /usr/lib/openssh/sftp-server
        """
        (self.folder / "sshd_config").write_text(text)
        if os.getuid() == 0:
            # Where sshd locks its unprivileged part in; made by its service otherwise.
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)

    def make_host_key(self):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.host_key)

    def command(self):
        return ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]

    def command_without_host_key(self):
        make = f"ssh-keygen -q -t ed25519 -N '' -f '{self.host_key}'"
        return ["/bin/sh", "-c", f"{make} && exec {' '.join(self.command())}"]

    def version(self):
        return subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.split(",")[0].strip()

    def binaries(self):
        sessions = [Path("/usr/lib/openssh/sshd-session"), Path("/usr/lib/openssh/sshd-auth")]
        return [Path("/usr/sbin/sshd"), *(path for path in sessions if path.exists())]


class Dropbear(Server):
    name = "dropbear"
    sftp = False
    # Debian's dropbear has no AES-GCM.
    ciphers = ("chacha20-poly1305@openssh.com",)

    def configure(self):
        self.host_key = self.folder / "dropbear_host_key"
        self.make_host_key()
        keys = self.folder / "ssh"
        keys.mkdir(mode=0o700)
        (keys / "authorized_keys").write_text(self.public_key + "\n")
        (keys / "authorized_keys").chmod(0o600)
        self.home = Path(USER.pw_dir) / ".ssh"
        self.made_home = False

    def start(self, command=None):
        # Its keys are mounted here.
        self.made_home = not self.home.exists()
        self.home.mkdir(mode=0o700, exist_ok=True)
        return super().start(command)

    def make_host_key(self):
        run("dropbearkey", "-t", "ed25519", "-f", self.host_key)

    def before_exec(self):
        # dropbear reads ~/.ssh/authorized_keys and nothing else: in a mount namespace of its own it finds ours
        # there, and the user's files stay as they are.
        libc = ctypes.CDLL(None, use_errno=True)
        keys = str(self.folder / "ssh").encode()
        if (
            libc.unshare(CLONE_NEWNS) != 0
            or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0
            or libc.mount(keys, str(self.home).encode(), None, MS_BIND, None) != 0
        ):
            raise OSError(ctypes.get_errno(), "cannot give dropbear its keys")

    def command(self):
        arguments = ["-F", "-E", "-r", self.host_key, "-p", f"127.0.0.1:{self.port}", "-P", self.folder / "pid"]
        return ["/usr/sbin/dropbear", *map(str, arguments)]

    def command_without_host_key(self):
        # Its own -R writes to /etc only.
        make = f"dropbearkey -t ed25519 -f '{self.host_key}'"
        return ["/bin/sh", "-c", f"{make} && exec {' '.join(self.command())}"]

    def push_words(self):
        # No subsystems but sftp: the sink is a command.
        return [], [str(self.sink)]

    def version(self):
        done = subprocess.run(["dropbear", "-V"], capture_output=True, text=True)
        return (done.stderr + done.stdout).strip()

    def binaries(self):
        return [Path("/usr/sbin/dropbear")]

    def stop(self):
        super().stop()
        if self.made_home and not any(self.home.iterdir()):
            self.home.rmdir()
            self.made_home = False


def missing(kind):
    """Why a peer cannot take part, or None."""
    if kind is OpenSsh and not Path("/usr/sbin/sshd").exists():
        return "install openssh-server"
    if kind is Dropbear and not Path("/usr/sbin/dropbear").exists():
        return "install dropbear-bin"
    if kind is Dropbear and os.getuid() != 0:
        return "its keys need a mount namespace: run as root"
    return None
