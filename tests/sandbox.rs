//! The thread that reads what strangers send can start no program; what it serves is not restricted.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Device, new_folder, text, wait_until};

/// What the kernel says of a thread: `NoNewPrivs` and `Seccomp` of its /proc/…/status.
fn restrictions(status: &str) -> Vec<String> {
    let lines = status.lines().filter(|line| line.starts_with("NoNewPrivs:") || line.starts_with("Seccomp:"));
    lines.map(|line| line.replace('\t', " ")).collect()
}

fn of_file(path: impl AsRef<Path>) -> Vec<String> {
    restrictions(&fs::read_to_string(path).unwrap_or_default())
}

fn subsystem(device: &Device, name: &str) -> Output {
    device.ssh_with(&["-s"]).arg(name).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_thread_that_reads_is_restricted_and_what_it_serves_is_not() {
    let ours = of_file("/proc/thread-self/status");
    for (key, expected) in [("", "2"), ("sandbox = true", "2"), ("sandbox = false", "0")] {
        let device = Device::start(key, "[ssh.subsystem]\nstatus = [\"/bin/cat\", \"/proc/self/status\"]");
        let worker = device.worker();
        let network = of_file(format!("/proc/{worker}/status"));
        if ours[1] == "Seccomp: 0" {
            assert_eq!(network[1], format!("Seccomp: {expected}"), "{key}: {}", device.log());
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!(network[0], ours[0], "root does not need to give up privileges: {key}");
        }
        assert_eq!(device.log().contains("sandbox on=true"), expected == "2", "{}", device.log());
        let session = restrictions(&text(&device.run("cat /proc/self/status").stdout));
        assert_eq!(session, ours, "a command, {key}");
        let program = subsystem(&device, "status");
        assert_eq!(restrictions(&text(&program.stdout)), ours, "a subsystem, {key}");
        let launchers = fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten();
        let launchers: Vec<_> = launchers
            .filter(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "launcher\n")
            })
            .map(|task| of_file(task.path().join("status")))
            .collect();
        assert!(!launchers.is_empty() && launchers.iter().all(|found| *found == ours), "{launchers:?}");
    }
}

#[test]
fn without_the_right_to_filters_the_thread_gives_up_privileges_and_sessions_do_not() {
    let wrapper = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    if !Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").status().unwrap().success() {
        eprintln!("not tested: this needs root");
        return;
    }
    let (folder, public) = new_folder();
    let device = Device::start_wrapped(folder, &wrapper, &public, "", "");
    device.wait_until_it_answers();
    assert_eq!(of_file(format!("/proc/{}/status", device.worker())), ["NoNewPrivs: 1", "Seccomp: 2"]);
    let session = restrictions(&text(&device.run("cat /proc/self/status").stdout));
    assert_eq!(session, of_file("/proc/thread-self/status"));
}

#[test]
fn programs_that_are_asked_are_not_restricted() {
    let ours = of_file("/proc/thread-self/status");
    let (folder, public) = new_folder();
    let (program, told) = (folder.path().join("told"), folder.path().join("status"));
    fs::write(&program, format!("#!/bin/sh\ncat /proc/self/status > {}\n", told.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let device = Device::start_in(folder, &public, &format!("on_event = [{program:?}]"), "");
    device.assert_reachable();
    wait_until("it was told", || of_file(&told).len() == 2);
    assert_eq!(of_file(&told), ours);
}

// Release builds start nothing there when asked to.
#[cfg(debug_assertions)]
#[test]
fn the_network_thread_cannot_start_a_program_and_neither_can_those_of_its_own() {
    let device = Device::start("", "");
    let worker = device.worker();
    for name in ["myelin-exec", "myelin-exec-aside"] {
        let output = subsystem(&device, name);
        assert_eq!(text(&output.stdout), "refused: PermissionDenied\n", "{name}: {output:?}");
        device.assert_reachable();
    }
    assert_eq!(device.worker(), worker);
    let device = Device::start("sandbox = false", "");
    let output = subsystem(&device, "myelin-exec");
    assert_eq!(text(&output.stdout), "started: exit status: 0\n", "without it nothing is refused");
}
