"""The client of every measurement: Debian's own ssh, with nothing of the user's configuration."""

import subprocess
import time

from servers import USER


# A push or a login that takes longer has hung.
LIMIT = 300


class Client:
    def __init__(self, key):
        self.key = key

    def words(self, server, cipher=None, kex=None):
        options = [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ]
        if cipher:
            options.append(f"Ciphers={cipher}")
        if kex:
            options.append(f"KexAlgorithms={kex}")
        words = ["ssh", "-F", "/dev/null", "-i", str(self.key), "-p", str(server.port)]
        for option in options:
            words += ["-o", option]
        return words

    def copy(self, server, direction, source, target, cipher):
        """Copies a file with sftp, `put` or `get`; gives the seconds from the start of sftp to its end."""
        words = self.words(server, cipher=cipher)
        # The same options, but for the letter of the port.
        words = ["sftp", "-q", "-b", "-", *("-P" if word == "-p" else word for word in words[1:])]
        began = time.monotonic()
        done = subprocess.run(
            [*words, f"{USER.pw_name}@127.0.0.1"],
            input=f"{direction} {source} {target}\n".encode(),
            capture_output=True,
            timeout=LIMIT,
        )
        took = time.monotonic() - began
        if done.returncode != 0:
            raise SystemExit(f"sftp {direction} at {server.name} failed with {done.returncode}: {done.stderr!r}")
        return took

    def push(self, server, file, cipher):
        """Sends `file` into the sink; gives the seconds from the start of ssh to its end."""
        before, after = server.push_words()
        words = [*self.words(server, cipher=cipher), *before, f"{USER.pw_name}@127.0.0.1", *after]
        with open(file, "rb") as source:
            began = time.monotonic()
            done = subprocess.run(words, stdin=source, capture_output=True, timeout=LIMIT)
            took = time.monotonic() - began
        if done.returncode != 0:
            raise SystemExit(f"push into {server.name} failed with {done.returncode}: {done.stderr!r} {done.stdout!r}")
        return took

    def session(self, server):
        """Logs in and has `cat` answer once; gives the ssh that stays, with its stdin and stdout."""
        words = [*self.words(server), f"{USER.pw_name}@127.0.0.1", "cat"]
        one = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        one.stdin.write(b"x")
        one.stdin.flush()
        if one.stdout.read(1) != b"x":
            raise SystemExit(f"a session at {server.name} does not answer")
        return one

    def login(self, server, kex=None):
        """Logs in and runs a command that does nothing; gives the seconds it took."""
        words = [*self.words(server, kex=kex), f"{USER.pw_name}@127.0.0.1", "true"]
        began = time.monotonic()
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
        took = time.monotonic() - began
        if done.returncode != 0:
            raise SystemExit(f"login at {server.name} failed with {done.returncode}: {done.stderr!r}")
        return took
