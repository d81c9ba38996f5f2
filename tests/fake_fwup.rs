//! How a fwup is understood that behaves, and one that does not.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Device, is_running, new_folder, status_kib, text, wait_at_most, wait_until};

/// When a client's end has been seen and a fwup that ignores SIGTERM ended; kernels go on for over a minute to
/// offer what a killed client had left to send.
const GONE_AT_LAST: Duration = Duration::from_secs(20);

/// A device whose fwup is the shell script of the moment.
struct Fake(Device);

impl Fake {
    fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines in `[firmware]`.
    fn start_with(more: &str) -> Self {
        let (folder, public_key) = new_folder();
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("disk"), "").unwrap();
        let fwup = folder.path().join("fwup");
        fs::write(&fwup, format!("#!/bin/sh\n. {path}/script\n")).unwrap();
        fs::set_permissions(&fwup, fs::Permissions::from_mode(0o755)).unwrap();
        let firmware = format!(
            "[firmware]\nfwup = \"{path}/fwup\"\ndevpath = \"{path}/disk\"\nenv_file = \"{path}/env\"\n\
             success_action = [\"sh\", \"-c\", \"echo >> {path}/acted\"]\n{more}\n"
        );
        Self(Device::start_in(folder, &public_key, "", &firmware))
    }

    /// Pushes a few bytes into a fwup that does `script`. `$here` in it is the device's folder.
    fn push(&self, script: &str) -> Output {
        self.script(script);
        self.0.push(b"some bytes")
    }

    fn script(&self, script: &str) {
        let here = self.0.folder.path().display();
        fs::write(self.0.path("script"), format!("here={here}\n{script}\n")).unwrap();
    }

    /// How often the success action has run.
    fn actions(&self) -> usize {
        sleep(Duration::from_millis(1200));
        fs::read_to_string(self.0.path("acted")).unwrap_or_default().lines().count()
    }

    /// Starts a push that reads its input from nowhere and does not end by itself.
    fn hanging_push(&self, script: &str, source: Stdio) -> std::process::Child {
        self.script(script);
        let mut client = self.0.ssh_with(&["-s"]);
        client.arg("fwup").stdin(source).stdout(Stdio::null()).spawn().unwrap()
    }

    fn is_running(&self) -> bool {
        is_running(&format!("{} --exit-handshake", self.0.path("fwup").display()))
    }
}

const GOOD: &str = r"cat > /dev/null; printf '\032\000'";

#[test]
fn the_arguments_are_those_of_ssh_subsystem_fwup() {
    let fake = Fake::start();
    let output = fake.push(r#"printf '%s\n' "$@" > $here/args; cat > $here/got; printf 'hi\032\000'"#);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hi".into()));
    let disk = fake.0.path("disk").display().to_string();
    let expected = ["--exit-handshake", "--apply", "--no-unmount", "-d", &disk, "--task", "upgrade", ""];
    assert_eq!(fs::read_to_string(fake.0.path("args")).unwrap(), expected.join("\n"));
    assert_eq!(fs::read(fake.0.path("got")).unwrap(), b"some bytes");
    assert_eq!(fake.actions(), 1);
    // This device has no slots that a further update could harm.
    assert_eq!(fake.push(GOOD).status.code(), Some(0));
    assert_eq!(fake.actions(), 2);
}

#[test]
fn its_environment_is_that_of_the_configuration() {
    let secret = "s3cret-word";
    let fake = Fake::start_with(&format!("fwup_env = {{ UPDATE_TOKEN = \"{secret}\", EMPTY = \"\" }}"));
    let output = fake.push(&format!("env > $here/environment; {GOOD}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let environment = fs::read_to_string(fake.0.path("environment")).unwrap();
    for line in [format!("UPDATE_TOKEN={secret}"), "EMPTY=".into()] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(environment.contains("PATH=/"), "the rest of it stays: {environment}");
    // Nobody else hears of it: no session, no log, and not who asks what the configuration is.
    assert!(!text(&fake.0.run("env").stdout).contains(secret));
    let shown = text(&fake.0.myelin(&["config", "show"]).stdout);
    assert!(shown.contains("fwup_extra_options") && !shown.contains(secret), "{shown}");
    assert!(!fake.0.log().contains(secret));
}

#[test]
fn the_handshake_may_come_in_two_pieces() {
    let fake = Fake::start();
    for (status, expected) in [("000", 0), ("003", 3)] {
        let output = fake.push(&format!(
            r"cat > /dev/null; printf 'text\n\032'; sleep 0.1; printf '\{status}'; exit {expected}"
        ));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(expected), "text\n".into()));
    }
    assert_eq!(fake.actions(), 1);
}

#[test]
fn what_is_no_success_is_told_and_followed_by_nothing() {
    let fake = Fake::start();
    for (script, expected) in [
        ("cat > /dev/null; echo no handshake; exit 0", 1),
        ("cat > /dev/null; exit 9", 9),
        ("cat > /dev/null; kill -9 $$", 1),
        ("exec >&-; cat > /dev/null; exit 0", 1),
        (r"cat > /dev/null; printf '\032'; exit 0", 1),
        (r"cat > /dev/null; printf '\032\000'; exit 1", 1),
        (r"cat > /dev/null; printf '\032\000x'", 1),
        (r"cat > /dev/null; printf '\032\000'; sleep 0.2; printf x", 1),
        (r"cat > /dev/null; printf 'a\032b\032\000'", 1),
        (r"cat > /dev/null; printf '\032\003'; exit 0", 3),
        (r"printf '\032\001'; cat > /dev/null; exit 1", 1),
        // Its child lives on and keeps its stdout.
        ("sleep 100 & exit 0", 1),
        ("setsid sleep 60 & exit 4", 4),
    ] {
        let began = Instant::now();
        let output = fake.push(script);
        assert_eq!(output.status.code(), Some(expected), "{script}: {output:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{script}: {:?}", began.elapsed());
    }
    assert_eq!(fake.actions(), 0);
    fake.0.assert_reachable();
}

#[test]
fn a_child_of_fwup_does_not_hold_up_a_success() {
    let fake = Fake::start();
    let marker = format!("sleep 7{}", fake.0.port);
    let output = fake.push(&format!("{marker} &\n{GOOD}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!is_running(&marker), "what fwup started ends with it");
}

#[test]
fn a_megabyte_of_last_words_arrives_whole() {
    let fake = Fake::start();
    fake.script(r"cat > /dev/null; head -c 1048576 /dev/zero | tr '\000' x; printf '\032\000'");
    for round in 0..25 {
        let output = fake.0.push(b"some bytes");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 1 << 20), "round {round}");
    }
}

#[test]
fn stderr_reaches_the_client_and_the_log() {
    let fake = Fake::start();
    let output = fake.push(&format!("echo card is old >&2; printf 'no line end' >&2; {GOOD}"));
    assert_eq!(text(&output.stderr), "card is old\nno line end");
    assert_eq!(text(&output.stdout), "");
    fake.0.wait_for_log("card is old");
    fake.0.wait_for_log("no line end");
    // More than a pipe holds, after the handshake.
    let output = fake.push(&format!("{GOOD}; head -c 300000 /dev/zero >&2"));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 300_000));
}

#[test]
fn a_slow_card_costs_neither_the_connection_nor_memory() {
    let fake = Fake::start();
    assert_eq!(fake.push(GOOD).status.code(), Some(0));
    fake.script(&format!("for n in $(seq 64); do head -c 262144 > /dev/null; sleep 0.25; done\n{GOOD}"));
    let worker = fake.0.worker();
    let before = status_kib(worker, "RssAnon");
    let alive = ["-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=3", "-s"];
    let began = Instant::now();
    let done = std::sync::atomic::AtomicBool::new(false);
    // Memory of its own: the code that a push runs through is mapped from the file, and comes and goes.
    let (output, peak) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                peak = peak.max(status_kib(worker, "RssAnon"));
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let output = common::pipe_into(fake.0.ssh_with(&alive).arg("fwup"), &vec![7; 16 << 20]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (output, watch.join().unwrap())
    });
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(began.elapsed() > Duration::from_secs(14), "{:?}", began.elapsed());
    eprintln!("the worker grew from {before} KiB to {peak} KiB");
    assert!(before > 0 && peak < before + 4096, "from {before} KiB to {peak} KiB");
}

#[test]
fn a_client_that_vanishes_is_noticed_when_nothing_is_read() {
    let fake = Fake::start();
    let source = fs::File::open("/dev/zero").unwrap();
    let mut client = fake.hanging_push("trap '' TERM; while :; do sleep 1; done", source.into());
    wait_until("it runs", || fake.is_running());
    // Until every queue on the way is full.
    sleep(Duration::from_secs(2));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_at_most(GONE_AT_LAST, "fwup is gone", &mut || !fake.is_running());
    assert_eq!(fake.push(GOOD).status.code(), Some(0), "the lock is free");
}

#[test]
fn a_client_that_takes_no_output_holds_nothing_up_once_it_is_gone() {
    let fake = Fake::start();
    fake.script("trap '' TERM; while :; do head -c 100000 /dev/zero; done");
    let mut client = fake.0.ssh_with(&["-s"]);
    let mut client = client.arg("fwup").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("it runs", || fake.is_running());
    sleep(Duration::from_secs(2));
    assert_eq!(fake.push(GOOD).status.code(), Some(75));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_at_most(GONE_AT_LAST, "fwup is gone", &mut || !fake.is_running());
    assert_eq!(fake.push(GOOD).status.code(), Some(0));
}

#[test]
fn what_is_sent_to_a_fwup_that_is_done_is_taken_and_dropped() {
    let fake = Fake::start();
    fake.script(r"echo 'fwup: not for this board'; printf '\032\001'; exit 1");
    let mut client = fake.0.ssh_with(&["-s"]);
    let mut client = client.arg("fwup").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    for _ in 0..20 {
        stdin.write_all(&[7; 1 << 20]).expect("`cat` does not die before its client has the message");
    }
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "fwup: not for this board\n");
    // Without an end it is not taken for ever.
    let began = Instant::now();
    let mut client = fake.0.ssh_with(&["-s"]);
    let mut client = client.arg("fwup").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let stdin = client.stdin.take();
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!((4..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    drop(stdin);
}

#[test]
fn the_lock_is_held_as_long_as_anything_of_fwup_writes() {
    let fake = Fake::start();
    let marker = format!("sleep 4.0{}", fake.0.port);
    let mut client =
        fake.hanging_push(&format!("setsid {marker} & exec sleep 100.0{}", fake.0.port), Stdio::null());
    wait_until("it runs", || is_running(&marker));
    common::signal(fake.0.worker(), "KILL");
    client.wait().unwrap();
    wait_until("fwup itself is gone", || !is_running(&format!("sleep 100.0{}", fake.0.port)));
    fake.0.wait_until_it_answers();
    let output = fake.push(GOOD);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).starts_with("Error: update in progress (ssh 127.0.0.1"), "{output:?}");
    wait_until("the last of it is gone", || !is_running(&marker));
    assert_eq!(fake.push(GOOD).status.code(), Some(0));
}

#[test]
fn a_fwup_that_does_not_end_is_ended() {
    let fake = Fake::start();
    let began = Instant::now();
    let output = fake.push(&format!("trap '' TERM; {GOOD}; while :; do sleep 1; done"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(fake.actions(), 0);
}

const SLOTS: &str = "nerves_fw_active=a\na.nerves_fw_version=1\n";
const FLIP: &str = r"printf 'nerves_fw_active=b\nb.nerves_fw_version=2\n' > $here/env";

#[test]
fn an_update_that_ends_well_without_its_client_still_waits_for_the_reboot() {
    let fake = Fake::start();
    fs::write(fake.0.path("env"), SLOTS).unwrap();
    let script = format!("cat > $here/got; sleep 1; {FLIP}; touch $here/flipped; printf '\\032\\000'");
    let mut client = fake.hanging_push(&script, Stdio::null());
    wait_until("it runs", || fake.is_running());
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("it has ended", || fake.0.path("flipped").exists() && !fake.is_running());
    assert_eq!(fake.actions(), 0, "nobody is told, nothing is done");
    let output = fake.push(GOOD);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(text(&output.stdout), "Error: firmware 2 is installed and waits for a reboot\n");
}

#[test]
fn an_update_whose_worker_was_killed_after_the_last_step_waits_for_the_reboot() {
    let fake = Fake::start();
    fs::write(fake.0.path("env"), SLOTS).unwrap();
    // The daemon knows the slots of this boot already; it read an empty file, so let it boot again.
    let mut fake = fake;
    fake.0.stop();
    fs::remove_dir_all(fake.0.path("run")).unwrap();
    fake.0.start_again();
    let mut client = fake.hanging_push(&format!("{FLIP}; touch $here/flipped; sleep 100"), Stdio::null());
    wait_until("it has flipped", || fake.0.path("flipped").exists());
    common::signal(fake.0.worker(), "KILL");
    client.wait().unwrap();
    wait_until("fwup is gone", || !fake.is_running());
    fake.0.wait_until_it_answers();
    assert_eq!(fake.push(GOOD).status.code(), Some(75));
}
