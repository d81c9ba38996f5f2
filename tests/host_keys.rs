//! Whatever is wrong with the host keys or their folder: a key holder logs in, and one warning says why.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod device;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use device::{Device, namespaces_work, text};

const FOLDER: &str = "state/ssh";
const KEY: &str = "state/ssh/ssh_host_ed25519_key";

fn prepared(content: &[u8]) -> Device {
    let device = Device::new("");
    fs::create_dir_all(device.path(FOLDER)).unwrap();
    fs::write(device.path(KEY), content).unwrap();
    fs::set_permissions(device.path(KEY), PermissionsExt::from_mode(0o600)).unwrap();
    device
}

/// Logs in within two seconds of the start.
#[track_caller]
fn logs_in(device: &Device) {
    let started = Instant::now();
    device.wait_for_port();
    let output = device.ssh(&["127.0.0.1", "echo in"]);
    assert!(text(&output).contains("in\n"), "{}\nlog:\n{}", text(&output), device.log());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}\n{}", started.elapsed(), device.log());
}

#[track_caller]
fn one_warning(device: &Device, words: &str) {
    let log = device.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN host keys")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(words), "{log}");
}

fn fingerprint(device: &Device) -> String {
    fs::read_to_string(device.path("known_hosts")).unwrap()
}

#[test]
fn the_first_start_makes_a_key_that_stays() {
    let mut device = Device::new("");
    device.start();
    logs_in(&device);
    let first = fingerprint(&device);
    let mode = |name| fs::metadata(device.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(KEY), mode(FOLDER)), (0o600, 0o700));
    let listed = Command::new("ssh-keygen").arg("-lf").arg(device.path(KEY)).output().unwrap();
    assert!(text(&listed).contains("myelin@"), "ssh-keygen must read it: {}", text(&listed));
    device.stop();
    device.start();
    logs_in(&device);
    assert_eq!(fingerprint(&device), first);
}

#[test]
fn a_damaged_key_is_replaced_and_kept_aside() {
    let whole =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostkeys/openssh-ed25519")).unwrap();
    let rsa = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostkeys/openssh-rsa")).unwrap();
    for content in [&b""[..], &[0x5a; 411], &whole[..whole.len() / 2], &rsa] {
        let mut device = prepared(content);
        device.start();
        logs_in(&device);
        one_warning(&device, ".corrupt");
        assert_eq!(fs::read(device.path(&format!("{KEY}.corrupt"))).unwrap(), content);
    }
}

#[test]
fn a_folder_in_place_of_the_key_is_moved_aside() {
    let mut device = Device::new("");
    fs::create_dir_all(device.path(KEY)).unwrap();
    device.start();
    logs_in(&device);
    one_warning(&device, ".corrupt");
}

#[test]
fn a_file_in_place_of_the_folder_costs_only_the_identity() {
    let mut device = Device::new("");
    fs::create_dir_all(device.path("state")).unwrap();
    fs::write(device.path(FOLDER), "").unwrap();
    device.start();
    logs_in(&device);
    one_warning(&device, "until the reboot");
}

#[test]
fn a_key_that_others_may_read_is_taken_back() {
    let whole =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostkeys/openssh-ed25519")).unwrap();
    let mut device = prepared(&whole);
    fs::set_permissions(device.path(KEY), PermissionsExt::from_mode(0o644)).unwrap();
    device.start();
    logs_in(&device);
    one_warning(&device, "mode 644");
    assert_eq!(fs::metadata(device.path(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_read_only_folder_costs_only_the_identity() {
    if !namespaces_work() {
        eprintln!("skipped: no mount namespaces here");
        return;
    }
    let mut device = Device::new("");
    fs::create_dir_all(device.path("state")).unwrap();
    let state = device.path("state").display().to_string();
    device.start_in_namespace(&format!("mount --bind {state} {state} && mount -o remount,ro,bind {state}"));
    logs_in(&device);
    one_warning(&device, "Read-only file system");
    assert!(!device.path(FOLDER).exists());
}

#[test]
fn a_full_disk_costs_only_the_identity() {
    if !namespaces_work() {
        eprintln!("skipped: no mount namespaces here");
        return;
    }
    let mut device = Device::new("");
    fs::create_dir_all(device.path("state")).unwrap();
    let state = device.path("state").display().to_string();
    let full = format!(
        "mount -t tmpfs -o size=64k none {state} && mkdir {state}/ssh && ! cat /dev/zero 2>/dev/null >{state}/filler"
    );
    device.start_in_namespace(&full);
    logs_in(&device);
    one_warning(&device, "No space left");
}

#[test]
fn keys_of_nerves_ssh_serve_in_place() {
    let whole = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostkeys/nerves-ed25519")).unwrap();
    let mut device = Device::new("host_key_dir = \"HERE\"");
    let config = fs::read_to_string(device.path("config.toml")).unwrap();
    let nerves = device.path("nerves_ssh");
    fs::write(device.path("config.toml"), config.replace("HERE", nerves.to_str().unwrap())).unwrap();
    fs::create_dir(&nerves).unwrap();
    fs::write(nerves.join("ssh_host_ed25519_key"), &whole).unwrap();
    fs::set_permissions(nerves.join("ssh_host_ed25519_key"), PermissionsExt::from_mode(0o600)).unwrap();
    device.start();
    logs_in(&device);
    let public =
        Command::new("ssh-keygen").arg("-yf").arg(nerves.join("ssh_host_ed25519_key")).output().unwrap();
    let blob = text(&public).split(' ').nth(1).unwrap().trim().to_owned();
    assert!(fingerprint(&device).contains(&blob));
}
