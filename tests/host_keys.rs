//! Whatever is wrong with the host keys or their folder: a key holder logs in, and one warning says why.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Device, text};

const FOLDER: &str = "state/ssh";
const KEY: &str = "state/ssh/ssh_host_ed25519_key";

/// Starts a daemon whose state folder was prepared, and logs in within two seconds.
#[track_caller]
fn start(more_ssh: &str, prepare: impl FnOnce(&Path)) -> Device {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(folder.path().join("key"))
        .status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(folder.path().join("key.pub")).unwrap();
    prepare(folder.path());
    let more_ssh = more_ssh.replace("HERE", folder.path().to_str().unwrap());
    let started = Instant::now();
    let device = Device::start_in(folder, public.trim(), &more_ssh, "");
    logs_in(&device, started);
    device
}

/// Starts the daemon after `script`, in a mount namespace of its own. None where that cannot be had.
fn start_in_namespace(script: &str) -> Option<Device> {
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespaces here");
        return None;
    }
    let mut device = Device::start("", "");
    device.stop();
    for name in ["state", "run", "log"] {
        let _ = fs::remove_dir_all(device.path(name));
    }
    fs::create_dir(device.path("state")).unwrap();
    let script = format!(
        "mount --make-rprivate / && {} && exec {} daemon --config {}",
        script.replace("STATE", device.path("state").to_str().unwrap()),
        env!("CARGO_BIN_EXE_myelin"),
        device.config().display()
    );
    let log = fs::File::create(device.path("log")).unwrap();
    let started = Instant::now();
    device.daemon = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    device.wait_until_it_answers();
    logs_in(&device, started);
    Some(device)
}

#[track_caller]
fn logs_in(device: &Device, started: Instant) {
    device.assert_reachable();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}\n{}", started.elapsed(), device.log());
}

#[track_caller]
fn one_warning(device: &Device, words: &str) {
    let log = device.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN host keys")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(words), "{log}");
}

/// The key that clients see.
fn seen(device: &Device) -> String {
    let port = device.port.to_string();
    let scan =
        Command::new("ssh-keyscan").args(["-t", "ed25519", "-p", &port, "127.0.0.1"]).output().unwrap();
    text(&scan.stdout).split_once(' ').map(|(_, key)| key.trim().to_owned()).unwrap_or_default()
}

fn put(folder: &Path, content: &[u8], mode: u32) {
    let path = folder.join(KEY);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

fn sample(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostkeys").join(name)).unwrap()
}

fn mode(device: &Device, name: &str) -> u32 {
    fs::metadata(device.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_a_key_that_stays() {
    let mut device = start("", |_| {});
    let first = seen(&device);
    assert_eq!((mode(&device, KEY), mode(&device, FOLDER)), (0o600, 0o700));
    let listed = Command::new("ssh-keygen").arg("-lf").arg(device.path(KEY)).output().unwrap();
    assert!(text(&listed.stdout).contains("myelin@"), "ssh-keygen reads it: {}", text(&listed.stderr));
    device.stop();
    device.start_again();
    assert!(first.starts_with("ssh-ed25519 ") && seen(&device) == first, "{first}");
}

#[test]
fn a_damaged_key_is_replaced_and_kept_aside() {
    let whole = sample("openssh-ed25519");
    for content in [&b""[..], &[0x5a; 411], &whole[..whole.len() / 2], &sample("openssh-rsa")] {
        let device = start("", |folder| put(folder, content, 0o600));
        one_warning(&device, ".corrupt");
        assert_eq!(fs::read(device.path(&format!("{KEY}.corrupt"))).unwrap(), content);
    }
}

#[test]
fn a_folder_in_place_of_the_key_is_moved_aside() {
    let device = start("", |folder| fs::create_dir_all(folder.join(KEY)).unwrap());
    one_warning(&device, ".corrupt");
}

#[test]
fn a_file_in_place_of_the_folder_costs_only_the_identity() {
    let device = start("", |folder| {
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::write(folder.join(FOLDER), "").unwrap();
    });
    one_warning(&device, "until the reboot");
}

#[test]
fn a_key_that_others_may_read_is_taken_back() {
    let device = start("", |folder| put(folder, &sample("openssh-ed25519"), 0o644));
    one_warning(&device, "mode 644");
    assert_eq!(mode(&device, KEY), 0o600);
}

#[test]
fn a_read_only_folder_costs_only_the_identity() {
    let Some(device) = start_in_namespace("mount --bind STATE STATE && mount -o remount,ro,bind STATE")
    else {
        return;
    };
    one_warning(&device, "Read-only file system");
    assert!(!device.path(FOLDER).exists());
}

#[test]
fn a_full_disk_costs_only_the_identity() {
    let full = "mount -t tmpfs -o size=64k none STATE && mkdir STATE/ssh && ! cat /dev/zero 2>/dev/null >STATE/filler";
    let Some(device) = start_in_namespace(full) else { return };
    one_warning(&device, "No space left");
}

#[test]
fn keys_of_nerves_ssh_serve_in_place() {
    let device =
        start("host_key_dir = \"HERE/state/ssh\"", |folder| put(folder, &sample("nerves-ed25519"), 0o600));
    let public = Command::new("ssh-keygen").arg("-yf").arg(device.path(KEY)).output().unwrap();
    let public = text(&public.stdout);
    assert_eq!(seen(&device), public.split(' ').take(2).collect::<Vec<_>>().join(" "));
    assert_eq!(fs::read(device.path(KEY)).unwrap(), sample("nerves-ed25519"));
}
