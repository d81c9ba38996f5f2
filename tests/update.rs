//! Updates as users of OpenSSH's client know them: `cat firmware.fw | ssh -s DEVICE fwup`.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use common::disk::{Board, fwup, succeed};
use common::{is_running, text, wait_until};
use serde_json::{Value, json};

/// The members of the status that scripts build on.
const CONTRACT: [&str; 8] =
    ["running", "next", "boot_id", "serial_number", "devpath", "update", "pending_reboot", "slots"];

fn contract(status: &Value) -> Value {
    CONTRACT
        .iter()
        .map(|name| ((*name).to_owned(), status[*name].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[track_caller]
fn assert_refused(output: &Output, status: i32, why: &str) {
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(said.contains(why) && said.ends_with('\n'), "{output:?}");
}

#[test]
fn an_update_goes_to_the_other_slot_and_back() {
    let mut board = Board::start("");
    let slot = |firmware: &common::disk::Firmware| {
        json!({"uuid": firmware.uuid(), "version": firmware.version, "product": "myelin-demo",
               "platform": "demo", "architecture": "any", "validated": true})
    };
    let empty = json!({"uuid": null, "version": null, "product": null,
                       "platform": null, "architecture": null, "validated": null});
    let before = board.status();
    let boot_id = before["boot_id"].as_str().unwrap().to_owned();
    let expected = json!({
        "running": "a", "next": "a", "boot_id": boot_id, "serial_number": "demo-0001",
        "devpath": board.device.path("disk.img").to_str().unwrap(), "update": null,
        "pending_reboot": false, "slots": {"a": slot(&board.v1), "b": empty},
    });
    assert_eq!(contract(&before), expected);

    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("100% [") && said.contains("Success!\nElapsed time: "), "{said}");
    assert!(board.holds('a', &board.v1) && board.holds('b', &board.v2));
    let after = board.status();
    let mut expected = expected;
    expected["next"] = json!("b");
    expected["pending_reboot"] = json!(true);
    expected["slots"]["b"] = slot(&board.v2);
    assert_eq!(contract(&after), expected);
    let remote = board.device.ssh_with(&["-s"]).arg("myelin-status").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&remote.stdout).unwrap(), after);

    let v3 = board.firmware(3);
    assert_refused(&board.push(&v3), 75, "firmware 2.0.0 (");
    board.kill_worker();
    assert_refused(&board.push(&v3), 75, "is installed and waits for a reboot");
    // As if the worker had been killed just before it could leave the mark.
    fs::remove_file(board.device.path("run/installed.json")).unwrap();
    assert_refused(&board.push(&v3), 75, "is installed and waits for a reboot");
    assert!(board.holds('a', &board.v1) && board.holds('b', &board.v2), "both slots are unchanged");
    assert_eq!(contract(&board.status()), expected);

    board.reboot();
    let status = board.status();
    assert_ne!(status["boot_id"], json!(boot_id));
    assert_eq!((&status["running"], &status["pending_reboot"]), (&json!("b"), &json!(false)));
    let output = board.push(&v3);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(board.holds('a', &v3) && board.holds('b', &board.v2));
    assert_eq!(board.slots(), ("b".into(), "a".into()));
}

#[test]
fn a_truncated_archive_is_refused_at_once() {
    let board = Board::start("");
    let needed = board.v2.end_of_entries();
    let lengths = [0, 1, 30, 500, 1000, needed / 10, needed / 2, needed * 9 / 10, needed - 100, needed - 1];
    for length in lengths {
        let began = Instant::now();
        let output = board.device.push(&board.v2.archive[..length]);
        let took = began.elapsed();
        assert_eq!(output.status.code(), Some(1), "{length}: {output:?}");
        assert!(text(&output.stdout).contains("fwup: "), "{length}: {output:?}");
        assert!(took < Duration::from_secs(15), "{length}: {took:?}");
        board.assert_unharmed();
    }
    board.assert_updatable();
}

#[test]
fn one_wrong_bit_is_enough_to_refuse() {
    let board = Board::start("");
    let needed = board.v2.end_of_entries();
    // In the configuration, and in the root file system from its beginning to its end.
    let positions = [60, 400, needed / 4, needed / 2, needed * 3 / 4, needed - 1];
    for (n, position) in positions.into_iter().enumerate() {
        let mut archive = board.v2.archive.clone();
        archive[position] ^= 1 << n;
        let output = board.device.push(&archive);
        assert_eq!(output.status.code(), Some(1), "{position}: {output:?}");
        assert!(text(&output.stdout).contains("fwup: "), "{position}: {output:?}");
        board.assert_unharmed();
    }
    board.assert_updatable();
}

#[test]
fn only_what_an_owner_has_signed_is_installed() {
    let board = Board::start("public_keys = [\"{folder}/fwup-key.pub\"]");
    let folder = board.device.folder.path();
    let refusal = "no update is installed until this is mended";
    assert_refused(&board.push(&board.v2), 1, refusal);
    let (other, unsigned) = (folder.join("other"), folder.join("2.0.0.fw"));
    fs::create_dir(&other).unwrap();
    succeed(fwup().arg("-g").current_dir(folder));
    succeed(fwup().arg("-g").current_dir(&other));
    let sign = |key: &Path| {
        let signed = key.with_file_name("signed.fw");
        succeed(fwup().args(["-S", "-s"]).arg(key).arg("-i").arg(&unsigned).arg("-o").arg(&signed));
        fs::read(signed).unwrap()
    };
    for wrong in [board.v2.archive.clone(), sign(&other.join("fwup-key.priv"))] {
        let output = board.device.push(&wrong);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        board.assert_unharmed();
    }
    let right = sign(&folder.join("fwup-key.priv"));
    let key = fs::read(folder.join("fwup-key.pub")).unwrap();
    fs::write(folder.join("fwup-key.pub"), "torn").unwrap();
    assert_refused(&board.device.push(&right), 1, refusal);
    board.assert_unharmed();
    fs::write(folder.join("fwup-key.pub"), key).unwrap();
    let output = board.device.push(&right);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(board.holds('b', &board.v2));
}

#[test]
fn what_is_missing_is_named() {
    let board = Board::start("task = \"nosuch\"");
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("nosuch"), "{output:?}");
    board.assert_unharmed();

    let board = Board::start("fwup = \"/nonexistent/fwup\"");
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    assert_eq!(text(&output.stdout), "Error: fwup not found: /nonexistent/fwup\n");

    let board = Board::start("");
    let disk = board.device.path("disk.img");
    fs::rename(&disk, board.device.path("gone")).unwrap();
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), format!("Error: Invalid device path: \"{}\"\n", disk.display()));
    fs::rename(board.device.path("gone"), &disk).unwrap();
    board.assert_updatable();
}

#[test]
fn a_full_disk_ends_the_update() {
    // No file may grow beyond the middle of slot b; what would is told EFBIG.
    let board = Board::start("fwup = \"{folder}/fwup\"");
    let applet = env!("CARGO_BIN_EXE_myelin");
    let limit = (1024 + 131_072) + 2048;
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec {applet} fwup \"$@\"");
    write_script(&board.device.path("fwup"), &script);
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("fwup: "), "{output:?}");
    board.assert_unharmed();
    write_script(&board.device.path("fwup"), &format!("exec {applet} fwup \"$@\""));
    board.assert_updatable();
}

#[test]
fn a_full_file_system_ends_the_update() {
    let board = Board::start("fwup = \"{folder}/fwup\"");
    let small = board.device.path("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&small).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("not run: only root can mount a file system");
        return;
    }
    let disk = board.device.path("disk.img");
    let full = small.join("disk.img");
    let copied = Command::new("cp").arg("--sparse=always").args([&disk, &full]).status();
    let applet = env!("CARGO_BIN_EXE_myelin");
    let script = format!("shift 5; exec {applet} fwup -a --exit-handshake -d {} \"$@\"", full.display());
    write_script(&board.device.path("fwup"), &script);
    let output = board.push(&board.v2);
    let _ = Command::new("umount").arg("-l").arg(&small).status();
    assert!(copied.unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("No space left"), "{output:?}");
    board.assert_unharmed();
}

#[test]
fn of_two_updates_at_once_the_second_is_refused_and_the_first_unharmed() {
    let board = Board::start("");
    let half = board.v2.archive.len() / 2;
    let mut first = board.begin_push(&board.v2, half);
    wait_until("its progress is told", || {
        let update = &board.status()["update"];
        let percent = update["percent"].as_u64().unwrap_or(0);
        update["bytes"] == json!(half)
            && update["holder"] == json!("ssh 127.0.0.1")
            && (1..100).contains(&percent)
    });
    let began = Instant::now();
    let second = board.push(&board.v2);
    assert_refused(&second, 75, "Error: update in progress (ssh 127.0.0.1, ");
    assert!(began.elapsed() < Duration::from_secs(15));
    first.stdin.take().unwrap().write_all(&board.v2.archive[half..]).unwrap();
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(board.holds('b', &board.v2));
}

#[test]
fn a_client_that_vanishes_leaves_nothing_running() {
    let board = Board::start("success_action = [\"touch\", \"{folder}/acted\"]");
    let half = board.v2.archive.len() / 2;
    let mut client = board.begin_push(&board.v2, half);
    wait_until("half has arrived", || board.status()["update"]["bytes"] == json!(half));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("fwup is gone", || !board.fwup_runs());
    wait_until("the lock is free", || board.status()["update"] == json!(null));
    board.assert_unharmed();
    board.device.wait_for_log("ssh.fwup");
    assert!(board.device.log().contains(&format!("bytes={half}")), "{}", board.device.log());
    sleep(Duration::from_secs(1));
    assert!(!board.device.path("acted").exists());
    board.assert_updatable();
}

#[test]
fn a_worker_that_is_killed_comes_back_and_so_does_the_device() {
    let board = Board::start("");
    let length = board.v2.archive.len();
    for round in 1..=10 {
        let mut client = board.begin_push(&board.v2, length * round / 11);
        board.kill_worker();
        let output = board.device.run("echo login");
        assert_eq!(text(&output.stdout), "login\n", "round {round}: {output:?}");
        assert!(!board.fwup_runs(), "round {round}");
        drop(client.stdin.take());
        assert_eq!(client.wait().unwrap().code(), Some(255));
        board.assert_unharmed();
    }
    board.assert_updatable();
}

#[test]
fn an_update_ends_with_the_daemon() {
    let mut board = Board::start("");
    let mut client = board.begin_push(&board.v2, board.v2.archive.len() / 2);
    let began = Instant::now();
    board.device.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!board.fwup_runs());
    assert_ne!(client.wait().unwrap().code(), Some(0));
    board.device.start_again();
    board.assert_unharmed();
    board.assert_updatable();
}

#[test]
fn a_sender_that_pauses_too_long_is_given_up() {
    let board = Board::start("update_idle_timeout = \"1s\"");
    let began = Instant::now();
    let mut client = board.send_part(&board.v2, board.v2.archive.len() / 2);
    // Its stdin stays open: only the device can end this.
    let stdin = client.stdin.take();
    let output = client.wait_with_output().unwrap();
    assert_refused(&output, 1, "Error: no data for 1 s: update abandoned");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(stdin);
    board.assert_unharmed();
    board.assert_updatable();
}

#[test]
fn the_pre_check_decides_before_anything_begins() {
    let board = Board::start("precheck = [\"sh\", \"{folder}/precheck\"]\nsuccess_action = \"none\"");
    let precheck = board.device.path("precheck");
    fs::write(&precheck, "echo the battery is low; exit 3").unwrap();
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "Error: the battery is low\n");

    let seen = board.device.path("seen");
    fs::write(&precheck, format!("env > {}; echo task=nosuch", seen.display())).unwrap();
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("nosuch"), "{output:?}");
    let seen = fs::read_to_string(seen).unwrap();
    for line in [
        "MYELIN_USER=root\n".to_owned(),
        "MYELIN_PEER=127.0.0.1:".into(),
        "MYELIN_KEY=SHA256:".into(),
        "MYELIN_TASK=upgrade\n".into(),
        format!("MYELIN_DEVPATH={}\n", board.device.path("disk.img").display()),
    ] {
        assert!(seen.contains(&line), "{line} in {seen}");
    }

    let marker = format!("sleep 6{}", board.device.port);
    fs::write(&precheck, format!("{marker}; exit 0")).unwrap();
    let began = Instant::now();
    let output = board.push(&board.v2);
    assert_refused(&output, 1, "did not answer within 10 s");
    assert!((10..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    wait_until("its processes are gone", || !is_running(&marker));

    // One whose client goes does not wait for its end.
    let mut client =
        board.device.ssh_with(&["-s"]).arg("fwup").stdin(std::process::Stdio::piped()).spawn().unwrap();
    wait_until("it is asked", || is_running(&marker));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("it is gone", || !is_running(&marker));

    fs::write(&precheck, "exit 0").unwrap();
    board.assert_updatable();
}

#[test]
fn the_success_action_runs_once_after_the_client_has_its_status() {
    let board = Board::start("success_action = [\"sh\", \"{folder}/action\"]");
    let folder = board.device.folder.path().display();
    let action = format!("flock -n {folder}/run/update.lock date +%s.%N >> {folder}/acted");
    fs::write(board.device.path("action"), action).unwrap();
    let output = board.push(&board.v2);
    let closed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    sleep(Duration::from_secs(4));
    let acted = fs::read_to_string(board.device.path("acted")).unwrap_or_default();
    let times: Vec<f64> = acted.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(times.len(), 1, "it runs once, and the lock is free: {acted:?}\n{}", board.device.log());
    let after = times[0] - closed;
    // The client needed a moment to end after CLOSE.
    assert!((0.2..5.0).contains(&after), "{after} s after the client");
    // Refused pushes are no success.
    assert_refused(&board.push(&board.v2), 75, "waits for a reboot");
    sleep(Duration::from_secs(1));
    assert_eq!(fs::read_to_string(board.device.path("acted")).unwrap(), acted);
}

#[test]
fn the_client_has_its_status_before_the_daemon_dies() {
    // 25 times, on several devices, as most of it is waiting.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| push_and_die(5));
        }
    });
}

fn push_and_die(rounds: usize) {
    let mut board = Board::start("success_action = [\"sh\", \"{folder}/action\"]");
    let pid = board.device.path("pid");
    fs::write(board.device.path("action"), format!("kill -9 $(cat {})", pid.display())).unwrap();
    for round in 0..rounds {
        fs::write(&pid, board.device.daemon.id().to_string()).unwrap();
        let worker = format!("/proc/{}", board.device.worker());
        let output = board.push(if round % 2 == 0 { &board.v2 } else { &board.v1 });
        assert_eq!(output.status.code(), Some(0), "round {round}: {output:?}");
        assert!(text(&output.stdout).contains("Success!"), "round {round}: {output:?}");
        board.device.daemon.wait().unwrap();
        wait_until("its worker is gone too", || !Path::new(&worker).exists());
        fs::remove_dir_all(board.device.path("run")).unwrap();
        board.device.start_again();
    }
}
