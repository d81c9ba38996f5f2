//! `myelin upload` against a device whose answers the test chooses, with the system's ssh and with the client that is
//! built in: both say and do the same. The pushes to Myelin's own daemon are in the tests of its fwup subsystem.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::scripted::{CLIENTS, Device, GOOD, STATUS, all, expect, firmware};

#[test]
fn the_device_gets_the_file_and_is_seen_running_it() {
    for device in Device::each(GOOD) {
        let output = device.upload(&[]);
        expect(&output, 0, &format!("runs slot b: p 9.9 ({}), validated", device.uuid));
        assert_eq!(fs::read(device.path("got")).unwrap(), fs::read(device.path("new.fw")).unwrap());
        let shown = all(&output);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Success!\n"), "{shown}");
        for word in ["Product:   p 2.0", "Platform:  board-x", &device.uuid, "slot a: p 9.9", "sent "] {
            assert!(shown.contains(word), "{word} is missing in: {shown}");
        }
    }
}

#[test]
fn json_is_one_object_and_the_rest_is_elsewhere() {
    for device in Device::each(GOOD) {
        let output = device.upload(&["--json"]);
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", all(&output)));
        assert_eq!(report["result"], "done");
        assert_eq!(report["exit_code"], 0);
        assert_eq!(report["firmware"]["uuid"], device.uuid);
        assert_eq!(report["device"]["boot_id"], "boot-2");
        assert_eq!(report["bytes"], fs::metadata(device.path("new.fw")).unwrap().len());
    }
}

#[test]
fn without_waiting_it_ends_with_the_push() {
    for device in Device::each("cat >got; echo 'Success!'") {
        expect(&device.upload(&["--no-wait"]), 0, "nobody waited");
    }
}

#[test]
fn a_refusal_shows_what_the_device_said() {
    for device in Device::each("echo 'fwup: Upgrade not possible'; exit 1") {
        expect(&device.upload(&[]), 1, "fwup: Upgrade not possible");
        let quiet = device.upload(&["--quiet"]);
        expect(&quiet, 1, "fwup: Upgrade not possible");
        assert!(quiet.stdout.is_empty());
        let json: serde_json::Value = serde_json::from_slice(&device.upload(&["--json"]).stdout).unwrap();
        assert_eq!((&json["result"], &json["exit_code"]), (&"refused".into(), &1.into()));
    }
}

#[test]
fn a_busy_device_is_75() {
    for device in Device::each("echo 'Error: update in progress (ssh 10.0.0.5, 42 %)'; exit 75") {
        expect(&device.upload(&[]), 75, "update in progress");
    }
}

#[test]
fn a_lost_connection_is_6() {
    for device in Device::each("head -c 300000 >/dev/null; kill -9 $PPID; sleep 5") {
        expect(&device.upload(&[]), 6, "lost before the device reported success");
    }
}

#[test]
fn a_connection_lost_after_success_goes_on_to_the_wait() {
    for device in Device::each(&format!("{GOOD}\nsleep 0.5; kill -9 $PPID; sleep 5")) {
        expect(&device.upload(&[]), 0, "runs slot b");
    }
}

#[test]
fn a_device_that_fell_back_is_7() {
    for device in Device::each("cat >got; echo 'Success!'; mv fallen-back.json status.json") {
        expect(&device.upload(&[]), 7, "slot a: p 9.9 (old)");
    }
}

#[test]
fn a_device_that_stays_away_is_8() {
    for client in CLIENTS {
        let device = Device::start("cat >got; echo 'Success!'", client, STATUS, &[]);
        let started = Instant::now();
        expect(&device.upload(&["--wait=6"]), 8, "has not rebooted");
        assert!(started.elapsed() < Duration::from_secs(60));

        let device = Device::start("cat >got; echo 'Success!'; kill $(cat sshd.pid)", client, STATUS, &[]);
        expect(&device.upload(&["--wait=3"]), 8, "Connection refused");
    }
}

#[test]
fn a_key_that_is_not_known_is_5() {
    for device in Device::each(GOOD) {
        fs::copy(device.path("stranger"), device.path("user")).unwrap();
        expect(&device.upload(&[]), 5, "Permission denied");
        assert!(!device.path("got").exists());
    }
}

#[test]
fn a_changed_host_key_is_5() {
    for device in Device::each(GOOD) {
        let other = fs::read_to_string(device.path("stranger.pub")).unwrap();
        fs::write(device.path("known_hosts"), format!("[127.0.0.1]:{} {other}", device.port)).unwrap();
        expect(&device.upload(&[]), 5, "HAS CHANGED");
    }
}

#[test]
fn nobody_there_is_4() {
    for mut device in Device::each(GOOD) {
        device.sshd.kill().unwrap();
        device.sshd.wait().unwrap();
        expect(&device.upload(&[]), 4, "Connection refused");
        let nowhere = device.command(&["no-such-host.invalid", "new.fw"]).output().unwrap();
        expect(&nowhere, 4, "no-such-host.invalid");
    }
}

#[test]
fn a_device_without_the_subsystem_says_so() {
    for client in CLIENTS {
        let device = Device::start(GOOD, client, "", &[]);
        let config = fs::read_to_string(device.path("sshd_config")).unwrap();
        fs::write(device.path("sshd_config"), config.replace("Subsystem fwup", "Subsystem other")).unwrap();
        let hup = Command::new("kill").args(["-HUP", &device.sshd.id().to_string()]).status().unwrap();
        assert!(hup.success());
        std::thread::sleep(Duration::from_millis(500));
        device.wait_for_port();
        expect(&device.upload(&[]), 1, "no fwup subsystem");
    }
}

#[test]
fn a_device_without_a_status_is_updated_and_not_waited_for() {
    for client in CLIENTS {
        let device = Device::start(GOOD, client, "", &[]);
        expect(&device.upload(&[]), 0, "does not answer myelin-status");
        assert!(device.path("got").exists());
    }
}

#[test]
fn a_file_for_another_board_is_announced() {
    for device in Device::each(GOOD) {
        firmware(&device.path("other.fw"), "board-y");
        let output = device.command(&["127.0.0.1", "other.fw", "--no-wait"]).output().unwrap();
        expect(&output, 0, "the device's platform is board-x, the file's is board-y");
    }
}

#[test]
fn what_is_no_firmware_is_3_and_never_sent() {
    let device = Device::new(GOOD);
    let missing = device.command(&["127.0.0.1", "nothing.fw"]).output().unwrap();
    expect(&missing, 3, "no such file");
    fs::write(device.path("text.fw"), "not a zip at all").unwrap();
    expect(&device.command(&["127.0.0.1", "text.fw"]).output().unwrap(), 3, "is no firmware file");
    fs::remove_file(device.path("text.fw")).unwrap();
    fs::remove_file(device.path("new.fw")).unwrap();
    expect(&device.command(&["127.0.0.1"]).output().unwrap(), 3, "no *.fw file was found");
    assert!(!device.path("got").exists());
}

#[test]
fn wrong_usage_is_2() {
    for device in Device::each(GOOD) {
        for args in [
            &["127.0.0.1", "new.fw", "--frob"][..],
            &["-oProxyCommand=false", "new.fw", "-p", "0"],
            &["new.fw"],
            &["two words", "new.fw"],
            &["127.0.0.1", "new.fw", "-o", "Frobnicate=yes"],
        ] {
            let output = device.command(args).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {}", all(&output));
        }
    }
}

#[test]
fn the_file_may_come_from_stdin_and_the_host_from_the_environment() {
    let device = Device::new(GOOD);
    let content = fs::read(device.path("new.fw")).unwrap();
    let mut child = device
        .command(&["127.0.0.1", "-", "--no-wait"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(device.path("got")).unwrap(), content);
    let output = device.command(&["--no-wait"]).env("MYELIN_HOST", "ssh://127.0.0.1").output().unwrap();
    expect(&output, 0, "new.fw");
}

#[test]
fn a_dry_run_connects_to_nothing() {
    let device = Device::new(GOOD);
    let output = device.upload(&["--dry-run"]);
    expect(&output, 0, "would run: ssh -F none");
    assert!(!device.path("got").exists() && !device.path("known_hosts").exists());
}

#[test]
fn the_environment_of_build_tools_does_not_reach_ssh() {
    let device = Device::new("cat >got; echo 'Success!'");
    fs::create_dir(device.path("bin")).unwrap();
    let ssh = "#!/bin/sh\n[ -z \"${LD_LIBRARY_PATH:-}\" ] || exit 99\nexec /usr/bin/ssh \"$@\"\n";
    fs::write(device.path("bin/ssh"), ssh).unwrap();
    fs::set_permissions(device.path("bin/ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", device.path("bin").display(), std::env::var("PATH").unwrap());
    let output = device
        .command(&["127.0.0.1", "new.fw", "--no-wait"])
        .env("PATH", path)
        .env("LD_LIBRARY_PATH", "/nonexistent")
        .output()
        .unwrap();
    expect(&output, 0, "took the firmware");
}
