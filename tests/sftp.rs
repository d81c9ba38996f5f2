//! Files over SSH with the programs that people use for it: sftp, scp, sshfs, psftp, paramiko, asyncssh.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::transfer::{client, described, new_tree, succeeded};
use common::{
    Device, descendants, descriptors, pipe_into, random_bytes, signal, status_kib, text, wait_at_most,
    wait_until,
};

/// The same daemon with OpenSSH's server behind the name `sftp`: what it passes, the test may ask for.
const REFERENCE: &str = "[ssh.subsystem]\nsftp = \"/usr/lib/openssh/sftp-server\"";

/// What a transfer may add to the worker: the queues of one connection, and what the allocator keeps of them.
const GROWTH_KIB: u64 = 16 << 10;

fn both() -> [(&'static str, Device); 2] {
    [("ours", Device::start("", "")), ("OpenSSH's", Device::start("", REFERENCE))]
}

/// Runs commands of sftp(1), which ends at the first that fails.
fn sftp(device: &Device, options: &[&str], batch: &str) -> Output {
    let options = [options, &["-b", "-"]].concat();
    pipe_into(client(device, "sftp", &options).arg("root@127.0.0.1"), batch.as_bytes())
}

#[test]
fn sftp_does_what_its_users_know() {
    for (name, device) in both() {
        let (local, remote) = (device.path("local"), device.path("remote"));
        fs::create_dir(&remote).unwrap();
        let big = random_bytes(5 << 20, 2);
        fs::write(&local, &big).unwrap();
        let (here, there) = (local.display(), remote.display());
        let batch = format!(
            "cd {there}\npwd\nmkdir d\nput {here} d/file\nln -s file d/link\nln d/file d/hard\nls -la d\n\
             chmod 640 d/file\nrename d/hard d/renamed\nget d/link {here}.back\ndf -h d\ncopy d/file d/copy\n\
             rm d/renamed\nmkdir d/sub\nrmdir d/sub\nput -p {here} d/kept\n-rename d/kept d/none/x\n\
             !true\n"
        );
        let output = sftp(&device, &[], &batch);
        succeeded(&output, name);
        let said = text(&output.stdout);
        assert!(said.contains(&format!("Remote working directory: {there}")), "{name}: {said}");
        assert!(said.contains("d/link") && said.contains("-rw-r--r--"), "{name}: {said}");
        assert!(said.contains("%Capacity"), "{name}: {said}");
        for file in ["d/file", "d/copy", "d/kept"] {
            assert!(fs::read(remote.join(file)).unwrap() == big, "{name}: {file}");
        }
        assert!(fs::read(device.path("local.back")).unwrap() == big, "{name}");
        assert_eq!(fs::read_link(remote.join("d/link")).unwrap(), Path::new("file"), "{name}");
        assert_eq!(
            fs::metadata(remote.join("d/file")).unwrap().permissions().mode() & 0o777,
            0o640,
            "{name}"
        );
        assert!(!remote.join("d/renamed").exists() && !remote.join("d/sub").exists(), "{name}");

        for (command, expected) in [
            ("get /no/such/file", "not found"),
            ("cd /no/such/folder", "No such file"),
            ("mkdir /proc/new", "o"),
            (&format!("put {here} /dev/full"), "Failure"),
            ("rmdir /", "Failure"),
        ] {
            let output = sftp(&device, &[], command);
            assert_eq!(output.status.code(), Some(1), "{name}: {command}");
            assert!(text(&output.stderr).contains(expected), "{name}: {command}: {}", text(&output.stderr));
        }
        device.assert_reachable();
    }
}

#[test]
fn relative_paths_begin_where_the_configuration_says() {
    let place = |device: &Device| text(&sftp(device, &[], "pwd").stdout);
    assert!(place(&Device::start("", "")).contains("directory: /\n"));
    let device = Device::start("sftp_start = \"/usr\"", "");
    assert!(place(&device).contains("directory: /usr\n"));
    let home = text(&device.run("cd; pwd -P").stdout);
    assert!(place(&Device::start("sftp_start = \"~\"", "")).contains(&format!("directory: {home}")));
    assert!(place(&Device::start("sftp_start = \"/no/such\"", "")).contains("directory: /\n"));
}

#[test]
fn scp_copies_trees_both_ways() {
    for (name, device) in both() {
        let (source, there, back) = (device.path("source"), device.path("there"), device.path("back"));
        new_tree(&source);
        let scp = |from: &str, to: &str| client(&device, "scp", &["-rpq"]).args([from, to]).output().unwrap();
        let remote = |path: &Path| format!("root@127.0.0.1:{}", path.display());
        succeeded(&scp(source.to_str().unwrap(), &remote(&there)), name);
        assert_eq!(described(&there), described(&source), "{name}: up");
        succeeded(&scp(&remote(&there), back.to_str().unwrap()), name);
        assert_eq!(described(&back), described(&source), "{name}: down");
        let through = device.path("through");
        let mut between = client(&device, "scp", &["-3", "-rpq"]);
        succeeded(&between.args([remote(&there), remote(&through)]).output().unwrap(), name);
        assert_eq!(described(&through), described(&source), "{name}: between two devices");
        let missing = scp(&remote(Path::new("/no/such")), back.to_str().unwrap());
        assert_eq!(missing.status.code(), Some(1), "{name}");
        assert!(text(&missing.stderr).contains("No such file"), "{name}: {}", text(&missing.stderr));
    }
}

#[test]
fn many_requests_at_once_are_all_answered() {
    for (name, device) in both() {
        device.assert_reachable();
        let before = status_kib(device.worker(), "VmHWM");
        let big = random_bytes(96 << 20, 3);
        let (local, remote) = (device.path("local"), device.path("remote"));
        fs::write(&local, &big).unwrap();
        let batch = format!("put {0} {1}\nget {1} {0}.back\n", local.display(), remote.display());
        succeeded(&sftp(&device, &["-R", "512", "-B", "32768"], &batch), name);
        assert!(fs::read(&remote).unwrap() == big, "{name}: up");
        assert!(fs::read(device.path("local.back")).unwrap() == big, "{name}: down");
        let growth = status_kib(device.worker(), "VmHWM") - before;
        assert!(growth < GROWTH_KIB, "{name}: the worker grew by {growth} KiB");
    }
}

#[test]
fn a_configured_root_cannot_be_left() {
    let (folder, public) = common::new_folder();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("in")).unwrap();
    fs::write(folder.path().join("secret"), "outside").unwrap();
    fs::write(root.join("file"), "inside").unwrap();
    symlink("/etc/passwd", root.join("passwd")).unwrap();
    symlink("../../secret", root.join("in/up")).unwrap();
    let settings = format!("sftp_root = {:?}\nsftp_start = \"/in\"", root.display());
    let device = Device::start_in(folder, &public, &settings, "");
    let output = sftp(&device, &[], "pwd\ncd ../..\npwd\nls -a\n");
    succeeded(&output, "a look around");
    let said = text(&output.stdout);
    assert!(said.contains("directory: /in\n") && said.contains("directory: /\n"), "{said}");
    assert!(said.contains("file") && !said.contains("secret"), "{said}");
    let to = device.path("got");
    for path in ["/etc/passwd", "/passwd", "/in/up", "../../secret", "up"] {
        let output = sftp(&device, &[], &format!("get {path} {}", to.display()));
        assert!(!output.status.success() && !to.exists(), "{path}");
        let output = client(&device, "scp", &["-q"]).arg(format!("root@127.0.0.1:{path}")).arg(&to).output();
        assert!(!output.unwrap().status.success() && !to.exists(), "{path} by scp");
    }
    let put = format!(
        "put {} ../../../put\nln -s ../../.. up2\nput {0} up2/put2\n",
        device.path("config.toml").display()
    );
    succeeded(&sftp(&device, &[], &put), "put");
    assert!(root.join("put").exists() && root.join("put2").exists());
    assert!(!device.path("put").exists() && !device.path("put2").exists());
}

#[test]
fn a_root_that_is_missing_is_not_replaced_by_everything() {
    let device = Device::start("sftp_root = \"/no/such/root\"", "");
    let output = sftp(&device, &[], "ls");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("sftp_root"), "{}", text(&output.stderr));
    device.assert_reachable();
}

#[test]
fn read_only_and_the_mask_are_those_of_the_configuration() {
    let device = Device::start("sftp_read_only = true", "");
    let file = device.path("file");
    fs::write(&file, "content").unwrap();
    let path = file.display();
    for command in [
        format!("put {path} {path}.new"),
        format!("rm {path}"),
        format!("rename {path} {path}.new"),
        format!("chmod 777 {path}"),
        format!("mkdir {path}.new"),
        format!("ln -s x {path}.new"),
        format!("ln {path} {path}.new"),
    ] {
        let output = sftp(&device, &[], &command);
        assert!(!output.status.success(), "{command}");
        assert!(text(&output.stderr).contains("ermission denied"), "{command}: {}", text(&output.stderr));
    }
    succeeded(&sftp(&device, &[], &format!("get {path} {path}.got")), "reading");
    assert_eq!(fs::read(&file).unwrap(), b"content");

    let device = Device::start("sftp_umask = \"077\"", "");
    let (file, new) = (device.path("file"), device.path("new"));
    fs::write(&file, "content").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    succeeded(&sftp(&device, &[], &format!("put {} {}\n", file.display(), new.display())), "put");
    assert_eq!(fs::metadata(new).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn it_can_be_switched_off_and_have_other_names() {
    let device = Device::start("sftp = false", "");
    let output = sftp(&device, &[], "pwd");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("subsystem request failed"), "{}", text(&output.stderr));
    let device = Device::start("sftp = false", "[ssh.subsystem]\nfiles = \"internal-sftp\"");
    succeeded(&sftp(&device, &["-s", "files"], "pwd"), "another name");
}

fn spawn_get(device: &Device, remote: &Path, local: &Path) -> Child {
    client(device, "scp", &["-q"])
        .arg(format!("root@127.0.0.1:{}", remote.display()))
        .arg(local)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Pids of the SFTP servers that the worker has started.
fn servers(device: &Device) -> Vec<u32> {
    let all = descendants(device.worker());
    all.into_iter().filter(|(_, line)| line.contains("sftp-server")).map(|(pid, _)| pid).collect()
}

#[test]
fn a_slow_reader_costs_nothing_and_gets_everything() {
    let device = Device::start("", "");
    device.assert_reachable();
    let before = status_kib(device.worker(), "VmHWM");
    let big = random_bytes(64 << 20, 4);
    let (remote, local) = (device.path("remote"), device.path("local"));
    fs::write(&remote, &big).unwrap();
    // ssh is stopped, and with it everything that reads from the device.
    let mut scp = spawn_get(&device, &remote, &local);
    wait_until("the transfer is under way", || fs::metadata(&local).is_ok_and(|file| file.len() > 0));
    let stopped: Vec<u32> = descendants(scp.id()).into_iter().map(|(pid, _)| pid).collect();
    stopped.iter().for_each(|pid| signal(*pid, "STOP"));
    sleep(Duration::from_secs(3));
    let growth = status_kib(device.worker(), "VmHWM") - before;
    let peaks: Vec<u64> = servers(&device).iter().map(|pid| status_kib(*pid, "VmHWM")).collect();
    stopped.iter().for_each(|pid| signal(*pid, "CONT"));
    assert!(scp.wait().unwrap().success());
    assert!(fs::read(&local).unwrap() == big);
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB");
    assert!(peaks.iter().all(|&peak| peak < 16 << 10), "the servers used {peaks:?} KiB");
}

#[test]
fn nothing_is_left_of_a_client_that_was_killed() {
    let device = Device::start("", "");
    device.assert_reachable();
    let worker = device.worker();
    wait_until("the worker is idle", || descendants(worker).is_empty());
    let before = descriptors(worker);
    let (remote, local) = (device.path("remote"), device.path("local"));
    fs::File::create(&remote).unwrap().set_len(4 << 30).unwrap();
    for upload in [false, true] {
        let target = if upload { &local } else { &remote };
        let mut scp = if upload {
            fs::remove_file(&local).unwrap();
            let mut scp = client(&device, "scp", &["-q"]);
            scp.arg(&remote)
                .arg(format!("root@127.0.0.1:{}", local.display()))
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        } else {
            spawn_get(&device, target, &local)
        };
        wait_until("the transfer is under way", || {
            fs::metadata(&local).is_ok_and(|file| file.len() > 1 << 20)
        });
        assert_eq!(servers(&device).len(), 1);
        let ssh: Vec<u32> = descendants(scp.id()).into_iter().map(|(pid, _)| pid).collect();
        ssh.iter().for_each(|pid| signal(*pid, "KILL"));
        scp.kill().unwrap();
        scp.wait().unwrap();
        wait_at_most(Duration::from_secs(20), "its server is gone", &mut || descendants(worker).is_empty());
        wait_at_most(Duration::from_secs(20), "descriptors are closed", &mut || {
            descriptors(worker) <= before
        });
    }
    device.assert_reachable();
}

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

/// Runs a Python program with Debian's interpreter, which has Debian's packages.
fn python(device: &Device, module: &str, program: &str) -> Output {
    let found =
        Command::new("/usr/bin/python3").args(["-W", "ignore", "-c", &format!("import {module}")]).output();
    assert!(
        found.is_ok_and(|found| found.status.success()),
        "{module} is installed (apt install python3-{module})"
    );
    Command::new("timeout")
        .args(["120", "/usr/bin/python3", "-W", "ignore", "-c", program, &device.port.to_string()])
        .arg(device.path("key"))
        .arg(device.folder.path())
        .output()
        .unwrap()
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
        let key = device.path("key.ppk");
        let made = Command::new("puttygen")
            .env("HOME", device.folder.path())
            .arg(device.path("key"))
            .args(["-O", "private", "-o"])
            .arg(&key)
            .output();
        succeeded(&made.expect("puttygen is installed (apt install putty-tools)"), "puttygen");
        let scan = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(device.path("state/ssh/ssh_host_ed25519_key.pub"))
            .output();
        let fingerprint = text(&scan.unwrap().stdout).split_whitespace().nth(1).unwrap().to_owned();
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

/// A packet of SFTP with its length: a kind, a number, and fields.
fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let length = u32::try_from(fields.len()).unwrap() + 5;
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), &fields].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[test]
fn reading_and_writing_at_once_does_not_get_stuck() {
    // Together less than the spool of one channel holds.
    const ROUNDS: u32 = 4;
    const EACH: u32 = 48;
    const BLOCK: u32 = 255 << 10;
    let device = Device::start("", "");
    device.assert_reachable();
    let before = status_kib(device.worker(), "VmHWM");
    let (file, new) = (device.path("file"), device.path("new"));
    fs::File::create(&file).unwrap().set_len(u64::from(BLOCK)).unwrap();
    let path = |path: &Path| string(path.to_str().unwrap().as_bytes());
    let mut requests = [0, 0, 0, 5, 1, 0, 0, 0, 3].to_vec();
    requests.extend(packet(3, 0, &[&path(&file), &[0, 0, 0, 1], &[0; 4]]));
    requests.extend(packet(3, 1, &[&path(&new), &[0, 0, 0, 2 + 8], &[0; 4]]));
    // The handles are known: nothing else has been opened.
    let (reading, writing) = (string(&[0, 0, 0, 0]), string(&[0, 0, 0, 1]));
    let data = string(&random_bytes(BLOCK as usize, 6));
    for round in 0..ROUNDS {
        for _ in 0..EACH {
            requests.extend(packet(5, 2, &[&reading, &[0; 8], &BLOCK.to_be_bytes()]));
        }
        for n in 0..EACH {
            let offset = u64::from(round * EACH + n) * u64::from(BLOCK);
            requests.extend(packet(6, 2, &[&writing, &offset.to_be_bytes(), &data]));
        }
    }
    let mut client =
        device.ssh_with(&["-s"]).arg("sftp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let received = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(&requests));
        // A client that is busy with something else for a moment.
        sleep(Duration::from_secs(2));
        std::io::copy(&mut output, &mut std::io::sink()).unwrap()
    });
    assert_eq!(client.wait().unwrap().code(), Some(0));
    assert!(received > u64::from(ROUNDS * EACH) * u64::from(BLOCK), "{received} bytes");
    assert_eq!(fs::metadata(&new).unwrap().len(), u64::from(ROUNDS * EACH) * u64::from(BLOCK));
    let growth = status_kib(device.worker(), "VmHWM") - before;
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB");
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
