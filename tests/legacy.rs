//! The protocol of nerves_firmware_ssh on its own port, with OpenSSH's client.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::disk::Board;
use common::{Device, free_port, new_folder, pipe_into, text};

const SUBSYSTEM: &str = "nerves_firmware_ssh";

/// A client of the legacy port, to be completed with a command.
fn client(device: &Device, port: u16, options: &[&str]) -> Command {
    let mut command = Command::new("ssh");
    command.args(device.ssh_options()).args(["-p", &port.to_string()]).args(options).arg("root@127.0.0.1");
    command
}

/// A device without slots whose fwup notes the size of what it gets.
fn fake(action: &str) -> (Device, u16) {
    let (folder, public_key) = new_folder();
    let path = folder.path().display().to_string();
    fs::write(folder.path().join("disk"), "").unwrap();
    let fwup = folder.path().join("fwup");
    fs::write(&fwup, format!("#!/bin/sh\nwc -c >> {path}/sizes; printf 'done\\n\\032\\000'\n")).unwrap();
    fs::set_permissions(&fwup, fs::Permissions::from_mode(0o755)).unwrap();
    let port = free_port();
    let rest = format!(
        "[ssh.legacy]\nenabled = true\nport = {port}\n[firmware]\nfwup = {fwup:?}\n\
         devpath = \"{path}/disk\"\nenv_file = \"{path}/env\"\nsuccess_action = {action}\n"
    )
    .replace("{folder}", &path);
    (Device::start_in(folder, &public_key, "", &rest), port)
}

/// A device with slots.
fn board() -> (Board, u16) {
    let port = free_port();
    let board = Board::start(&format!(
        "success_action = [\"sh\", \"-c\", \"echo >> {{folder}}/acted\"]\n\
         [ssh.legacy]\nenabled = true\nport = {port}"
    ));
    (board, port)
}

fn send(device: &Device, port: u16, input: &[u8]) -> Output {
    pipe_into(client(device, port, &["-s"]).arg(SUBSYSTEM), input)
}

fn actions(device: &Device) -> usize {
    sleep(Duration::from_millis(1500));
    fs::read_to_string(device.path("acted")).unwrap_or_default().lines().count()
}

fn sizes(device: &Device) -> String {
    fs::read_to_string(device.path("sizes")).unwrap_or_default()
}

#[test]
fn a_firmware_is_installed_and_the_reboot_follows_once() {
    let (board, port) = board();
    let input = [format!("fwup:{},reboot\n", board.v2.archive.len()).as_bytes(), &board.v2.archive].concat();
    let output = send(&board.device, port, &input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.starts_with("Running fwup...\n") && said.ends_with("Rebooting...\n"), "{said}");
    assert!(said.contains("100% [") && said.contains("Success!\n"), "{said}");
    assert!(board.holds('a', &board.v1) && board.holds('b', &board.v2));
    assert_eq!(actions(&board.device), 1);
    // Here too nothing is written over the running slot, and both ports know it.
    let output = send(&board.device, port, &input);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).contains("waits for a reboot\n"), "{output:?}");
    assert_eq!(board.push(&board.v2).status.code(), Some(75));
    assert_eq!(actions(&board.device), 1);
}

#[test]
fn the_second_of_two_firmwares_in_one_stream_is_refused() {
    let (board, port) = board();
    let size = board.v2.archive.len();
    let header = format!("fwup:{size},fwup:{size},reboot\n");
    let input = [header.as_bytes(), &board.v2.archive, &board.v2.archive].concat();
    let output = send(&board.device, port, &input);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = text(&output.stdout);
    assert_eq!(said.matches("Running fwup...\n").count(), 2, "{said}");
    assert!(said.ends_with("is installed and waits for a reboot\n"), "{said}");
    assert!(board.holds('a', &board.v1) && board.holds('b', &board.v2));
    assert_eq!(actions(&board.device), 0, "the reboot was not reached");
}

#[test]
fn sizes_that_differ_from_the_payload() {
    let (board, port) = board();
    let size = board.v2.archive.len();
    // Short of what was announced, as a whole archive and as half of one.
    let cut = [format!("fwup:{size}\n").as_bytes(), &board.v2.archive[..size / 2]].concat();
    let began = Instant::now();
    let output = send(&board.device, port, &cut);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("fwup: "), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
    board.assert_unharmed();
    // Announced too short: fwup gets that much, the rest is dropped.
    let short = [format!("fwup:{},reboot\n", size / 2).as_bytes(), &board.v2.archive].concat();
    let output = send(&board.device, port, &short);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    board.assert_unharmed();
    let long = [format!("fwup:{}\n", size + 1000).as_bytes(), &board.v2.archive].concat();
    let output = send(&board.device, port, &long);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(board.holds('b', &board.v2));
    assert_eq!(actions(&board.device), 0);
}

#[test]
fn a_header_in_packets_of_one_byte_works() {
    let (device, port) = fake("\"none\"");
    let mut command = client(&device, port, &["-s"]);
    let mut client = command.arg(SUBSYSTEM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    sleep(Duration::from_millis(500));
    for byte in b"fwup:5,fwup:3\nhello" {
        stdin.write_all(&[*byte]).unwrap();
        sleep(Duration::from_millis(20));
    }
    stdin.write_all(b"you and what is too much").unwrap();
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let ran = "Running fwup...\ndone\n";
    assert_eq!(text(&output.stdout), format!("{ran}{ran}"));
    assert_eq!(sizes(&device), "5\n3\n");
}

#[test]
fn two_firmwares_run_in_turn() {
    let (device, port) = fake("\"none\"");
    let output = send(&device, port, b"fwup:10,fwup:10\n0123456789abcdefghij");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(sizes(&device), "10\n10\n");
    assert_eq!(send(&device, port, b"fwup:0\n").status.code(), Some(0));
}

#[test]
fn anything_else_is_an_invalid_command() {
    let (device, port) = fake("[\"sh\", \"-c\", \"echo >> {folder}/acted\"]");
    for wrong in ["rebot\n", "fwup:x\n", "fwup(10),reboot\n", "\n", "fwup:1,\nx", "", "reboot"] {
        let output = send(&device, port, wrong.as_bytes());
        let said = text(&output.stdout);
        assert_eq!(said, "nerves_firmware_ssh: error invalid_command\n", "{wrong:?}");
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
    }
    // One that is too long is not waited for.
    let mut command = client(&device, port, &["-s"]);
    let mut client = command.arg(SUBSYSTEM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, began) = (client.stdin.take().unwrap(), Instant::now());
    stdin.write_all("reboot,".repeat(150).as_bytes()).unwrap();
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "nerves_firmware_ssh: error invalid_command\n");
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(stdin);
    assert_eq!((sizes(&device).as_str(), actions(&device)), ("", 0));
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let (device, port) = fake("\"none\"");
    let mut command = client(&device, port, &["-s"]);
    let mut client = command.arg(SUBSYSTEM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"fwup:5").unwrap();
    let began = Instant::now();
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "nerves_firmware_ssh: error invalid_command\n");
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(began.elapsed() > Duration::from_secs(25), "{:?}", began.elapsed());
    drop(stdin);
    assert_eq!(sizes(&device), "");
}

#[test]
fn a_reboot_alone_runs_the_action_once() {
    let (device, port) = fake("[\"sh\", \"-c\", \"echo >> {folder}/acted\"]");
    let output = send(&device, port, b"reboot\n");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Rebooting...\n".into()));
    assert_eq!(actions(&device), 1);
    // A firmware without the word brings no reboot.
    assert_eq!(send(&device, port, b"fwup:1\nx").status.code(), Some(0));
    assert_eq!(actions(&device), 1);
}

#[test]
fn the_port_is_for_firmware_only() {
    let (device, port) = fake("\"none\"");
    let shell = client(&device, port, &[]).stdin(Stdio::null()).output().unwrap();
    let said = "Interactive login unsupported. Use the nerves_firmware_ssh subsystem.";
    assert_eq!(text(&shell.stdout).trim_end(), said);
    assert_ne!(shell.status.code(), Some(0));
    let exec = client(&device, port, &[]).arg("true").stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&exec.stdout).trim_end(), "Command execution unsupported.");
    assert_ne!(exec.status.code(), Some(0));
    for other in ["fwup", "myelin-status"] {
        let output = pipe_into(client(&device, port, &["-s"]).arg(other), b"");
        assert_eq!(output.status.code(), Some(255), "{other}");
    }
    // The subsystem is on the main port too.
    assert_eq!(send(&device, device.port, b"fwup:1\nx").status.code(), Some(0));
}
