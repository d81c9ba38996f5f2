"""What /proc says of a server: its processes, their CPU time and their memory."""

import os
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(name, parent, CPU ticks of the process and of the children it has waited for)."""
    with open(f"/proc/{pid}/stat") as file:
        text = file.read()
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return name, int(fields[1]), sum(int(field) for field in fields[11:15])


def tree(root):
    """The living processes under `root`, itself first: {pid: (name, ticks)}."""
    everyone = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                everyone[int(entry)] = _stat(entry)
            except (FileNotFoundError, ProcessLookupError):
                pass
    found = {}
    new = [root] if root in everyone else []
    while new:
        for pid in new:
            found[pid] = (everyone[pid][0], everyone[pid][2])
        new = [pid for pid, (_, parent, _) in everyone.items() if parent in found and pid not in found]
    return found


def cpu_seconds(root):
    """CPU time of the server so far, with everything it has started and waited for."""
    return sum(ticks for _, ticks in tree(root).values()) / TICKS


def memory(pid):
    """Rss, Pss and Private_Dirty of one process in KiB (smaps_rollup, proc(5))."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            words = line.split()
            if words[0] in ("Rss:", "Pss:", "Private_Dirty:"):
                found[words[0][:-1]] = int(words[1])
    return found


def tree_memory(root, leave_out=("sink",)):
    """Memory of all processes of a server together."""
    total = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}
    for pid, (name, _) in tree(root).items():
        if name in leave_out:
            continue
        try:
            one = memory(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        for key in total:
            total[key] += one.get(key, 0)
    return total


def resident(pid, field="VmRSS"):
    """VmRSS or VmHWM (the peak) in KiB (proc(5))."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def forget_peak(pid):
    """Makes VmHWM begin again at what is resident now (proc_pid_clear_refs(5))."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


class PeakMemory:
    """Samples the memory of a server until it is left; `peak` has the largest sums seen."""

    def __init__(self, root, interval=0.02):
        self.root, self.interval = root, interval
        self.peak = {"Rss": 0, "Pss": 0}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.ended.wait(self.interval):
            now = tree_memory(self.root)
            for key in self.peak:
                self.peak[key] = max(self.peak[key], now[key])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def settle(root, processes, limit=5.0):
    """Waits until nothing but the idle server is left, which has so many processes."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if len(tree(root)) <= processes:
            return
        time.sleep(0.01)
