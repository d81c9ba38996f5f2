"""Power cuts: what is on the disk after one, at any moment of a board's work.

The disk after the first entries of QEMU's write log is the disk after a power cut; writes that no flush has
followed may be lost besides, whole or by sector. Each such state is judged by what a user would find: `myelin
firmware status` reads the slot table from it, mtools, e2fsck and debugfs what the slots and /data hold, and a
sample is started for real. What the board has promised to its user by then must be there.
"""

import json
import random
import shutil
import subprocess
import time
import zlib
from collections import Counter

import firmware
from board import Board, BoardError, host_myelin, layout
from steps import DONE, validate
from writelog import DISCARD, FLUSH, FUA, SECTOR, Disk, Layer, entries, length

LAYOUT = layout()
# So many bad states are enough to see what is wrong.
MANY = 20


def region(name, count):
    return range(LAYOUT[name], LAYOUT[name] + LAYOUT[count])


WHOLE = range((512 << 20) // SECTOR)
DATA = range(LAYOUT["DATA"], WHOLE.stop)
COPIES = [region(copy, "ENV_COUNT") for copy in ("ENV_A", "ENV_B")]
BOOT = {slot: region(f"BOOT_{slot.upper()}", "BOOT_COUNT") for slot in "ab"}
ROOT = {slot: region(f"ROOT_{slot.upper()}", "ROOT_COUNT") for slot in "ab"}
# The start script's own questions, asked of an image file.
SCRIPT = (firmware.TOP / "buildroot-package/package/myelin/myelin-data").read_text()
QUESTIONS = SCRIPT[:SCRIPT.index("\nis_mounted && exit")] + '\nDEVICE=$2\n"$1"\n'
HOST_KEY = "/myelin/ssh/ssh_host_ed25519_key"
ADDED_KEYS = "/myelin/ssh/authorized_keys"


class Record:
    """A board's first start, a key added, and updates: what it wrote, and what it promised when."""

    def __init__(self, updates):
        self.base, disk = firmware.disk("cut-base"), firmware.disk("cut-run")
        self.log = firmware.FOLDER / "cut.log"
        self.versions = ["1.0.0"] + [f"2.{number}.0" for number in range(updates)]
        self.promises = []  # (entries in the log by then, what)
        added = firmware.make_key("added")
        started = time.monotonic()
        with Board(disk, firmware.FOLDER, firmware.KEY, write_log=self.log) as board:
            board.up("a", "1.0.0")
            self.host_key = board.ssh(f"cat /data{HOST_KEY}")
            self.promise("host key")
            with open(f"{added}.pub") as public:
                board.ssh("myelin keys add -", stdin=public)
            self.promise("added key")
            self.added_keys = board.ssh(f"cat /data{ADDED_KEYS}")
            for number, version in enumerate(self.versions[1:]):
                code, words = board.upload(firmware.good(version))
                assert code == DONE, words
                self.promise("installed", version)
                board.up("ba"[number % 2], version)
                validate(board)
                self.promise("validated", version)
            self.known_hosts = board.known_hosts.read_bytes()
        disk.unlink()
        self.entries = length(self.log)
        print(f"  recorded in {time.monotonic() - started:.0f} s: {self.entries} entries, "
              f"{self.log.stat().st_size >> 20} MiB", flush=True)

    def promise(self, *what):
        self.promises.append((length(self.log), *what))

    def promised(self, count):
        """What the user knew when the log had that many entries."""
        return [what for entries_by_then, *what in self.promises if entries_by_then <= count]


class Replay:
    """The disk after each entry of a record, and after each of some random losses."""

    def __init__(self, record, states, boots, seed, progress):
        self.record, self.boots, self.progress = record, boots, progress
        self.samples = samples_for(states, record.log)
        self.random = random.Random(seed)
        self.disk = Disk(firmware.disk("cut-state"))
        self.judge = Judge(self.disk, record)
        self.kinds, self.bad, self.kept, self.booted = Counter(), [], [], 0

    def run(self):
        started = time.monotonic()
        for entry, pending, written in replay(self.record.log):
            for write in written:
                self.disk.write(write)
                self.judge.changed(write)
            if entry.flags & DISCARD:
                self.disk.discard(entry)
                self.judge.changed(entry)
            self.disk.top = [Layer(write) for write in pending]
            self.look(entry.number, "all written")
            for sample in range(losses(pending, self.samples)):
                self.disk.top = some_of(pending, self.random)
                self.look(entry.number, f"loss {sample}")
            self.tell()
            if len(self.bad) > MANY:
                break
        self.disk.top = []
        print(f"  {self.states()} states judged in {time.monotonic() - started:.0f} s, {len(self.bad)} bad; "
              f"{self.judge.looks} times /data was looked at", flush=True)
        for kind, number in sorted(self.kinds.items()):
            print(f"    {number:5}  {kind}", flush=True)
        # From the first kind to the last; those in between are what an update leaves.
        step = max(1, (len(self.kept) - 1) / max(1, self.boots - 1))
        started = {round(number * step) for number in range(self.boots)}
        for number, (path, kind, promised) in enumerate(self.kept):
            if number in started:
                self.start(path, kind, promised)
                self.booted += 1
                self.tell()
            path.unlink(missing_ok=True)
        self.disk.path.unlink()
        assert not self.bad, f"{len(self.bad)} states are bad, such as: " + "; ".join(text for _, text in self.bad[:5])

    def states(self):
        return sum(self.kinds.values()) + len(self.bad)

    def tell(self):
        self.progress.tell(states=self.states(), booted=self.booted, faults=self.bad, kinds=self.kinds,
                           entries=self.record.entries, updates=len(self.record.versions) - 1)

    def look(self, count, loss):
        promised = self.record.promised(count)
        try:
            kind = self.judge.kind(promised)
        except Bad as bad:
            self.bad.append((bad.kind, f"after entry {count}, {loss}: {bad}"))
            return
        self.kinds[kind] += 1
        if self.kinds[kind] == 1:
            path = firmware.FOLDER / f"cut-boot-{len(self.kept)}.img"
            self.disk.extract(WHOLE, path)
            self.kept.append((path, kind, promised))

    def start(self, path, kind, promised):
        """A real start of that state: SSH answers, with the host key and for the keys that were promised."""
        known = ["host key"] in promised
        with Board(path, firmware.FOLDER, firmware.KEY) as board:
            board.known_hosts.write_bytes(self.record.known_hosts if known else b"")
            try:
                seconds, slot, version = board.up()
                board.ssh("true")
                if ["added key"] in promised:
                    board.key = firmware.FOLDER / "added"
                    board.ssh("true")
            except BoardError as error:
                self.bad.append(("device", f"the start of {kind}: {error}"))
                return
            print(f"    started slot {slot} with {version} in {seconds:.1f} s: {kind}", flush=True)


def replay(log):
    """Each entry, the writes since the last flush, and those that this one has made safe."""
    pending = []
    for entry in entries(log):
        written = []
        if entry.flags & FLUSH:
            written, pending = pending, []
        if entry.data:
            pending.append(entry)
        yield entry, pending, written


def losses(pending, samples):
    """How many losses after an entry: more while an environment is under way, where one does most harm."""
    if any(entry.sector < LAYOUT["COMMON"] for entry in pending):
        return 4 * samples
    return samples if pending else 0


def samples_for(states, log):
    """So that there are as many states as are wanted, or a few more."""
    without, of_one = 0, 0
    for _, pending, _ in replay(log):
        without += 1
        of_one += losses(pending, 1)
    return max(1, -(-(states - without) // of_one))


def some_of(written, chance):
    """These writes without some that are lost: whole ones, or single sectors of them. FUA writes are never lost."""
    fates = ((entry, 0.0 if entry.flags & FUA else chance.random()) for entry in written)
    return [Layer(entry, 0 if fate < 0.4 else chance.getrandbits(entry.count)) for entry, fate in fates if fate < 0.8]


class Bad(Exception):
    """A state that a board must never be in, and what is lost in it."""

    def __init__(self, text, kind="device"):
        super().__init__(text)
        self.kind = kind


class Judge:
    """Says of what kind a state is, or that it is bad. Looks only at what has changed since the last one."""

    def __init__(self, disk, record):
        self.disk, self.record = disk, record
        self.folder = firmware.FOLDER / "judge"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        image, table = self.folder / "environment", self.folder / "fw_env.config"
        self.environment = image
        table.write_text("".join(f"{image} {copy.start * SECTOR:#x} {len(copy) * SECTOR:#x}\n" for copy in COPIES))
        self.config = self.folder / "config.toml"
        self.config.write_text(f'state_dir = "{self.folder}/state"\nruntime_dir = "{self.folder}/run"\n'
                               f'[firmware]\nenv_config = "{table}"\n')
        self.versions = Counter()  # of each region: how often it has changed
        self.cache = {}
        self.looks = 0

    def changed(self, entry):
        for name, sectors in REGIONS.items():
            if entry.touches(sectors):
                self.versions[name] += 1

    def kind(self, promised):
        copies = [self.disk.read(copy) for copy in COPIES]
        whole = sum(zlib.crc32(copy[5:]) == int.from_bytes(copy[:4], "little") for copy in copies)
        status = self.once(("status", *copies), self.status, copies)
        slot = status["next"]
        if status["problem"] or slot not in ("a", "b"):
            raise Bad(f"no slot table: {status}")
        trial = status["slots"][slot]["validated"] is not True
        for used in "ab":
            # What comes next, what a trial goes back to, and what `myelin firmware revert` would go to.
            if trial or used == slot or status["slots"][used]["validated"]:
                self.slot_is_complete(used, status["slots"][used]["version"])
        version, installed = status["slots"][slot]["version"], self.record.versions
        known = [what[1] for what in promised if what[0] == "installed"]
        if known and installed.index(version) < installed.index(known[-1]):
            raise Bad(f"{known[-1]} was installed, and {version} comes next")
        if trial and (version == "1.0.0" or ["validated", version] in promised):
            raise Bad(f"{version} was validated and is on trial again")
        data = self.once(("data", *self.stamp("DATA")), self.data)
        self.promised_data(data, promised)
        found = "no file system yet" if data is None else " and ".join(
            name for name, content in zip(("host key", "added keys"), data) if content) or "no keys yet"
        return f"{version} in {slot}{' on trial' if trial else ''}, {whole} good copies, /data: {found}"

    def once(self, key, judge, *arguments):
        if key not in self.cache:
            self.cache[key] = judge(*arguments)
        return self.cache[key]

    def stamp(self, name):
        return self.versions[name], *((layer.entry.number, layer.lost) for layer in self.disk.on_top(REGIONS[name]))

    def status(self, copies):
        with open(self.environment, "wb") as image:
            for sectors, copy in zip(COPIES, copies):
                image.seek(sectors.start * SECTOR)
                image.write(copy)
        command = [host_myelin(), "firmware", "status", "--json", "--config", str(self.config)]
        return json.loads(subprocess.check_output(command))

    def slot_is_complete(self, slot, version):
        stamp = self.stamp(f"BOOT_{slot}"), self.stamp(f"ROOT_{slot}")
        missing = self.once(("slot", slot, version, *stamp), self.missing_in_slot, slot, version)
        if missing:
            raise Bad(f"slot {slot} with {version} may be started, and {missing} is not complete")

    def missing_in_slot(self, slot, version):
        boot = self.folder / "boot"
        self.disk.extract(BOOT[slot], boot)
        for name in "Image", "initrd.img":
            found = subprocess.run(["mtype", "-i", boot, f"::{name}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if found.stdout != (firmware.FOLDER / name).read_bytes():
                return name
        root = (firmware.FOLDER / f"rootfs-{version}.squashfs").read_bytes()
        start = ROOT[slot].start
        found = self.disk.read(range(start, start + -(-len(root) // SECTOR)))
        return None if found[:len(root)] == root else "the root file system"

    def data(self):
        """Host key and added keys as they are after the repair at the start; None: a new disk."""
        self.looks += 1
        image = self.folder / "data"
        self.disk.extract(DATA, image)
        def is_so(question):
            return subprocess.run(["sh", "-c", QUESTIONS, "myelin-data", question, image]).returncode == 0

        if is_so("is_new") or is_so("was_never_mounted"):
            return None
        for how in "-p", "-y":
            repaired = subprocess.run(["e2fsck", how, image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if repaired.returncode <= 2:
                break
        else:
            if repaired.returncode == 8 and is_so("is_beyond_repair"):
                return None
            raise Bad(f"/data cannot be repaired: {repaired.stdout.decode().splitlines()[-1:]}")
        return tuple(subprocess.run(["debugfs", "-R", f"cat {path}", image], stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, check=True).stdout.decode("utf-8", "replace")
                     for path in (HOST_KEY, ADDED_KEYS))

    def promised_data(self, data, promised):
        host_key, added_keys = data or ("", "")
        for name, found, whole in (("host key", host_key, self.record.host_key),
                                   ("added key", added_keys, self.record.added_keys)):
            if found != whole and (found or [name] in promised):
                raise Bad(f"the {name} is {found!r}", name)


REGIONS = {"DATA": DATA}
REGIONS |= {f"BOOT_{slot}": sectors for slot, sectors in BOOT.items()}
REGIONS |= {f"ROOT_{slot}": sectors for slot, sectors in ROOT.items()}


def run(updates, states, boots, seed, progress):
    """Fails when a state is bad."""
    Replay(Record(updates), states, boots, seed, progress).run()
