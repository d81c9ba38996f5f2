//! A new firmware proves itself, or the device goes back: with the real daemon, and a disk image in place of a card.
//! A program stands in for the reboot (`success_action`).

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::disk::{Board, fwup, succeed};
use common::{descendants, new_key, signal, text, wait_at_most, wait_until};
use serde_json::{Value, json};

/// What stands in for the reboot.
const REBOOT: &str = "success_action = [\"/bin/sh\", \"-c\", \"touch {folder}/rebooted\"]\n";
const ENVIRONMENT: &str =
    "uboot-environment env { block-offset = 256 block-offset-redund = 512 block-count = 16 }\n";
/// Slot b has just been written, and starts for the first time.
const TRIAL: &str =
    "b.nerves_fw_uuid=two b.nerves_fw_version=2.0.0 b.nerves_fw_validated=0 nerves_fw_active=b";

/// Lines that set variables, for a task.
fn set_lines(variables: &str) -> String {
    let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| format!("uboot_setenv(env, \"{name}\", \"{value}\")\n")).collect()
}

fn make_archive(board: &Board, name: &str, tasks: &str) {
    let conf = board.device.path("tasks.conf");
    fs::write(&conf, format!("{ENVIRONMENT}{tasks}")).unwrap();
    succeed(fwup().arg("-c").arg("-f").arg(&conf).arg("-o").arg(board.device.path(name)));
}

/// Sets variables in the environment block of the disk, as an update or a boot loader does.
fn set(board: &Board, variables: &str) {
    make_archive(board, "set.fw", &format!("task set {{ on-init {{\n{} }} }}", set_lines(variables)));
    let disk = board.device.path("disk.img");
    succeed(
        fwup().args(["-a", "-d"]).arg(disk).arg("-i").arg(board.device.path("set.fw")).args(["-t", "set"]),
    );
}

/// Starts the device as after an update to slot b.
fn start_trial(firmware: &str, variables: &str) -> Board {
    let mut board = Board::start(firmware);
    set(&board, variables);
    board.reboot();
    assert_eq!(board.status()["running"], "b");
    board
}

fn validated(board: &Board) -> Value {
    board.status()["slots"]["b"]["validated"].clone()
}

fn myelin(board: &Board, words: &str) -> Output {
    board.device.myelin(&words.split(' ').collect::<Vec<_>>())
}

#[track_caller]
fn assert_fails(output: &Output, status: i32, why: &str) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(text(&output.stderr).contains(why), "{output:?}");
}

fn agent(board: &Board) -> Option<u32> {
    let all = descendants(board.device.daemon.id());
    all.into_iter().find(|(_, line)| line.starts_with("myelin: agent")).map(|(pid, _)| pid)
}

#[test]
fn a_firmware_that_can_be_logged_in_to_is_validated() {
    let mut board = Board::start("");
    let config = fs::read_to_string(board.device.config()).unwrap();
    fs::write(board.device.config(), format!("log_level = \"debug\"\n{config}")).unwrap();
    set(&board, TRIAL);
    board.reboot();
    wait_until("it is validated", || validated(&board) == json!(true));
    board.device.wait_for_log("the firmware has proved itself");
    assert!(board.device.log().contains("source=\"probe\""), "{}", board.device.log());
    wait_until("the agent is done", || agent(&board).is_none());
    board.device.wait_for_log("the agent worker is done");
    // Either copy of the environment may be lost now.
    let disk = fs::File::options().read(true).write(true).open(board.device.path("disk.img")).unwrap();
    for offset in [0x20000, 0x40000] {
        let mut byte = [0];
        disk.read_exact_at(&mut byte, offset + 100).unwrap();
        disk.write_all_at(&[byte[0] ^ 1], offset + 100).unwrap();
        assert_eq!(validated(&board), json!(true));
        assert_eq!(board.slots(), ("b".into(), "b".into()));
        disk.write_all_at(&byte, offset + 100).unwrap();
    }
}

#[test]
fn all_three_forms_of_a_trial_are_validated() {
    for (form, expected) in [
        ("upgrade_available=1 bootcount=1 bootlimit=1", "upgrade_available=0"),
        ("nerves_fw_validated=0", "nerves_fw_validated=1"),
    ] {
        let own = "b.nerves_fw_uuid=two b.nerves_fw_version=2.0.0 nerves_fw_active=b";
        let board = start_trial("", &format!("{own} b.nerves_fw_validated=0 {form}"));
        wait_until("it is validated", || validated(&board) == json!(true));
        let output = fs::read(board.device.path("disk.img")).unwrap();
        let block = text(&output[0x20000..0x22000]);
        assert!(block.split('\0').any(|pair| pair == expected), "{block}");
        assert!(block.split('\0').any(|pair| pair == "b.nerves_fw_validated=1"), "{block}");
    }
}

#[test]
fn a_firmware_that_does_not_prove_itself_in_time_is_left() {
    let settings = format!("{REBOOT}[firmware.validation]\ngates = [\"manual\"]\ntime_limit = 5");
    let board = start_trial(&settings, TRIAL);
    let worker = board.device.worker();
    // The death of the agent changes nothing, and costs nobody a login.
    for _ in 0..2 {
        let mut pid = None;
        wait_until("an agent runs", || {
            pid = agent(&board);
            pid.is_some()
        });
        signal(pid.unwrap(), "KILL");
        sleep(Duration::from_millis(300));
        board.device.assert_reachable();
    }
    wait_until("it reboots", || board.device.path("rebooted").exists());
    assert_eq!(board.slots(), ("b".into(), "a".into()));
    assert_eq!(validated(&board), json!(false));
    assert_eq!(board.device.worker(), worker);
    board.device.assert_reachable();
    // The slot that runs is not written before that reboot.
    let output = board.push(&board.v2);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    // Nor can what was left be validated any more.
    assert_fails(&myelin(&board, "firmware validate"), 75, "waits for a reboot");
}

#[test]
fn without_a_trial_there_is_no_agent_and_no_end() {
    let board = Board::start(&format!("{REBOOT}[firmware.validation]\ntime_limit = 5"));
    board.device.wait_for_log("the agent worker is done");
    assert_eq!(agent(&board), None);
    sleep(Duration::from_secs(6));
    let output = myelin(&board, "firmware end-trial");
    assert!(output.status.success(), "{output:?}");
    assert!(!board.device.path("rebooted").exists());
    assert_eq!(board.slots(), ("a".into(), "a".into()));
}

#[test]
fn a_health_program_and_a_list_of_processes_decide() {
    let settings = "[firmware.validation]\ngates = [\"health\", \"processes\"]\n\
        health = [\"/bin/sh\", \"-c\", \"test -e {folder}/well\"]\nprocesses = [\"myelin: ssh\", \"sleep\"]";
    let board = start_trial(settings, TRIAL);
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    board.device.wait_for_log("the firmware has not proved itself yet");
    assert_eq!(validated(&board), json!(false));
    fs::write(board.device.path("well"), "").unwrap();
    wait_until("it is validated", || validated(&board) == json!(true));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn people_validate_and_go_back_by_hand() {
    let settings = format!("{REBOOT}[firmware.validation]\ngates = [\"manual\"]");
    let board = start_trial(&settings, TRIAL);
    assert_fails(&myelin(&board, "firmware prevent-revert"), 1, "on trial");
    let output = myelin(&board, "firmware validate --json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({"operation": "validate", "ok": true, "error": null,
                          "running": "b", "next": "b", "rebooting": false});
    assert_eq!((output.status.code(), report), (Some(0), expected));
    assert_eq!(validated(&board), json!(true));
    wait_at_most(Duration::from_secs(60), "the agent notices", &mut || agent(&board).is_none());

    let output = myelin(&board, "firmware revert --reboot");
    assert!(output.status.success(), "{output:?}");
    assert!(board.device.path("rebooted").exists());
    assert_eq!(board.slots(), ("b".into(), "a".into()));
}

#[test]
fn nothing_goes_back_to_a_slot_that_is_empty_or_was_never_good() {
    let board = Board::start(REBOOT);
    assert_fails(&myelin(&board, "firmware revert --reboot"), 1, "slot b is empty");
    set(&board, "b.nerves_fw_uuid=two b.nerves_fw_version=2.0.0 b.nerves_fw_validated=0");
    assert_fails(&myelin(&board, "firmware revert --reboot"), 1, "never validated");
    set(&board, "b.nerves_fw_validated=1");
    assert!(myelin(&board, "firmware prevent-revert").status.success());
    assert_eq!(board.status()["slots"]["b"]["uuid"], json!(null));
    let output = myelin(&board, "firmware revert --json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &json!(false)));
    assert!(report["error"].as_str().unwrap().contains("empty"));
    assert!(!board.device.path("rebooted").exists());
    board.assert_unharmed();
}

#[test]
fn a_validation_waits_for_an_update_to_end() {
    let board = start_trial("[firmware.validation]\ngates = [\"manual\"]", TRIAL);
    let mut push = board.begin_push(&board.v2, 100_000);
    let mut validate = Command::new(env!("CARGO_BIN_EXE_myelin"))
        .arg("--config")
        .arg(board.device.config())
        .args(["firmware", "validate"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    sleep(Duration::from_secs(1));
    assert!(validate.try_wait().unwrap().is_none(), "it waits");
    push.kill().unwrap();
    push.wait().unwrap();
    let began = Instant::now();
    assert!(validate.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(validated(&board), json!(true));
}

#[test]
fn the_tasks_of_an_operations_archive_are_used_where_there_is_one() {
    let board = start_trial("ops = \"{folder}/ops.fw\"\n[firmware.validation]\ngates = [\"manual\"]", TRIAL);
    let task =
        |name: &str, variables: &str| format!("task {name} {{ on-init {{\n{} }} }}\n", set_lines(variables));
    let tasks = [
        task("validate", "b.nerves_fw_validated=1 said=validated"),
        "task revert { on-init { error(\"not today\") } }\n".into(),
        task("factory-reset", "said=reset"),
    ];
    make_archive(&board, "ops.fw", &tasks.concat());
    let output = myelin(&board, "firmware validate");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(validated(&board), json!(true));
    let disk = fs::read(board.device.path("disk.img")).unwrap();
    assert_eq!(disk[0x20005..0x22000], disk[0x40005..0x42000], "both copies say the same");
    assert!(text(&disk[0x20000..0x22000]).contains("said=validated"));
    assert_fails(&myelin(&board, "firmware revert"), 1, "not today");
    assert_eq!(board.slots().1, "b");
    assert!(myelin(&board, "firmware factory-reset").status.success());
    assert!(board.device.path("state/ssh").exists(), "the task has done what was to be done");
}

#[test]
fn a_raspberry_pi_commits_the_slot_in_autoboot_txt() {
    let (a, b) = (
        "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n",
        "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n",
    );
    let mut board = Board::start(&format!(
        "{REBOOT}autoboot = \"{{folder}}/autoboot.txt\"\nreboot_param = \"0 tryboot\"\n"
    ));
    let path = board.device.path("autoboot.txt");
    fs::write(&path, a).unwrap();
    set(&board, TRIAL);
    board.reboot();
    wait_until("it is validated", || validated(&board) == json!(true));
    assert_eq!(fs::read_to_string(&path).unwrap(), b);
    assert!(myelin(&board, "firmware revert").status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), a);
    // One that is not understood stays as it is, and so does the trial.
    fs::write(&path, "[all]\nboot_partition=5\n").unwrap();
    set(&board, TRIAL);
    board.reboot();
    board.device.wait_for_log("nothing was changed, mend it by hand");
    assert_eq!(validated(&board), json!(false));
    assert_eq!(fs::read_to_string(&path).unwrap(), "[all]\nboot_partition=5\n");
}

#[test]
fn a_probe_may_do_nothing_and_only_once() {
    let board = Board::start("");
    let public = new_key(&board.device.path("probe"));
    let expect_probe = || {
        let mut socket = UnixStream::connect(board.device.path("run/ssh.sock")).unwrap();
        writeln!(socket, "{}", json!({"op": "probe", "key": public})).unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.contains("listening"), "{answer}");
    };
    let key = format!("IdentityFile={}", board.device.path("probe").display());
    let log_in = |words: &[&str]| {
        // The first of two values counts (ssh_config(5)).
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", &key]).args(board.device.ssh_options());
        ssh.args(["-p", &board.device.port.to_string(), "-o", "IdentityFile=none"]);
        ssh.args(words).stdin(Stdio::null()).output().unwrap()
    };
    let host = "root@127.0.0.1";
    assert_eq!(log_in(&["-s", host, "myelin-probe"]).status.code(), Some(255), "nobody expects it");
    for refused in
        [[host, "echo x"].as_slice(), &["-s", host, "fwup"], &["-s", host, "myelin-status"], &[host]]
    {
        expect_probe();
        let output = log_in(refused);
        assert!(!output.status.success() && output.stdout.is_empty(), "{refused:?} {output:?}");
    }
    expect_probe();
    let output = log_in(&["-s", host, "myelin-probe"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(log_in(&["-s", host, "myelin-probe"]).status.code(), Some(255), "it was used up");
    // For everybody else there is no such thing.
    let output = board.device.ssh_with(&["-s"]).arg("myelin-probe").output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    board.device.assert_reachable();
}

#[test]
fn only_firmware_for_this_device_and_no_older_one_is_installed() {
    let refusals = |firmware: &str, number: u64, why: &str| {
        let board = Board::start(firmware);
        let output = board.push(&board.firmware(number));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = text(&output.stdout);
        assert!(said.starts_with("Error: ") && said.contains(why) && said.ends_with('\n'), "{said}");
        assert!(!board.holds('b', &board.firmware(number)));
        board.assert_unharmed();
        board
    };
    refusals(
        "[firmware.accept]\nplatform = \"rpi4\"",
        3,
        "platform \"demo\", and this device takes rpi4 only",
    );
    refusals("[firmware.accept]\narchitecture = [\"arm\", \"aarch64\"]", 3, "architecture \"any\"");
    let board = refusals(
        "minimum_version = \"2.0\"\n[firmware.accept]\nplatform = [\"x\", \"demo\"]\nproduct = \"myelin-demo\"",
        1,
        "version 1.0.0, and nothing older than 2.0",
    );
    // What is no firmware cannot be checked, however it is cut.
    for bytes in [b"PK".to_vec(), vec![b'x'; 300_000], board.v2.archive[..200].to_vec(), Vec::new()] {
        let output = board.device.push(&bytes);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stdout).contains("cannot be checked"), "{output:?}");
    }
    board.assert_unharmed();
    // The right one goes through unchanged.
    board.assert_updatable();
}

#[test]
fn a_new_device_gets_its_first_key_on_the_boot_partition() {
    let (folder, public) = common::new_folder();
    let path = folder.path().join("boot/authorized_keys");
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("# first key\r\n{public}\r\n")).unwrap();
    let setting = format!("boot_partition_keys = {path:?}");
    let device = common::Device::start_in(folder, "", &setting, "");
    device.assert_reachable();
    let listed = text(&device.myelin(&["keys", "list"]).stdout);
    assert!(listed.contains(&format!("{}:2 (boot partition)", path.display())), "{listed}");
    // It is only ever read.
    let added = device.myelin(&["keys", "add", &public]);
    assert!(added.status.success(), "{added:?}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("# first key\r\n"));
    assert!(device.path("state/ssh/authorized_keys").exists());
}

#[test]
fn a_factory_reset_keeps_the_keys_of_the_image_and_needs_one() {
    let board = Board::start("");
    let other = new_key(&board.device.path("other"));
    assert!(board.device.myelin(&["keys", "add", &other]).status.success());
    assert!(myelin(&board, "firmware factory-reset").status.success());
    assert!(!board.device.path("state/ssh").exists());
    board.device.assert_reachable();

    let (folder, public) = common::new_folder();
    let device = common::Device::start_wrapped(folder, &[], "", "", "");
    device.wait_until_it_answers();
    let added = device.myelin(&["keys", "add", &public]);
    assert!(added.status.success(), "{added:?}");
    let output = device.myelin(&["firmware", "factory-reset"]);
    assert_fails(&output, 1, "no key of the image");
    device.assert_reachable();
}

#[test]
fn a_gate_without_what_it_needs_is_found_when_the_image_is_built() {
    let (folder, public) = common::new_folder();
    let path = folder.path().join("config.toml");
    let check = |validation: &str| {
        let text = format!("[ssh]\nauthorized_keys = [{public:?}]\n[firmware.validation]\n{validation}\n");
        fs::write(&path, text).unwrap();
        let check = Command::new(env!("CARGO_BIN_EXE_myelin")).args(["config", "check"]).arg(&path).output();
        text_of(check.unwrap())
    };
    assert_eq!(check("gates = [\"login\", \"manual\"]\ntime_limit = \"15m\"\naction = \"reboot\""), "");
    assert!(check("gates = [\"login\", \"health\"]").contains("firmware.validation.health"));
    assert!(check("gates = \"processes\"").contains("firmware.validation.processes"));
    assert!(check("gates = [\"hope\"]").contains("firmware.validation.gates"));
    assert!(check("time_limit = 1").contains("firmware.validation.time_limit"));
    assert!(check("health = [\"relative\"]").contains("firmware.validation.health"));
}

fn text_of(output: Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// As systemd's own unit runs it: no supervisor, no sockets, nobody to notify.
#[test]
fn the_agent_works_without_the_supervisor() {
    let board = start_trial("[firmware.validation]\ngates = [\"manual\"]", TRIAL);
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_myelin"))
            .arg("--config")
            .arg(board.device.config())
            .args(["worker", "agent"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut told_to_end = start();
    sleep(Duration::from_secs(1));
    signal(told_to_end.id(), "TERM");
    assert_eq!(told_to_end.wait().unwrap().code(), Some(143), "the trial is not over");
    assert!(myelin(&board, "firmware validate").status.success());
    assert_eq!(start().wait().unwrap().code(), Some(0));
}
