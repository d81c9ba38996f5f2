"""A mount namespace in which root's home is empty and its shell is /bin/sh.

sshd and dropbear take home and shell from /etc/passwd. A ~/.bashrc that runs at each login would be
measured instead of them, and dropbear reads its keys from the home alone. Nothing outside changes.
"""

import os
import subprocess
import sys

INSIDE = "MYELIN_BENCH_NAMESPACE"


def enter():
    """Starts this program again in a namespace of its own; without root it goes on as it is."""
    if os.getuid() != 0 or INSIDE in os.environ:
        return
    works = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    if works:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable] + sys.argv)


def plain_home(work, authorized_keys):
    """Gives root a home in `work` with this key. Returns whether that is so."""
    if INSIDE not in os.environ:
        return False
    home = os.path.join(work, "home")
    os.makedirs(os.path.join(home, ".ssh"), mode=0o700)
    with open(authorized_keys) as source, open(os.path.join(home, ".ssh/authorized_keys"), "w") as f:
        f.write(source.read())
    os.chmod(os.path.join(home, ".ssh/authorized_keys"), 0o600)
    lines = []
    with open("/etc/passwd") as f:
        for line in f.read().splitlines():
            fields = line.split(":")
            if fields[0] == "root":
                fields[5:7] = [home, "/bin/sh"]
            lines.append(":".join(fields))
    passwd = os.path.join(work, "passwd")
    with open(passwd, "w") as f:
        f.write("\n".join(lines) + "\n")
    return subprocess.run(["mount", "--bind", passwd, "/etc/passwd"]).returncode == 0
