//! Keys of `[ssh]` that change how connections and sessions are treated.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::transfer::{PARAMIKO, python, succeeded};
use common::{Device, banner, free_port, new_folder, pipe_into, text, wait_until};

#[test]
fn a_random_name_is_new_for_each_connection() {
    let device = Device::start("version_string = \"random\"", "");
    let names: Vec<String> = (0..12).map(|_| banner(device.port).unwrap()).collect();
    for name in &names {
        let letters = name.trim_end().strip_prefix("SSH-2.0-").unwrap();
        assert!(
            (2..=5).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase()),
            "{name}"
        );
    }
    assert!(names.iter().collect::<BTreeSet<_>>().len() > 3, "{names:?}");
    device.assert_reachable();
}

#[test]
fn a_client_of_small_packets_is_refused() {
    let (folder, public) = common::new_folder();
    let here = folder.path().join("here");
    let settings = format!("min_remote_packet_size = 8192\npermit_socket = [\"{}\"]", here.display());
    let device = Device::start_in(folder, &public, &settings, "");
    let program = r#"
try:
    transport.open_session(max_packet_size=4096)
    raise SystemExit("it was opened")
except paramiko.ChannelException as error:
    assert error.code == 1, error
channel = transport.open_session(max_packet_size=8192)
channel.exec_command("exit 5")
assert channel.recv_exit_status() == 5

import os, socket
listening = socket.create_server(("127.0.0.1", 0))
here = socket.socket(socket.AF_UNIX)
here.bind(os.path.join(sys.argv[3], "here"))
here.listen()
def forward(kind, size):
    if kind == "direct-tcpip":
        return transport.open_channel(kind, listening.getsockname(), ("127.0.0.1", 1), max_packet_size=size)
    plain = transport._send_user_message
    def with_path(message):
        message.add_string(here.getsockname())
        message.add_string("")
        message.add_int(0)
        plain(message)
    transport._send_user_message = with_path
    try:
        return transport.open_channel(kind, max_packet_size=size)
    finally:
        transport._send_user_message = plain
for kind in ["direct-tcpip", "direct-streamlocal@openssh.com"]:
    try:
        forward(kind, 4096)
        raise SystemExit(kind + " was opened")
    except paramiko.ChannelException as error:
        assert error.code == 1, error
    forward(kind, 8192).close()
"#;
    succeeded(&python(&device, "paramiko", &format!("{PARAMIKO}{program}")), "paramiko");
}

/// What `ss` says of the daemon's end of the one connection to its port.
fn socket(device: &Device) -> String {
    let port = format!("sport = :{}", device.port);
    let shown = Command::new("ss").args(["-Htnoi", "--tos", "state", "established", &port]).output().unwrap();
    text(&shown.stdout)
}

#[test]
fn sockets_are_as_the_configuration_says() {
    if Command::new("ss").arg("-V").output().is_err() {
        eprintln!("SKIPPED: options of sockets are not tested, because ss is missing (apt install iproute2)");
        return;
    }
    let device = Device::start("ipqos = \"af21 cs1\"", "");
    let run = |options: &[&str]| {
        let child = device.ssh_with(options).arg("sleep 780").stdin(Stdio::null()).spawn();
        child.unwrap()
    };
    let mut child = run(&[]);
    wait_until("a command is bulk", || socket(&device).contains("tos:0x20"));
    // What is yet to be acknowledged has the timer for itself.
    wait_until("it is asked whether it lives", || socket(&device).contains("timer:(keepalive"));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("it is gone", || socket(&device).is_empty());
    let mut child = run(&["-tt"]);
    wait_until("a terminal is not", || socket(&device).contains("tos:0x48"));
    child.kill().unwrap();
    child.wait().unwrap();

    let device = Device::start("tcp_keep_alive = false\nipqos = \"none\"", "");
    let child = device.ssh().arg("sleep 780").stdin(Stdio::null()).spawn();
    let mut child = child.unwrap();
    wait_until("it runs", || {
        common::descendants(device.worker()).iter().any(|(_, line)| line == "sleep 780")
    });
    let shown = socket(&device);
    assert!(!shown.is_empty() && !shown.contains("timer:(keepalive"), "{shown}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_idle_channel_ends_and_a_busy_one_does_not() {
    let device = Device::start("channel_timeout = [\"session:subsystem:*=none\", \"session:*=3s\"]", "");
    let began = Instant::now();
    let busy = device.run("for i in 1 2 3 4 5 6 7; do sleep 1; echo $i; done");
    assert_eq!(text(&busy.stdout).lines().count(), 7, "{busy:?}");
    assert!(began.elapsed() >= Duration::from_secs(7));
    let began = Instant::now();
    let idle = device.run("echo begun; exec sleep 781");
    assert_eq!(text(&idle.stdout), "begun\n");
    assert!(!idle.status.success() && began.elapsed() < Duration::from_secs(60), "{idle:?}");
    wait_until("its program is gone", || !common::is_running("sleep 781"));
    assert!(device.log().contains("channel_timeout is over"));
}

#[test]
fn commands_are_logged_where_that_is_wanted() {
    let device =
        Device::start("log_commands = true", "[ssh.subsystem]\nshout = [\"/usr/bin/tr\", \"a\", \"A\"]");
    device.run("true 'a\nssh.auth.ok'");
    assert_eq!(text(&pipe_into(device.ssh_with(&["-s"]).arg("shout"), b"a").stdout), "A");
    device.wait_for_log("session:subsystem:shout");
    let log = device.log();
    let opened: Vec<_> = log.lines().filter(|line| line.contains("ssh.session.open")).collect();
    assert_eq!(opened.len(), 2, "{log}");
    assert!(opened[0].contains("session:command") && opened[0].contains("ssh.auth.ok"), "{}", opened[0]);

    let device = Device::start("", "");
    device.run("echo secret-word");
    device.wait_for_log("ssh.disconnect");
    assert!(!device.log().contains("secret-word"));
}

#[test]
fn what_is_said_in_place_of_a_shell() {
    let settings = "shell = \"disabled\"\nexec = \"disabled\"\nno_shell_message = \"files only\\n\"";
    let device = Device::start(settings, "");
    for command in [None, Some("id")] {
        let mut ssh = device.ssh();
        ssh.args(command).stdin(Stdio::null());
        let output = ssh.output().unwrap();
        assert_eq!(
            (text(&output.stdout), output.status.code()),
            ("files only\n".into(), Some(1)),
            "{command:?}"
        );
    }
}

/// A program that appends what it is told to the file `told`, and its configuration.
fn listener(folder: &Path, more: &str) -> String {
    let program = folder.join("listener");
    let told = folder.join("told");
    let script = format!(
        "#!/bin/sh\necho \"$MYELIN_EVENT|$MYELIN_USER|$MYELIN_METHOD|$MYELIN_KEY|$MYELIN_REASON|\
         ${{MYELIN_PEER%:*}}|$MYELIN_BYTES_IN\" >> {}\n{more}\n",
        told.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("on_event = {:?}", program.display().to_string())
}

#[test]
fn a_program_is_told_of_logins_refusals_and_ends() {
    let (folder, public) = new_folder();
    let settings = listener(folder.path(), "");
    let device = Device::start_in(folder, &public, &settings, "");
    device.run("true");
    let other = device.path("other");
    common::new_key(&other);
    let option = format!("-oIdentityFile={}", other.display());
    assert_eq!(
        device.ssh_with(&[&option]).arg("true").stdin(Stdio::null()).output().unwrap().status.code(),
        Some(0)
    );
    let told = || fs::read_to_string(device.path("told")).unwrap_or_default();
    wait_until("all is told", || told().lines().count() >= 5);
    let told = told();
    let shown = Command::new("ssh-keygen").arg("-lf").arg(device.path("key.pub")).output().unwrap();
    let fingerprint = text(&shown.stdout).split_whitespace().nth(1).unwrap().to_owned();
    let ok = format!("ssh.auth.ok|root|publickey|{fingerprint}||127.0.0.1|");
    assert_eq!(told.lines().filter(|line| *line == ok).count(), 2, "{told}");
    assert!(told.contains("ssh.auth.fail|root|publickey||key not authorized|127.0.0.1|\n"), "{told}");
    let end = format!("ssh.disconnect|root||{fingerprint}|closed|127.0.0.1|");
    let bytes = told.lines().find_map(|line| line.strip_prefix(&end)).unwrap();
    assert!(bytes.parse::<u64>().unwrap() > 1000, "{told}");
}

#[test]
fn a_program_that_hangs_delays_no_login_and_is_ended() {
    let (folder, public) = new_folder();
    let settings = listener(folder.path(), "exec sleep 783");
    let device = Device::start_in(folder, &public, &settings, "");
    for _ in 0..8 {
        device.assert_reachable();
    }
    let running =
        || common::descendants(device.worker()).iter().filter(|(_, line)| line == "sleep 783").count();
    assert!(running() <= 4, "{:?}", common::descendants(device.worker()));
    device.wait_for_log("this event is not told");
    wait_until("all are ended", || running() == 0);
    device.wait_for_log("did not run to its end");
}

#[test]
fn an_exchange_of_keys_that_stalls_ends_the_connection() {
    let device = Device::start("rekey_timeout = \"5s\"", "");
    let program = r#"
channel = transport.open_session()
channel.exec_command("exec sleep 782")
# It begins one and takes no answer, but goes on to send what means nothing.
table = dict(paramiko.Transport._handler_table)
table[20] = lambda self, message: None
paramiko.Transport._handler_table = table
transport._send_kex_init()
began = time.time()
while transport.is_active() and time.time() - began < 100:
    message = paramiko.Message()
    message.add_byte(b"\x02")
    message.add_string(b"nothing")
    try:
        transport.packetizer.send_message(message)
    except Exception:
        break
    time.sleep(0.3)
assert time.time() - began < 100, "it stays"
"#;
    succeeded(&python(&device, "paramiko", &format!("{PARAMIKO}{program}")), "paramiko");
    device.wait_for_log("did not end within rekey_timeout");
    wait_until("its program is gone", || !common::is_running("sleep 782"));
}

#[test]
fn a_busy_connection_is_no_exchange_of_keys() {
    let device = Device::start("rekey_timeout = \"5s\"\nrekey_limit = \"16M\"", "");
    std::thread::scope(|scope| {
        // Output that is read late, input that is read late, and one that renews its keys all the time.
        scope.spawn(|| {
            let line = format!("{} 'head -c 40M /dev/zero' | (sleep 14; wc -c)", device.ssh_line(&[]));
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(text(&output.stdout).trim(), "41943040", "{output:?}");
        });
        scope.spawn(|| {
            let line = format!("head -c 90M /dev/zero | {} 'sleep 14; wc -c'", device.ssh_line(&[]));
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(text(&output.stdout).trim(), "94371840", "{output:?}");
        });
        scope.spawn(|| {
            let line =
                format!("head -c 40M /dev/zero | {} 'wc -c'", device.ssh_line(&["-o", "RekeyLimit=1M"]));
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(text(&output.stdout).trim(), "41943040", "{output:?}");
        });
    });
    assert!(!device.log().contains("rekey_timeout"));
}

#[test]
fn log_lines_go_to_syslogd_and_to_stderr_without_one() {
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no mount namespaces here");
        return;
    }
    // A /dev of its own, in which BusyBox' syslogd makes its socket; it ends with the daemon.
    let system = r#"
set -e
mount --make-rprivate /
mkdir "$0/dev"
mount --rbind /dev "$0/dev"
mount -t tmpfs none /dev
for name in null zero random urandom tty ptmx; do touch "/dev/$name"; mount --bind "$0/dev/$name" "/dev/$name"; done
setpriv --pdeathsig KILL busybox syslogd -n -O "$0/messages" &
until [ -S /dev/log ]; do sleep 0.1; done
exec "$@"
"#;
    let (folder, public) = new_folder();
    let here = folder.path().display().to_string();
    let device =
        Device::start_wrapped(folder, &["unshare", "-m", "sh", "-c", system, &here], &public, "", "");
    let config = fs::read_to_string(device.config()).unwrap();
    fs::write(device.config(), format!("log = \"syslog\"\n{config}")).unwrap();
    let mut device = device;
    device.wait_until_it_answers();
    device.stop();
    fs::remove_dir(device.path("dev")).unwrap();
    device.start_again();
    device.assert_reachable();
    let messages = || fs::read_to_string(device.path("messages")).unwrap_or_default();
    wait_until("the login is there", || messages().contains("ssh.auth.ok"));
    let all = messages();
    let line = all.lines().find(|line| line.contains("ssh.auth.ok")).unwrap();
    assert!(line.contains("auth.info myelin[") && line.contains("]: INFO ssh.auth.ok peer="), "{line}");
    // One of this machine, which has no syslogd: nothing is lost.
    let elsewhere = Device::start("", "");
    let config = fs::read_to_string(elsewhere.config()).unwrap();
    fs::write(elsewhere.config(), format!("log = \"syslog\"\n{config}")).unwrap();
    let mut elsewhere = elsewhere;
    elsewhere.stop();
    elsewhere.start_again();
    elsewhere.assert_reachable();
    if !std::path::Path::new("/dev/log").exists() {
        elsewhere.wait_for_log("INFO ssh.auth.ok");
    }
}

#[test]
fn an_address_may_have_a_port_of_its_own() {
    let (folder, public) = new_folder();
    let other = free_port();
    let mut device = Device::start_in(folder, &public, "", "");
    device.stop();
    let config = fs::read_to_string(device.config()).unwrap();
    let addresses = format!("[\"127.0.0.1\", \"127.0.0.2:{other}\"]");
    fs::write(device.config(), config.replace("[\"127.0.0.1\", \"::1\"]", &addresses)).unwrap();
    device.start_again();
    device.assert_reachable();
    let port = device.port;
    for (address, port, answers) in [
        ("127.0.0.2", other, true),
        ("127.0.0.2", port, false),
        ("127.0.0.1", other, false),
        ("127.0.0.1", port, true),
    ] {
        assert_eq!(TcpStream::connect((address, port)).is_ok(), answers, "{address}:{port}");
    }
    let info = text(&device.myelin(&["ssh", "info"]).stdout);
    assert!(info.contains(&format!("127.0.0.2:{other}")), "{info}");
}
