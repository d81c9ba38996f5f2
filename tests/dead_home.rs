//! A home folder on a disk that does not answer, which holds up its own user and nobody else. The disk is one of sshfs
//! that is stopped.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::place::{ADA, by_key, inside, place, ssh};
use common::{Device, new_key, printed_within, signal, text, wait_until};

/// What does not need that disk, while others wait for it.
const SOON: Duration = Duration::from_secs(4);
/// A login waits five seconds for the keys in a home folder, a program ten for its folder.
const LATE: Duration = Duration::from_secs(25);

/// A folder of the device that answers until it is stopped, and again when this ends.
struct Disk {
    sshfs: Child,
    _server: Device,
}

impl Disk {
    fn mount(device: &Device, folder: &str) -> Option<Self> {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("SKIPPED: dead home folders are not tested, because /dev/fuse cannot be opened here");
            return None;
        }
        let server = Device::start("", "");
        let remote = server.path("remote");
        fs::create_dir(&remote).unwrap();
        let mut sshfs = Command::new("nsenter");
        sshfs.args([
            "-t",
            &device.daemon.id().to_string(),
            "-m",
            "sshfs",
            "-f",
            "-o",
            "allow_other,dir_cache=no,attr_timeout=0",
        ]);
        sshfs.args(["-p", &server.port.to_string()]);
        for option in server.ssh_options().iter().filter(|option| option.contains('=')) {
            sshfs.args(["-o", option]);
        }
        sshfs.arg(format!("root@127.0.0.1:{}", remote.display())).arg(folder);
        let sshfs = sshfs.stdin(Stdio::null()).spawn().expect("sshfs is installed (apt install sshfs)");
        let mounts = format!("/proc/{}/mounts", device.daemon.id());
        wait_until("it is mounted", || {
            fs::read_to_string(&mounts).unwrap().contains(&format!(" {folder} fuse"))
        });
        // It stands there before it answers.
        server.wait_for_log("ssh.auth.ok");
        Some(Self { sshfs, _server: server })
    }

    fn stop(&self) {
        signal(self.sshfs.id(), "STOP");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever waits for it gets an error.
        let _ = self.sshfs.kill();
        let _ = self.sshfs.wait();
    }
}

fn assert_soon(what: &str, command: &mut Command, expected: &str) {
    assert_eq!(printed_within(SOON, what, command), expected, "{what}");
}

fn ssh_as(device: &Device, user: &str, command: &str) -> Command {
    let mut client = ssh(device, device.port, user, &[]);
    client.arg(command).stdout(Stdio::piped()).stderr(Stdio::piped());
    client
}

#[test]
fn the_keys_in_it_hold_up_no_other_user_and_no_other_key() {
    let config =
        "user_mode = \"system\"\nauthorized_keys_file = [\"%h/.ssh/authorized_keys\"]\nmax_startups = 50";
    let Some(device) = place("", config, "") else { return };
    let key = device.path("key_of_ada");
    let file = inside(&device, "/home/ada/.ssh/authorized_keys");
    fs::write(&file, new_key(&key)).unwrap();
    chown(&file, Some(ADA), Some(ADA)).unwrap();
    let Some(disk) = Disk::mount(&device, "/home/bob") else { return };
    let worker = device.worker();
    assert_soon("ada with her own key", &mut by_key(&device, device.port, "ada", &key), "ada\n");
    disk.stop();
    // His name is known to strangers too, who can say it as often as they like.
    let waiting: Vec<_> = (0..8).map(|_| ssh_as(&device, "bob", "id -un").spawn().unwrap()).collect();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        assert_soon("ada with her own key", &mut by_key(&device, device.port, "ada", &key), "ada\n");
        assert_soon("root", &mut ssh_as(&device, "root", "id -un"), "root\n");
    }
    // A key of the image lets him in as far as his folder.
    for client in waiting {
        let output = client.wait_with_output().unwrap();
        assert!(text(&output.stderr).contains("its disk does not answer"), "{output:?}");
    }
    drop(disk);
    assert_eq!(device.worker(), worker);
    assert!(ssh_as(&device, "bob", "id -un").output().unwrap().status.success());
}

#[test]
fn it_holds_up_its_own_sessions_only_where_all_names_stand_for_one_user() {
    let Some(device) = place("mkdir /home/far", "", "") else { return };
    let Some(disk) = Disk::mount(&device, "/home/far") else { return };
    // Only now, because sshfs needs its own home.
    let users = fs::read_to_string(device.path("passwd")).unwrap();
    fs::write(device.path("passwd"), users.replace(":/root:", ":/home/far:")).unwrap();
    let worker = device.worker();
    assert_soon("a command", &mut ssh_as(&device, "root", "pwd"), "/home/far\n");
    disk.stop();
    let began = Instant::now();
    let waiting = ssh_as(&device, "root", "pwd").spawn().unwrap();
    let mut status = device.ssh_with(&["-s"]);
    status.arg("myelin-status").stdin(Stdio::null());
    for _ in 0..3 {
        assert!(printed_within(SOON, "the status", &mut status).contains("running"));
    }
    let output = waiting.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("its disk does not answer"), "{output:?}");
    assert!(began.elapsed() < LATE);
    drop(disk);
    assert_eq!(device.worker(), worker);
    device.assert_reachable();
}
