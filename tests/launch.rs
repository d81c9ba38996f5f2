//! A program that does not start stops nobody but who wants it: its disk hangs, or holds it back as here.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Device, PATIENCE, descendants, is_running, new_folder, printed_within, text, wait_until};

/// Sessions and logins while others hang; the time limit of a start is ten seconds.
const SOON: Duration = Duration::from_secs(8);
/// When a start has been given up for certain, by the daemon and by the kernel.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// A program that nobody can start while this lives: the kernel waits until its lease is given back (fcntl(2)).
struct Unstartable {
    path: PathBuf,
    marker: PathBuf,
    holder: Child,
}

impl Unstartable {
    fn new(folder: &Path, name: &str) -> Self {
        let (path, marker) = (folder.join(name), folder.join(format!("{name}-ran")));
        let stay = folder.join("stay").display().to_string();
        let script = format!(
            "#!/bin/sh\necho >> {}\necho ran\nstty size 2> /dev/null\n[ ! -e {stay} ] || exec sleep 300\n",
            marker.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let hold = "import fcntl, signal, sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                    file = open(sys.argv[1])\nfcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                    print('held', flush=True)\nsys.stdin.read()";
        let mut holder = Command::new("python3")
            .args(["-c", hold])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 4];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).expect("this file system has leases");
        Self { path, marker, holder }
    }

    fn release(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }

    fn has_run(&self) -> bool {
        self.marker.exists()
    }
}

impl Drop for Unstartable {
    fn drop(&mut self) {
        self.release();
    }
}

/// A device with that program as the subsystem `hang`.
fn device_with_one() -> (Device, Unstartable) {
    let (folder, public) = new_folder();
    let program = Unstartable::new(folder.path(), "hanging");
    let subsystem =
        format!("[ssh.subsystem]\nhang = [{:?}]\nshout = [\"/usr/bin/tr\", \"a-z\", \"A-Z\"]", program.path);
    (Device::start_in(folder, &public, "max_startups = 20", &subsystem), program)
}

fn subsystem(device: &Device, name: &str) -> Command {
    let mut client = device.ssh_with(&["-s"]);
    client.arg(name).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    client
}

/// Starts clients whose program hangs, and waits until the daemon has got so far.
fn hang(device: &Device, clients: usize) -> Vec<Child> {
    let before = descendants(device.worker()).len();
    let clients = (0..clients).map(|_| subsystem(device, "hang").spawn().unwrap()).collect();
    wait_until("one hangs between fork and exec", || descendants(device.worker()).len() > before);
    clients
}

fn assert_works_soon(what: &str, command: &mut Command, expected: &str) {
    let printed = printed_within(SOON, what, command);
    assert!(printed.contains(expected), "{what}: {printed}");
}

fn assert_given_up(client: Child) {
    let Output { status, stderr, .. } = client.wait_with_output().unwrap();
    let said = text(&stderr);
    assert!(said.contains("its disk does not answer"), "{said}");
    assert_eq!(status.code(), Some(126));
}

#[test]
fn a_program_that_does_not_start_stops_nobody_else() {
    let (device, mut program) = device_with_one();
    let worker = device.worker();
    let hanging = hang(&device, 1);
    assert_works_soon("a command", device.ssh().arg("echo $((6 * 7))"), "42");
    assert_works_soon("a terminal", device.ssh_with(&["-tt"]).arg("tty").stdin(Stdio::null()), "/dev/pts/");
    assert_works_soon("a subsystem", &mut subsystem(&device, "myelin-status"), "running");
    let began = Instant::now();
    for client in hanging {
        assert_given_up(client);
    }
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    // Whoever waited for it has gone: it must not run when its disk comes back.
    wait_until("nothing is left of it", || descendants(worker).is_empty());
    program.release();
    device.assert_reachable();
    assert!(!program.has_run(), "it ran although its client had been told that it does not start");
    assert_eq!(text(&subsystem(&device, "hang").output().unwrap().stdout), "ran\n");
    assert_eq!(device.worker(), worker);
}

#[test]
fn what_a_client_says_to_a_program_on_its_way_reaches_it() {
    let (device, mut program) = device_with_one();
    fs::write(device.path("stay"), "").unwrap();
    let client = r#"
import asyncio, asyncssh, sys
async def main():
    async with asyncssh.connect("127.0.0.1", int(sys.argv[1]), username="root", client_keys=[sys.argv[2]],
                                known_hosts=None, agent_path=None, config=None) as connection:
        process = await connection.create_process(subsystem="hang", encoding="utf-8", term_type="xterm", term_size=(80, 24))
        process.change_terminal_size(132, 50)
        other = await connection.create_process(subsystem="hang", encoding="utf-8")
        other.send_signal("TERM")
        # Answered once what was said has been heard.
        await connection.run("true")
        print("told", flush=True)
        print(await process.stdout.readline(), await process.stdout.readline())
        await other.wait()
        print(other.exit_signal[0])
asyncio.run(asyncio.wait_for(main(), 60))
"#;
    let mut client = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", client, &device.port.to_string()])
        .arg(device.path("key"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = [0; 5];
    client
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut told)
        .expect("asyncssh is installed (apt install python3-asyncssh)");
    wait_until("both hang between fork and exec", || descendants(device.worker()).len() == 2);
    program.release();
    let said = text(&client.wait_with_output().unwrap().stdout);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["ran", "50", "132", "TERM"]);
}

#[test]
fn one_that_starts_after_its_client_was_told_that_it_does_not_is_ended_at_once() {
    let (device, mut program) = device_with_one();
    fs::write(device.path("stay"), "").unwrap();
    for client in hang(&device, 1) {
        assert_given_up(client);
    }
    // Now, before the kernel gives it up too.
    program.release();
    wait_until("nothing is left of it", || descendants(device.worker()).is_empty());
    device.assert_reachable();
}

#[test]
fn more_of_them_than_threads_leave_logins_and_other_programs_alone() {
    let (device, program) = device_with_one();
    let worker = device.worker();
    let hanging = hang(&device, 9);
    for _ in 0..3 {
        assert_works_soon(
            "a subsystem without a program",
            &mut subsystem(&device, "myelin-status"),
            "running",
        );
        assert_works_soon("another program", device.ssh().arg("echo $((6 * 7))"), "42");
    }
    for client in hanging {
        assert_given_up(client);
    }
    let began = Instant::now();
    wait_until("nothing is left of them", || descendants(worker).is_empty());
    assert!(began.elapsed() < GIVEN_UP);
    assert!(!program.has_run());
    assert_eq!(device.worker(), worker);
}

/// A disk that is gone holds whatever is started from it, and each keeps as many threads as one program may.
#[test]
fn many_different_programs_that_do_not_start_leave_the_others_alone() {
    let (folder, public) = new_folder();
    let names: Vec<_> = (0..6).map(|number| format!("hang{number}")).collect();
    let programs: Vec<_> = names.iter().map(|name| Unstartable::new(folder.path(), name)).collect();
    let mut subsystems = String::from("[ssh.subsystem]\n");
    for (name, program) in names.iter().zip(&programs) {
        subsystems += &format!("{name} = [{:?}]\n", program.path);
    }
    let device = Device::start_in(folder, &public, "max_startups = 20", &subsystems);
    let twice = names.iter().chain(&names);
    let hanging: Vec<_> = twice.map(|name| subsystem(&device, name).spawn().unwrap()).collect();
    wait_until("all hang between fork and exec", || descendants(device.worker()).len() == hanging.len());
    assert_works_soon("another program", device.ssh().arg("echo $((6 * 7))"), "42");
    hanging.into_iter().for_each(assert_given_up);
    assert!(!programs.iter().any(Unstartable::has_run));
}

/// Such a program has a copy of every descriptor, that of the lock of updates too.
#[test]
fn one_that_began_during_an_update_does_not_hold_up_the_next() {
    let (folder, public) = new_folder();
    let program = Unstartable::new(folder.path(), "hanging");
    let (fwup, go) = (folder.path().join("fwup"), folder.path().join("go"));
    let script = "#!/bin/sh\ncat > /dev/null\nuntil [ -e GO ]; do sleep 0.05; done\nexit 9\n";
    fs::write(&fwup, script.replace("GO", &go.display().to_string())).unwrap();
    fs::set_permissions(&fwup, fs::Permissions::from_mode(0o755)).unwrap();
    let rest = format!(
        "[ssh.subsystem]\nhang = [{:?}]\n[firmware]\nfwup = {fwup:?}\ndevpath = {:?}\nenv_file = {:?}\n",
        program.path,
        folder.path().join("disk"),
        folder.path().join("env")
    );
    fs::write(folder.path().join("disk"), "").unwrap();
    let device = Device::start_in(folder, &public, "", &rest);
    let mut first = subsystem(&device, "fwup").spawn().unwrap();
    wait_until("the first update runs", || is_running(&fwup.display().to_string()));
    let _hanging = hang(&device, 1);
    fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(9));
    let next = device.push(b"some bytes");
    assert_eq!(next.status.code(), Some(9), "{next:?}");
}

#[test]
fn a_client_that_goes_takes_its_program_along_that_has_not_started() {
    let (device, mut program) = device_with_one();
    let worker = device.worker();
    for mut client in hang(&device, 1) {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    program.release();
    wait_until("nothing is left of it", || descendants(worker).is_empty());
    assert!(!is_running(&program.path.display().to_string()));
    device.assert_reachable();
}
