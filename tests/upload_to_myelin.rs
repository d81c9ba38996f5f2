//! `myelin upload` against Myelin's own daemon: from the file to the slot that runs afterwards.
//!
//! fwup is a script that keeps what it gets and switches the slot in the store; the reboot is the test
//! itself: it ends the daemon, empties runtime_dir and starts it again.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use common::scripted::CLIENTS;
use common::{Device, random_bytes, signal, text, wait_until};

const OLD: &str = "11111111-2222-5333-8444-000000000001";

/// A device with two slots, running `a`. `fwup` is the end of the script that stands in for it.
fn device(fwup: &str) -> Device {
    let (folder, public) = common::new_folder();
    let path = folder.path().to_owned();
    let here = path.display();
    let uuid = firmware(&path);
    fs::write(path.join("disk.img"), "").unwrap();
    fs::write(path.join("env"), slots("a", "none")).unwrap();
    fs::write(path.join("env.next"), slots("b", &uuid)).unwrap();
    script(&path.join("fwup"), &format!("cd {here}\n{fwup}"));
    script(&path.join("reboot"), &format!("touch {here}/reboot-wanted"));
    let rest = format!(
        "[firmware]\nfwup = \"{here}/fwup\"\ndevpath = \"{here}/disk.img\"\nenv_file = \"{here}/env\"\n\
         success_action = [\"{here}/reboot\"]"
    );
    Device::start_in(folder, &public, "", &rest)
}

fn slots(active: &str, other: &str) -> String {
    format!(
        "nerves_fw_active={active}\na.nerves_fw_uuid={OLD}\na.nerves_fw_version=1.0\na.nerves_fw_platform=board-x\n\
         b.nerves_fw_uuid={other}\nb.nerves_fw_version=2.0\nb.nerves_fw_platform=board-x\n"
    )
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// What fwup does on the wire: reads everything, switches the slot, says so, waits for the end.
const GOOD: &str = "cat >got\ncp env.next env\nprintf 'Success!\\n\\032\\000'\ncat >/dev/null";

/// Makes new.fw in the folder and returns its UUID.
fn firmware(folder: &Path) -> String {
    fs::write(folder.join("noise"), random_bytes(3 << 20, 7)).unwrap();
    let config = format!(
        "meta-product = \"p\"\nmeta-version = \"2.0\"\nmeta-platform = \"board-x\"\n\
         file-resource noise {{ host-path = \"{}\" }}\ntask upgrade {{ on-resource noise {{ raw_write(0) }} }}\n",
        folder.join("noise").display()
    );
    fs::write(folder.join("fwup.conf"), config).unwrap();
    fwup(folder, &["-c", "-f", "fwup.conf", "-o", "new.fw"]);
    let metadata = fwup(folder, &["-m", "-i", "new.fw"]);
    let uuid = metadata.lines().find_map(|line| line.strip_prefix("meta-uuid=")).expect("a UUID");
    uuid.trim_matches('"').to_owned()
}

fn fwup(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    let output = command.arg("fwup").args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    text(&output.stdout)
}

fn upload(device: &Device, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.args(["upload", "root@127.0.0.1"]).arg(device.path("new.fw")).args(device.ssh_options());
    command.args(["-p", &device.port.to_string()]).args(options);
    command
}

fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn expect(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", all(output));
    assert!(all(output).contains(words), "{words:?} is missing in: {}", all(output));
}

/// Uploads, and reboots when the device asks for it; `meanwhile` is what happens while it is off.
fn upload_and_reboot(device: &mut Device, client: &[&str], meanwhile: impl FnOnce(&Device)) -> Output {
    let child = upload(device, &[client, &["--wait=60"]].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the success action runs", || device.path("reboot-wanted").exists());
    sleep(Duration::from_millis(300));
    device.stop();
    fs::remove_file(device.path("reboot-wanted")).unwrap();
    fs::remove_dir_all(device.path("run")).unwrap();
    meanwhile(device);
    device.start_again();
    child.wait_with_output().unwrap()
}

#[test]
fn the_firmware_that_was_sent_runs_afterwards() {
    for client in CLIENTS {
        let mut device = device(GOOD);
        let output = upload_and_reboot(&mut device, client, |_| {});
        expect(&output, 0, "runs slot b: 2.0 (");
        assert!(all(&output).contains(&format!("slot a: 1.0 ({OLD})")), "{}", all(&output));
        assert!(fs::read(device.path("got")).unwrap() == fs::read(device.path("new.fw")).unwrap());
    }
}

#[test]
fn a_device_that_falls_back_is_7() {
    let mut device = device(GOOD);
    let output = upload_and_reboot(&mut device, &[], |device| {
        fs::write(device.path("env"), slots("a", "none")).unwrap()
    });
    expect(&output, 7, "slot a: 1.0");
}

#[test]
fn a_device_that_does_not_reboot_is_8_and_then_busy() {
    let device = device(GOOD);
    expect(&upload(&device, &["--wait=4"]).output().unwrap(), 8, "has not rebooted");
    let second = upload(&device, &["--no-wait"]).output().unwrap();
    expect(&second, 75, "waits for a reboot");
}

#[test]
fn a_firmware_that_fwup_refuses_changes_nothing() {
    let device = device("cat >/dev/null\necho 'fwup: no task matches' >&2\nprintf '\\032\\001'\nexit 1");
    expect(&upload(&device, &["--no-wait"]).output().unwrap(), 1, "no task matches");
    assert!(!device.path("reboot-wanted").exists());
    device.assert_reachable();
    assert!(
        upload(&device, &["--no-wait"]).output().unwrap().status.code() == Some(1),
        "the lock is free again"
    );
}

#[test]
fn a_worker_that_dies_midway_is_6_and_the_next_push_works() {
    for client in CLIENTS {
        let mut device = device(
            "head -c 100000 >/dev/null\ntouch midway\n[ -e again ] || exec sleep 60\n[ -e again ] && { cat >/dev/null; cp env.next env; printf 'Success!\\n\\032\\000'; }",
        );
        let child = upload(&device, &[client, &["--no-wait"]].concat())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("fwup runs", || device.path("midway").exists());
        signal(device.worker(), "KILL");
        expect(&child.wait_with_output().unwrap(), 6, "lost before the device reported success");
        assert_eq!(fs::read_to_string(device.path("env")).unwrap(), slots("a", "none"));
        fs::write(device.path("again"), "").unwrap();
        device.assert_reachable();
        let output = upload_and_reboot(&mut device, client, |_| {});
        expect(&output, 0, "runs slot b");
    }
}

#[test]
fn the_generated_script_sends_what_plain_ssh_would() {
    let device = device(GOOD);
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    assert!(command.arg("gen-script").current_dir(device.folder.path()).status().unwrap().success());
    let options = format!("{} -p {}", device.ssh_options().join(" "), device.port);
    let output = Command::new("sh")
        .args(["./upload.sh", "root@127.0.0.1", "new.fw"])
        .env("SSH_OPTIONS", options)
        .current_dir(device.folder.path())
        .output()
        .unwrap();
    expect(&output, 0, "Uploading to root@127.0.0.1...");
    assert_eq!(text(&output.stdout), "Success!\n");
    assert_eq!(fs::read(device.path("got")).unwrap(), fs::read(device.path("new.fw")).unwrap());
}
