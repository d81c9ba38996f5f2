//! The hardware watchdog gets its signs while people can log in, and no longer. A pipe stands for the device here: what
//! is written to it is what counts. `tests/qemu` has a real one.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Device, new_folder, wait_at_most, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the daemon has written to the device since the last call.
fn signs(device: &mut File) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    match device.read(&mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bytes.clear(),
        Err(error) => panic!("{error}"),
    }
    bytes
}

fn start(wrapper: &[&str], ssh: &str, limit: u32) -> (Device, File) {
    let (folder, public) = new_folder();
    let path = folder.path().join("watchdog");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let pipe = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    let rest = format!("[watchdog]\ndevice = {path:?}\ntimeout = 3\nlogin_limit = {limit}");
    (Device::start_wrapped(folder, wrapper, &public, ssh, &rest), pipe)
}

#[test]
fn it_gets_its_signs_from_the_first_login_until_the_daemon_ends() {
    let (mut device, mut pipe) = start(&[], "", 3600);
    let mut seen = Vec::new();
    wait_at_most(PATIENCE, "three signs", &mut || {
        seen.extend(signs(&mut pipe));
        seen.len() >= 3
    });
    assert!(seen.iter().all(|&byte| byte == 0), "{seen:?}");
    device.assert_reachable();
    device.stop();
    // Else a board whose owner stops the daemon would restart.
    assert_eq!(signs(&mut pipe).last(), Some(&b'V'));
}

#[test]
fn it_is_fed_while_all_places_are_taken() {
    let (device, mut pipe) = start(&[], "max_connections = 1", 10);
    device.wait_until_it_answers();
    let mut owner = device.ssh().arg("echo here; sleep 300").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 5];
    owner.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    // Longer than a board may be without a login that works.
    sleep(Duration::from_secs(11));
    assert!(!device.log().contains("no login works"), "{}", device.log());
    signs(&mut pipe);
    wait_at_most(PATIENCE, "it is fed", &mut || !signs(&mut pipe).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[test]
fn a_board_that_nobody_can_log_in_to_is_left_to_its_watchdog() {
    if !Command::new("unshare").args(["-n", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no network namespaces here");
        return;
    }
    let (device, mut pipe) =
        start(&["unshare", "-n", "--", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"], "", 10);
    let mut seen = 0;
    wait_at_most(PATIENCE, "it is fed", &mut || {
        seen += signs(&mut pipe).len();
        seen >= 2
    });
    let network = |state: &str| {
        let daemon = device.daemon.id().to_string();
        let mut ip = Command::new("nsenter");
        assert!(ip.args(["-t", &daemon, "-n", "ip", "link", "set", "lo", state]).status().unwrap().success());
    };
    let first = device.worker();
    network("down");
    device.wait_for_log("no login works: replacing the ssh worker");
    device.wait_for_log("nobody can log in: the hardware watchdog is fed no more");
    wait_until("another worker runs", || device.worker() != first);
    signs(&mut pipe);
    sleep(Duration::from_secs(4));
    assert_eq!(signs(&mut pipe), [0; 0], "it is fed");
    network("up");
    wait_at_most(PATIENCE, "it is fed again", &mut || !signs(&mut pipe).is_empty());
}
