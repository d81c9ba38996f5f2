"""What the tests install: the first disk, and updates of every kind, good and bad."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "image"))
from board import copy_disk, host_myelin, layout  # noqa: E402

FOLDER = Path(os.environ.get("QEMU_TEST_OUT", TOP / "target/qemu"))
KEY = FOLDER / "key"
NO_SSH = "#!/bin/sh\n# Myelin is not started: nobody can log in.\n"


def prepare():
    """The disk with 1.0.0 in slot a, and the key that opens it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_key("key")
    run("build.sh", "1.0.0")


def make_key(name):
    path = FOLDER / name
    if not path.exists():
        subprocess.check_call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path])
    return path


def disk(name):
    """A new copy of that disk."""
    path = FOLDER / f"{name}.img"
    copy_disk(FOLDER / "disk.img", path)
    Path(f"{path}.known_hosts").unlink(missing_ok=True)
    return path


def good(version):
    """Waits to be validated by hand, so that a test can come before that."""
    return firmware(version, EXTRA=waits_for_us())


def waits_for_us():
    return extra("manual", 'gates = ["manual"]')


def validates_itself(version):
    """As it comes: valid as soon as somebody can log in."""
    return firmware(version)


def never_well(version):
    """Its health program never says that it is well."""
    return firmware(version, EXTRA=extra("never-well", 'gates = ["health"]\nhealth = ["/bin/false"]\ntime_limit = "25s"'))


def extra(name, validation):
    """Files that lie over the root file system."""
    folder = FOLDER / f"extra-{name}"
    config = folder / "etc/myelin/conf.d/50-validation.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"[firmware.validation]\n{validation}\n")
    return folder


def root_of_another():
    """For firmware whose root file system is never reached: saves the making of one."""
    return FOLDER / "rootfs-1.0.0.squashfs"


def bad_kernel(version):
    """U-Boot refuses to start its kernel."""
    path = FOLDER / "bad-kernel"
    path.write_bytes(bytes(1 << 20))
    return firmware(version, KERNEL=path, ROOTFS=root_of_another())


def panics(version):
    """The kernel starts and panics, for its initramfs is empty and it finds no root file system."""
    path = FOLDER / "empty.initrd"
    with path.open("wb") as archive:
        subprocess.run("cpio -o --quiet -H newc < /dev/null | gzip", shell=True, stdout=archive, check=True)
    return firmware(version, INITRAMFS=path, ROOTFS=root_of_another())


def mute(version):
    """Comes up, but nobody can log in."""
    folder = extra("mute", "gates = []")
    script = folder / "etc/init.d/S50myelin"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(NO_SSH)
    script.chmod(0o755)
    return firmware(version, EXTRA=folder)


def read_only_data(version):
    """Mounts /data so that nothing can be written there."""
    folder = FOLDER / "extra-read-only"
    script = folder / "etc/default/myelin-data"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text((TOP / "image/root/etc/default/myelin-data").read_text() + "OPTIONS=ro\n")
    return firmware(version, EXTRA=folder)


def too_large(version):
    """Its root file system does not fit the slot: what is said when that is to be made into a firmware."""
    try:
        run("firmware.sh", version, FOLDER / "too-large.fw", stdout=subprocess.PIPE, ROOTFS=larger_than_its_slot())
        return ""
    except subprocess.CalledProcessError as error:
        return error.stdout.decode()


def for_larger_slots(version):
    """Made without a look at the slots, so that it would be written over what follows its own."""
    board = FOLDER / "careless-board"
    shutil.rmtree(board, ignore_errors=True)
    shutil.copytree(TOP / "buildroot-package/board", board)
    path = board / "qemu_aarch64/fwup.conf"
    path.write_text(path.read_text().replace("assert-size-lte = ${ROOT_COUNT}", ""))
    return firmware(version, ROOTFS=larger_than_its_slot(), IMAGE_BOARD=board)


def larger_than_its_slot():
    path = FOLDER / "too-large"
    with path.open("wb") as root:
        root.write(os.urandom(512))
        root.truncate(layout()["ROOT_COUNT"] * 512 + (4 << 20))
    return path


def signing_keys(name):
    """A pair of them: the path of the secret one."""
    path = FOLDER / f"{name}.priv"
    if not path.exists():
        subprocess.check_call([host_myelin(), "fwup", "-g", "-o", FOLDER / name], stdout=subprocess.DEVNULL)
    return path


def public_key():
    return signing_keys("signing").with_suffix(".pub").read_text().strip()


def signed_by_another(file):
    path = file.with_suffix(".signed.fw")
    subprocess.check_call([host_myelin(), "fwup", "-S", "-s", signing_keys("another"), "-i", file, "-o", path])
    return path


def other_platform(version):
    """For some other board, and the same otherwise."""
    return firmware(version, PLATFORM="toaster", ROOTFS=root_of_another())


def firmware(version, **settings):
    """Made once in a run."""
    path = FOLDER / f"myelin-{version}.fw"
    if path not in made:
        run("firmware.sh", version, path, **settings)
        made.add(path)
    return path


made = set()


def run(script, *arguments, stdout=None, **settings):
    environment = os.environ | {"IMAGE_OUT": str(FOLDER), "AUTHORIZED_KEYS": f"{KEY}.pub", "MYELIN": host_myelin()}
    environment |= {name: str(value) for name, value in settings.items()}
    subprocess.run([TOP / "image" / script, *arguments], env=environment, check=True, stdout=stdout)
