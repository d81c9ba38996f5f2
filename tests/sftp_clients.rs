//! Files over SSH with programs that are not OpenSSH's.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use common::transfer::{REFERENCE, both, described, for_putty, new_tree, python, succeeded};
use common::{Device, descendants, pipe_into, random_bytes, text, wait_until};

#[test]
fn sshfs_is_a_file_system() {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("SKIPPED: sshfs is not tested, because /dev/fuse cannot be opened here");
        return;
    }
    for (name, device) in both() {
        let (source, remote, mount) = (device.path("source"), device.path("remote"), device.path("mount"));
        new_tree(&source);
        fs::create_dir(&remote).unwrap();
        fs::create_dir(&mount).unwrap();
        let mut sshfs = Command::new("sshfs");
        sshfs.arg(format!("root@127.0.0.1:{}", remote.display())).arg(&mount);
        sshfs.args(["-p", &device.port.to_string()]);
        for option in device.ssh_options().iter().filter(|option| option.contains('=')) {
            sshfs.args(["-o", option]);
        }
        let mounted = sshfs.output().expect("sshfs is installed (apt install sshfs)");
        succeeded(&mounted, name);
        let _unmount = Unmount(mount.clone());
        let script = "cp -a $S $M/tree && echo begin > $M/f && echo end >> $M/f && truncate -s 3 $M/f && \
                      mv $M/f $M/g && echo new > $M/h && mv $M/h $M/g && ln -s g $M/l && cat $M/l && \
                      rmdir \"$M/tree/empty folder\" && mkdir \"$M/tree/empty folder\" && \
                      touch -d '2001-02-03 04:05:06' \"$M/tree/empty folder\" $M/tree && \
                      dd if=/dev/zero of=$M/sparse bs=1 count=1 seek=1G status=none && stat -c %s $M/sparse && \
                      ! mkdir $M/tree && ! cat $M/none && df $M > /dev/null";
        let mut shell = Command::new("timeout");
        shell.args(["120", "sh", "-c", script]).env("S", &source).env("M", &mount);
        let output = shell.output().unwrap();
        succeeded(&output, name);
        assert_eq!(text(&output.stdout), "new\n1073741825\n", "{name}");
        assert_eq!(described(&remote.join("tree")), described(&source), "{name}");
    }
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        for way in [&["-u"][..], &["-uz"]] {
            if Command::new("fusermount3")
                .args(way)
                .arg(&self.0)
                .status()
                .is_ok_and(|status| status.success())
            {
                return;
            }
        }
    }
}

#[test]
fn lftp_lists_copies_and_mirrors() {
    let devices =
        [("ours", Device::start("", "")), ("OpenSSH's", Device::start_sshd("Subsystem sftp internal-sftp"))];
    for (name, device) in &devices {
        let tree = device.path("tree");
        fs::create_dir_all(tree.join("deep/er and deeper")).unwrap();
        fs::write(tree.join("with space"), random_bytes(70_000, 1)).unwrap();
        fs::write(tree.join("deep/er and deeper/big"), random_bytes(3 << 20, 2)).unwrap();
        symlink("big", tree.join("deep/er and deeper/link")).unwrap();
        let here = device.folder.path().display();
        fs::create_dir(device.path("there")).unwrap();
        let script = format!(
            "set sftp:connect-program \"ssh -a -x {options}\"; set net:max-retries 1; set net:timeout 60; \
             set cmd:fail-exit true; open -u root,none sftp://127.0.0.1:{port}; cd {here}/there; \
             put \"{here}/tree/with space\" -o up; get up -o {here}/back; mirror -R {here}/tree copy; \
             mirror copy {here}/returned; mv up renamed; chmod 600 renamed; cls -1; \
             put {here}/back -o gone; rm gone; rm -r copy/deep; pwd",
            options = device.ssh_options().join(" "),
            port = device.port
        );
        let mut lftp = Command::new("timeout");
        lftp.args(["120", "lftp", "--norc", "-c", &script]).env("HOME", device.folder.path());
        let output = lftp.stdin(Stdio::null()).output().unwrap();
        assert_ne!(output.status.code(), Some(127), "lftp is installed (apt install lftp)");
        succeeded(&output, name);
        let said = text(&output.stdout);
        assert!(said.starts_with("copy/\nrenamed\nsftp://") && said.ends_with("/there\n"), "{name}: {said}");
        let same = |one: &str, other: &str| {
            let compared = Command::new("diff")
                .args(["-r", "--no-dereference"])
                .args([device.path(one), device.path(other)])
                .output();
            succeeded(&compared.unwrap(), name);
        };
        same("tree", "returned");
        same("tree/with space", "back");
        same("tree/with space", "there/renamed");
        same("tree/with space", "there/copy/with space");
        assert_eq!(fs::metadata(device.path("there/renamed")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!device.path("there/gone").exists() && !device.path("there/copy/deep").exists(), "{name}");
    }
}

#[test]
fn paramiko_transfers_files() {
    let program = r#"
import io, os, paramiko, sys
port, key, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "root", pkey=paramiko.Ed25519Key.from_private_key_file(key),
               allow_agent=False, look_for_keys=False)
assert client.exec_command("exit 3")[1].channel.recv_exit_status() == 3
sftp = client.open_sftp()
data = os.urandom(7_000_001)
sftp.putfo(io.BytesIO(data), folder + "/up")
back = io.BytesIO()
sftp.getfo(folder + "/up", back)
assert back.getvalue() == data
sftp.chdir(folder)
sftp.mkdir("d", 0o700)
assert sftp.stat("d").st_mode & 0o7777 == 0o700
with sftp.open("d/f", "w+") as file:
    file.write("one two three")
    file.seek(4)
    file.write("TWO")
    file.truncate(7)
with sftp.open("d/f", "a") as file:
    file.write("!")
assert sftp.open("d/f").read() == b"one TWO!"
sftp.symlink("f", "d/l")
assert sftp.readlink("d/l") == "f" and sftp.normalize("d/l") == folder + "/d/f"
sftp.utime("d/f", (5, 6))
sftp.chmod("d/f", 0o640)
assert (sftp.stat("d/f").st_mtime, sftp.stat("d/f").st_mode & 0o777) == (6, 0o640)
assert sorted(sftp.listdir("d")) == ["f", "l"]
sftp.posix_rename("d/f", "d/l")
try:
    sftp.open("d/f")
    raise SystemExit("a missing file was opened")
except FileNotFoundError:
    pass
sftp.remove("d/l")
sftp.rmdir("d")
"#;
    for (name, device) in both() {
        succeeded(&python(&device, "paramiko", program), name);
        assert_eq!(fs::metadata(device.path("up")).unwrap().len(), 7_000_001, "{name}");
    }
}

#[test]
fn asyncssh_transfers_files() {
    let program = r#"
import asyncio, asyncssh, os, sys
port, key, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
async def main():
    async with asyncssh.connect("127.0.0.1", port, username="root", client_keys=[key], known_hosts=None,
                                agent_path=None, config=None) as client:
        assert (await client.run("echo hi; exit 4")).exit_status == 4
        async with client.start_sftp_client() as sftp:
            data = os.urandom(9_000_001)
            open(folder + "/local", "wb").write(data)
            await sftp.put(folder + "/local", folder + "/up", preserve=True)
            await sftp.get(folder + "/up", folder + "/back")
            assert open(folder + "/back", "rb").read() == data
            await sftp.mkdir(folder + "/d")
            await sftp.put(folder + "/local", folder + "/d/f")
            await sftp.link(folder + "/d/f", folder + "/d/h")
            await sftp.symlink("f", folder + "/d/l")
            assert await sftp.readlink(folder + "/d/l") == "f"
            names = sorted(await sftp.listdir(folder + "/d"))
            assert names == [".", "..", "f", "h", "l"], names
            assert (await sftp.statvfs(folder)).bsize > 0
            async with sftp.open(folder + "/d/f", "rb+") as file:
                await file.fsync()
                await file.write(b"x", 5)
                assert await file.read(1, 5) == b"x"
            await sftp.rmtree(folder + "/d")
            try:
                await sftp.stat(folder + "/d")
                raise SystemExit("a removed folder is there")
            except asyncssh.SFTPNoSuchFile:
                pass
asyncio.run(main())
"#;
    // It takes the order of SYMLINK's arguments from the identification.
    let version = "version_string = \"SSH-2.0-Myelin as OpenSSH\"";
    for (name, device) in
        [("ours", Device::start(version, "")), ("OpenSSH's", Device::start(version, REFERENCE))]
    {
        succeeded(&python(&device, "asyncssh", program), name);
    }
}

#[test]
fn psftp_transfers_files() {
    for (name, device) in both() {
        let (key, fingerprint) = for_putty(&device);
        let big = random_bytes(4 << 20, 5);
        fs::write(device.path("local"), &big).unwrap();
        let folder = device.folder.path().display();
        let batch = format!(
            "cd {folder}\nmkdir d\nput {folder}/local d/up\nls d\nchmod 600 d/up\nmv d/up d/moved\n\
             get d/moved {folder}/back\nrm d/moved\nrmdir d\nquit\n"
        );
        let mut psftp = Command::new("psftp");
        psftp.args(["-P", &device.port.to_string(), "-batch", "-hostkey", &fingerprint, "-i"]).arg(&key);
        psftp.env("HOME", device.folder.path()).arg("root@127.0.0.1");
        let output = pipe_into(&mut psftp, batch.as_bytes());
        succeeded(&output, name);
        assert!(fs::read(device.path("back")).unwrap() == big, "{name}: {}", text(&output.stdout));
        assert!(text(&output.stdout).contains("-rw-r--r--"), "{name}: {}", text(&output.stdout));
        assert!(!device.path("d").exists(), "{name}");
    }
}

#[test]
fn rsync_copies_deletes_and_resumes() {
    let device = Device::start("", "");
    let (source, there, back) = (device.path("source"), device.path("there"), device.path("back"));
    new_tree(&source);
    let options = device.ssh_options().join(" ");
    let shell = format!("ssh {options} -p {}", device.port);
    let rsync = |more: &[&str], from: &str, to: &str| {
        let mut command = Command::new("timeout");
        command.args(["120", "rsync", "-a", "-e", &shell]).args(more).args([from, to]);
        command.output().expect("rsync is installed (apt install rsync)")
    };
    let (local, remote) = (format!("{}/", source.display()), format!("root@127.0.0.1:{}/", there.display()));
    succeeded(&rsync(&[], &local, &remote), "up");
    assert_eq!(described(&there), described(&source));
    succeeded(&rsync(&[], &remote, &format!("{}/", back.display())), "down");
    assert_eq!(described(&back), described(&source));
    fs::remove_file(source.join("plain")).unwrap();
    fs::write(source.join("deep/new"), "new").unwrap();
    succeeded(&rsync(&["--delete"], &local, &remote), "--delete");
    assert_eq!(described(&there), described(&source));

    fs::write(source.join("large"), random_bytes(40 << 20, 8)).unwrap();
    let mut first = Command::new("rsync");
    first.args(["-a", "--partial", "--inplace", "--bwlimit=4M", "-e", &shell, &local, &remote]);
    let mut first = first.stderr(Stdio::null()).spawn().unwrap();
    let large = there.join("large");
    wait_until("some has arrived", || fs::metadata(&large).is_ok_and(|file| file.len() > 1 << 20));
    first.kill().unwrap();
    first.wait().unwrap();
    wait_until("its other half is gone", || descendants(device.worker()).is_empty());
    assert!(fs::metadata(&large).unwrap().len() < 40 << 20);
    succeeded(&rsync(&["--partial", "--inplace"], &local, &remote), "resumed");
    assert_eq!(described(&there), described(&source));
}

#[test]
fn curl_transfers_files_with_libssh2() {
    // Of the MACs that libssh2 1.10 has, this is the one that can be allowed; without AES-GCM it needs one.
    let device = Device::start("macs = \"+hmac-sha2-256\"", "");
    let (local, remote) = (device.path("local"), device.path("remote"));
    let big = random_bytes(6_000_001, 10);
    fs::write(&local, &big).unwrap();
    let curl = |more: &[&str], protocol: &str| {
        let mut command = Command::new("curl");
        command.args(["-sSk", "--max-time", "120", "-u", "root:", "--key"]).arg(device.path("key"));
        command.arg("--pubkey").arg(device.path("key.pub")).args(more);
        command.arg(format!("{protocol}://127.0.0.1:{}{}", device.port, remote.display()));
        command.output().expect("curl is installed (apt install curl)")
    };
    succeeded(&curl(&["-T", local.to_str().unwrap()], "sftp"), "up");
    assert!(fs::read(&remote).unwrap() == big);
    for protocol in ["sftp", "scp"] {
        let output = curl(&[], protocol);
        succeeded(&output, protocol);
        assert!(output.stdout == big, "{protocol}: {} bytes", output.stdout.len());
    }
}
