//! A device at the end of a bad line: every packet takes 150 ms each way, one of twenty is lost, and at times nothing gets
//! through at all. Nothing is asserted about speed.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use common::{Device, new_folder, pipe_into, random_bytes, text, wait_at_most};

/// For what takes a few seconds on a line that is good for its kind.
const LONG: Duration = Duration::from_secs(60);
/// Long after two questions without an answer, and long before a client is given up that is asked less often.
const GIVEN_UP: Duration = Duration::from_secs(60);
const DEVICE: &str = "10.99.0.1";
const DESK: &str = "10.99.0.2";
/// Larger than on most lines, so that megabytes take seconds: with the loss it is packets that count.
const LARGEST_PACKET: &str = "9000";

/// Two namespaces and the line between them.
struct Line {
    namespaces: [String; 2],
    program: Option<(Child, ChildStdin)>,
}

fn ip(words: &[&str]) -> bool {
    let output = Command::new("ip").args(words).output().expect("ip is installed (apt install iproute2)");
    if !output.status.success() {
        eprintln!("ip {}: {}", words.join(" "), text(&output.stderr).trim());
    }
    output.status.success()
}

impl Line {
    /// `None` where this machine cannot have one, which is said loudly.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("bad{}-{number}-{end}", std::process::id());
        let mut line = Self { namespaces: [name("device"), name("desk")], program: None };
        if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err()
            || !line.namespaces.iter().all(|namespace| ip(&["netns", "add", namespace]))
        {
            eprintln!(
                "SKIPPED: bad lines are not tested: /dev/net/tun cannot be opened, or namespaces cannot be made"
            );
            return None;
        }
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bad_line.py");
        let mut child = Command::new("/usr/bin/python3")
            .arg(program)
            .args(&line.namespaces)
            .args(["150", "0.05", "7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let stdin = child.stdin.take().unwrap();
        line.program = Some((child, stdin));
        assert_eq!(said, "up\n");
        for (namespace, address) in line.namespaces.iter().zip([DEVICE, DESK]) {
            let address = format!("{address}/24");
            assert!(ip(&["-n", namespace, "addr", "add", &address, "dev", "line0"]));
            assert!(ip(&["-n", namespace, "link", "set", "line0", "mtu", LARGEST_PACKET, "up"]));
            assert!(ip(&["-n", namespace, "link", "set", "lo", "up"]));
        }
        Some(line)
    }

    /// From now on nothing gets through, or what may.
    fn set_alive(&mut self, alive: bool) {
        let (_, stdin) = self.program.as_mut().unwrap();
        stdin.write_all(if alive { b"alive\n" } else { b"dead\n" }).unwrap();
    }

    /// Our daemon at one end, with these lines in its `[ssh]` and at the end of its configuration.
    fn device(&self, ssh: &str, rest: &str) -> Device {
        let (folder, public) = new_folder();
        let ssh = format!("listen_address = [\"{DEVICE}\"]\n{ssh}");
        let rest = rest.replace("{folder}", &folder.path().display().to_string());
        let device = Device::start_wrapped(folder, &self.at(0), &public, &ssh, &rest);
        self.wait_for(&device);
        device
    }

    /// OpenSSH's.
    fn sshd(&self, more: &str) -> Device {
        let device = Device::start_wrapped_sshd(&self.at(0), &format!("ListenAddress {DEVICE}\n{more}"));
        self.wait_for(&device);
        device
    }

    fn wait_for(&self, device: &Device) {
        wait_at_most(LONG, "somebody gets in", &mut || {
            self.ssh(device, &[]).arg("true").status().unwrap().success()
        });
    }

    fn at(&self, end: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespaces[end]]
    }

    /// ssh from the other end.
    fn ssh(&self, device: &Device, options: &[&str]) -> Command {
        let [program, words @ ..] = self.at(1);
        let mut command = Command::new(program);
        command.args(words).args(["ssh", "-o", &format!("HostName={DEVICE}")]).args(options);
        command.args(device.ssh_with(&[]).get_args()).stdin(Stdio::null());
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.program.take() {
            drop(stdin);
            let _ = child.wait();
        }
        for namespace in &self.namespaces {
            ip(&["netns", "del", namespace]);
        }
    }
}

/// Ours and OpenSSH's daemon at the same end, each with lines for its configuration. sshd asks nobody by default, ours does.
fn both(line: &Line, ssh: &str, sshd: &str) -> [(&'static str, Device); 2] {
    [("ours", line.device(ssh, FWUP)), ("OpenSSH's", line.sshd(sshd))]
}

/// A fwup that takes everything.
const FWUP: &str = "[firmware]\nfwup = \"{folder}/fwup\"\ndevpath = \"/dev/null\"\nenv_file = \"{folder}/env\"\n\
                    success_action = \"none\"";

#[test]
fn megabytes_both_ways_and_an_update_arrive_whole() {
    let Some(line) = Line::new() else { return };
    let devices = both(&line, "", "");
    let update = || {
        let device = &devices[0].1;
        let taker = "#!/bin/sh\ncat >\"${0%/*}/got\"; echo 'Success!'; printf '\\032\\000'\n";
        fs::write(device.path("fwup"), taker).unwrap();
        fs::set_permissions(device.path("fwup"), fs::Permissions::from_mode(0o755)).unwrap();
        let firmware = random_bytes(1 << 20, 6);
        let output = pipe_into(line.ssh(device, &["-s"]).arg("fwup"), &firmware);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), "Success!\n".into()),
            "{output:?}"
        );
        assert!(fs::read(device.path("got")).unwrap() == firmware);
    };
    let echo = |(name, device): &(&str, Device)| {
        let big = random_bytes(4 << 20, 5);
        let output = pipe_into(line.ssh(device, &[]).arg("cat"), &big);
        let (length, said) = (output.stdout.len(), text(&output.stderr));
        assert!(output.stdout == big, "{name}: {length} bytes came back: {said}");
    };
    thread::scope(|scope| {
        scope.spawn(update);
        devices.iter().for_each(|device| {
            scope.spawn(|| echo(device));
        });
    });
}

#[test]
fn a_session_outlives_a_line_that_is_dead_for_thirty_seconds() {
    let Some(mut line) = Line::new() else { return };
    let devices = both(&line, "", "ClientAliveInterval 30\nClientAliveCountMax 3");
    let mut answer = [0; 7];
    let mut clients = Vec::new();
    for (name, device) in &devices {
        let mut ssh = line.ssh(device, &[]);
        let mut client = ssh.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut to, mut from) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        to.write_all(b"before\n").unwrap();
        from.read_exact(&mut answer).unwrap();
        clients.push((name, device, client, to, from));
    }
    line.set_alive(false);
    for (_, _, _, to, _) in &mut clients {
        to.write_all(b"during\n").unwrap();
    }
    sleep(Duration::from_secs(30));
    line.set_alive(true);
    for (name, device, mut client, mut to, mut from) in clients {
        from.read_exact(&mut answer).unwrap_or_else(|error| panic!("{name}: {error}\n{}", device.log()));
        assert_eq!(&answer, b"during\n", "{name}");
        to.write_all(b"after.\n").unwrap();
        drop(to);
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), client.wait().unwrap().code()), ("after.\n", Some(0)), "{name}");
    }
}

#[test]
fn a_client_that_answers_no_more_is_given_up() {
    let Some(mut line) = Line::new() else { return };
    // Without the limit on what is sent and never acknowledged, which would end it too.
    let ssh = "client_alive_interval = 2\nclient_alive_count_max = 2\ntcp_user_timeout = 0";
    let devices = both(&line, ssh, "ClientAliveInterval 2\nClientAliveCountMax 2");
    let commands = ["sleep 30787", "sleep 30788"];
    let runs = |command: &str| {
        let mut found = Command::new("pgrep");
        found.args(["-fx", command]).stdout(Stdio::null()).status().unwrap().success()
    };
    let mut clients: Vec<_> = devices
        .iter()
        .zip(commands)
        // OpenSSH's daemon leaves alone what has no terminal.
        .map(|((_, device), command)| {
            line.ssh(device, &["-tt"]).arg(command).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for command in commands {
        wait_at_most(LONG, "it runs", &mut || runs(command));
    }
    sleep(Duration::from_secs(8));
    assert!(commands.into_iter().all(runs), "where answers come late they come all the same");
    line.set_alive(false);
    for command in commands {
        wait_at_most(GIVEN_UP, &format!("{command} is gone"), &mut || !runs(command));
    }
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    line.set_alive(true);
    for (_, device) in &devices {
        line.wait_for(device);
    }
}
