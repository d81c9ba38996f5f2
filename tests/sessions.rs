//! Sessions as users of OpenSSH's client know them.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Device, is_running, pipe_into, random_bytes, scan, text, wait_until};

#[test]
fn a_command_has_its_own_streams_and_status() {
    let device = Device::start("", "");
    let output = device.run("echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    let killed = device.run("kill -TERM $$");
    assert_eq!(killed.status.code(), Some(255));
    let verbose = device.ssh_with(&["-v", "-o", "LogLevel=DEBUG"]).arg("kill -TERM $$").output().unwrap();
    assert!(text(&verbose.stderr).contains("exit-signal"), "{}", text(&verbose.stderr));
    assert_eq!(device.run("/no/such/program").status.code(), Some(127));
}

#[test]
fn both_addresses_answer_with_the_same_key() {
    let device = Device::start("", "");
    let keys = scan("127.0.0.1", device.port);
    assert_eq!(keys, scan("::1", device.port));
    let [key] = keys.as_slice() else { panic!("one key: {keys:?}") };
    let on_disk = fs::read_to_string(device.path("state/ssh/ssh_host_ed25519_key.pub")).unwrap();
    assert!(on_disk.starts_with(key));
}

#[test]
fn another_key_and_no_key_are_refused() {
    let device = Device::start("", "");
    let stranger = device.path("stranger");
    Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).status().unwrap();
    let identity = format!("IdentityFile={}", stranger.display());
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
    command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", &identity]);
    let output = command.args(["-p", &device.port.to_string(), "root@127.0.0.1", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("Permission denied (publickey)"), "{}", text(&output.stderr));
    device.wait_for_log("ssh.auth.fail");
    device.assert_reachable();
}

#[test]
fn keys_of_all_kinds_log_in_and_small_rsa_does_not() {
    let device = Device::start("", "");
    let add = |kind: &str, bits: &str| {
        let path = device.path(&format!("{kind}{bits}"));
        Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-b", bits, "-N", "", "-f"])
            .arg(&path)
            .status()
            .unwrap();
        let line = fs::read_to_string(path.with_extension("pub")).unwrap();
        device.myelin(&["keys", "add", line.trim()]);
        path
    };
    let login = |path: &std::path::Path| {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]).arg(path);
        command
            .args(["-p", &device.port.to_string(), "root@127.0.0.1", "true"])
            .output()
            .unwrap()
            .status
            .code()
    };
    for (kind, bits, expected) in [
        ("rsa", "2048", Some(0)),
        ("rsa", "1024", Some(255)),
        ("ecdsa", "256", Some(0)),
        ("ecdsa", "521", Some(0)),
    ] {
        assert_eq!(login(&add(kind, bits)), expected, "{kind} {bits}");
    }
}

#[test]
fn the_environment_is_what_programs_expect() {
    let device = Device::start("", "");
    let output = device.run("printenv SSH_CONNECTION SSH_CLIENT USER HOME SHELL PATH MYELIN_CONFIG | wc -l");
    assert_eq!(text(&output.stdout).trim(), "7");
    let mut command = device.ssh_with(&["-o", "SendEnv=LC_X LD_PRELOAD"]);
    let output = command
        .env("LC_X", "passed")
        .env("LD_PRELOAD", "")
        .arg("echo $LC_X-${LD_PRELOAD-unset}")
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "passed-unset\n");
}

#[test]
fn a_terminal_has_the_size_and_the_keys_of_its_client() {
    let device = Device::start("", "");
    assert_eq!(text(&device.run("tty").stdout), "not a tty\n");
    // script(1) gives the client a real terminal, whose size stty sets.
    let ssh = format!(
        "ssh {} -p {} -tt root@127.0.0.1",
        device.ssh_options().iter().map(|option| format!("'{option}'")).collect::<Vec<_>>().join(" "),
        device.port
    );
    let script = format!("stty rows 33 cols 101 intr ^X; {ssh} 'stty size; stty -a; tty'");
    let output = Command::new("script").args(["-qec", &script, "/dev/null"]).output().unwrap();
    let output = text(&output.stdout);
    assert!(output.contains("33 101"), "{output}");
    assert!(output.contains("intr = ^X"), "{output}");
    assert!(output.contains("/dev/pts/"), "{output}");
}

#[test]
fn ctrl_c_ends_the_command_and_resizing_reaches_it() {
    let device = Device::start("", "");
    let ssh = device.ssh_options().iter().map(|option| format!("'{option}'")).collect::<Vec<_>>().join(" ");
    let ssh = format!("ssh {ssh} -p {} -tt root@127.0.0.1", device.port);
    let python = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
def size(fd, rows, cols): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))
def until(fd, text):
    seen, end = b'', time.time() + 20
    while text not in seen and time.time() < end:
        if select.select([fd], [], [], 1)[0]:
            try: seen += os.read(fd, 4096)
            except OSError: break
    return seen
pid, fd = pty.fork()
if pid == 0:
    os.execvp('sh', ['sh', '-c', "exec " + sys.argv[1] + " 'trap \"stty size\" WINCH; echo ready; while :; do sleep 0.1; done'"])
until(fd, b'ready')
size(fd, 44, 111)
assert b'44 111' in until(fd, b'44 111'), 'no new size'
os.write(fd, b'\x03')
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 130 or os.waitstatus_to_exitcode(status) == 255, status
"#;
    let output = Command::new("python3").args(["-c", python, &ssh]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_login_shell_takes_commands() {
    let device = Device::start("", "");
    let output = pipe_into(device.ssh_with(&["-tt"]).env("TERM", "vt100"), b"echo $0-$TERM\nexit 3\n");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).contains("-sh-vt100"), "{}", text(&output.stdout));
}

#[test]
fn big_data_passes_both_ways_unchanged() {
    let device = Device::start("", "");
    let big = random_bytes(24 << 20, 1);
    let output = pipe_into(device.ssh().arg("cat"), &big);
    assert!(output.stdout == big, "{} of {} bytes came back", output.stdout.len(), big.len());
    let output = pipe_into(device.ssh_with(&["-o", "RekeyLimit=1M"]).arg("cat"), &big);
    assert!(output.stdout == big, "with 24 key exchanges");
    assert_eq!(text(&device.run("sleep 1; echo done").stdout), "done\n", "the end of the input is no end");
}

#[test]
fn ciphers_are_those_of_the_list() {
    let device = Device::start("", "");
    let sum = |cipher: &str| pipe_into(device.ssh_with(&["-c", cipher]).arg("cksum"), &[7; 3_000_000]);
    let expected = text(&pipe_into(Command::new("cksum").arg("-"), &[7; 3_000_000]).stdout);
    let expected = expected.split_whitespace().next().unwrap();
    for cipher in
        ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"]
    {
        assert!(text(&sum(cipher).stdout).starts_with(expected), "{cipher}");
    }
    assert_eq!(sum("aes128-cbc").status.code(), Some(255));
    let group14 = device
        .ssh_with(&["-o", "LogLevel=INFO", "-o", "KexAlgorithms=diffie-hellman-group14-sha256"])
        .arg("true")
        .output()
        .unwrap();
    assert!(text(&group14.stderr).contains("no matching key exchange method"), "{group14:?}");
}

#[test]
fn nothing_is_left_of_a_client_that_is_gone() {
    let device = Device::start("", "");
    let marker = format!("sleep 9{}", device.port);
    for (command, tty) in
        [(format!("trap '' HUP; {marker} & wait"), "-T"), (format!("{marker}; true"), "-tt")]
    {
        let mut client = device.ssh_with(&[tty]).arg(&command).stdin(Stdio::piped()).spawn().unwrap();
        wait_until("the command runs", || is_running(&marker));
        client.kill().unwrap();
        client.wait().unwrap();
        wait_until("the command is gone", || !children(&device).iter().any(|line| line.contains(&marker)));
    }
}

/// Command lines of everything below the daemon.
fn children(device: &Device) -> Vec<String> {
    let mut all = Vec::new();
    let mut pids = vec![device.daemon.id()];
    while let Some(pid) = pids.pop() {
        pids.extend(common::children(pid));
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        all.push(text(&line).replace('\0', " "));
    }
    all
}

#[test]
fn a_writer_whose_reader_is_gone_does_not_stay() {
    let device = Device::start("", "");
    let marker = format!("yes stay{}", device.port);
    let mut client = device.ssh().arg(&marker).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("it writes", || is_running(&marker));
    let mut some = [0; 100];
    client.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    sleep(Duration::from_secs(1));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("it is gone", || !children(&device).iter().any(|line| line.contains(&marker)));
}

#[test]
fn what_a_finished_command_left_behind_lives_on() {
    let device = Device::start("", "");
    let pidfile = device.path("pid");
    let command = format!("nohup sleep 30 > /dev/null 2>&1 & echo $! > {}", pidfile.display());
    assert_eq!(device.run(&command).status.code(), Some(0));
    sleep(Duration::from_millis(1_500));
    let pid = fs::read_to_string(pidfile).unwrap();
    let alive = Command::new("kill").args(["-0", pid.trim()]).status().unwrap().success();
    let _ = Command::new("kill").arg(pid.trim()).status();
    assert!(alive);
}

#[test]
fn an_unknown_subsystem_is_refused_and_a_configured_one_runs() {
    let device = Device::start("", "[ssh.subsystem]\nshout = [\"/usr/bin/tr\", \"a-z\", \"A-Z\"]");
    let output = device.ssh_with(&["-s"]).arg("nosuch").output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("subsystem request failed"), "{}", text(&output.stderr));
    assert_eq!(text(&pipe_into(device.ssh_with(&["-s"]).arg("shout"), b"loud").stdout), "LOUD");
}

#[test]
fn shell_and_exec_can_be_disabled() {
    let device = Device::start("exec = \"disabled\"", "");
    assert_eq!(device.run("true").status.code(), Some(255));
    let mut shell = device.ssh().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"echo works\n").unwrap();
    assert_eq!(text(&shell.wait_with_output().unwrap().stdout), "works\n");
}

#[test]
fn one_connection_serves_any_number_of_sessions_in_turn() {
    let device = Device::start("max_sessions = 2", "");
    let control = format!("ControlPath={}", device.path("master").display());
    let mut master = device.ssh_with(&["-M", "-N", "-o", &control]);
    let mut master = master.stdin(Stdio::null()).spawn().unwrap();
    wait_until("the master is there", || device.path("master").exists());
    for round in 0..10 {
        // A client whose session is refused would make a connection of its own.
        let output = device.ssh_with(&["-o", &control, "-o", "Port=1"]).arg("echo here").output().unwrap();
        assert_eq!(text(&output.stdout), "here\n", "{round}: {output:?}");
    }
    master.kill().unwrap();
    master.wait().unwrap();
}

#[test]
fn max_sessions_holds_and_the_others_live() {
    let device = Device::start("max_sessions = 2", "");
    let socket = device.path("master");
    let control = format!("ControlPath={}", socket.display());
    let mut master = device.ssh_with(&["-M", "-N", "-o", &control]).spawn().unwrap();
    wait_until("the master is there", || socket.exists());
    let session = |command: &str| {
        device.ssh_with(&["-o", &control]).arg(command).stdin(Stdio::piped()).spawn().unwrap()
    };
    let mut others: Vec<_> = (0..2).map(|n| session(&format!("sleep 8.0{n}"))).collect();
    // Each by its own name: a shell that has not become its `sleep` yet would be counted twice.
    wait_until("both run", || {
        let running = children(&device);
        ["sleep 8.00", "sleep 8.01"].iter().all(|name| running.iter().any(|line| line.contains(name)))
    });
    let third = device.ssh_with(&["-o", &control, "-o", "ControlMaster=no"]).arg("true").output().unwrap();
    // The client then opens a connection of its own, which may.
    assert!(text(&third.stderr).contains("Session open refused by peer"), "{}", text(&third.stderr));
    for other in &mut others {
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
    master.kill().unwrap();
    master.wait().unwrap();
}

#[test]
fn dropbears_client_logs_in_and_runs_a_command() {
    let device = Device::start("", "");
    let mut client = device.dbclient();
    let output = client.arg("echo hi; exit 4").stdin(Stdio::null()).output().unwrap();
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("hi\n".into(), Some(4)),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn who_is_logged_in_is_listed_and_ended() {
    let device = Device::start("", "");
    let stay = || device.ssh().arg("sleep 777").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let list = || -> Vec<serde_json::Value> {
        let output = device.myelin(&["sessions", "list", "--json"]);
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert!(list().is_empty());
    let (mut first, mut second) = (stay(), stay());
    wait_until("both are there", || list().len() == 2);
    let sessions = list();
    assert_eq!(sessions[0]["user"], "root");
    assert!(sessions[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let shown = device.myelin(&["sessions", "list"]);
    let id = sessions[0]["id"].to_string();
    assert!(text(&shown.stdout).lines().any(|line| line.starts_with(&id)), "{shown:?}");

    let kicked = device.myelin(&["sessions", "kick", &id]);
    assert!(kicked.status.success(), "{kicked:?}");
    wait_until("one is left", || {
        list().len() == 1 && first.try_wait().unwrap().is_some() != second.try_wait().unwrap().is_some()
    });
    let again = device.myelin(&["sessions", "kick", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is logged in; see: myelin sessions list"), "{again:?}");
    assert_eq!(device.myelin(&["sessions", "kick"]).status.code(), Some(2), "all is said explicitly");

    assert!(device.myelin(&["sessions", "kick", "--all"]).status.success());
    assert_eq!(first.wait().unwrap().code(), Some(255));
    assert_eq!(second.wait().unwrap().code(), Some(255));
    wait_until("what ran is gone", || !is_running("sleep 777"));
    device.assert_reachable();
}

#[test]
fn a_shell_on_a_terminal_is_greeted_and_nothing_else_is() {
    let (folder, public_key) = common::new_folder();
    let motd = folder.path().join("motd");
    fs::write(&motd, "Welcome to the lab\nsecond line").unwrap();
    fs::write(
        folder.path().join("env"),
        "a.nerves_fw_product=lamp\nnerves_fw_active=a\na.nerves_fw_version=1.2.3\n",
    )
    .unwrap();
    let ssh = format!("motd = \"{}\"", motd.display());
    let firmware = format!("[firmware]\nenv_file = \"{}/env\"\n", folder.path().display());
    let device = Device::start_in(folder, &public_key, &ssh, &firmware);
    let shell = |options: &[&str]| {
        let output = pipe_into(&mut device.ssh_with(options), b"echo in the shell; exit\n");
        text(&output.stdout)
    };
    // A busy machine may take longer than a greeting may.
    let mut greeted = String::new();
    wait_until("it greets in time", || {
        greeted = shell(&["-tt"]);
        greeted.contains("firmware")
    });
    assert!(greeted.starts_with("Welcome to the lab\r\nsecond line\r\nfirmware  "), "{greeted:?}");
    assert!(greeted.contains("lamp  1.2.3") && greeted.contains("(slot a)\r\n"), "{greeted:?}");
    assert!(greeted.contains("\r\nmemory    ") && greeted.contains("in the shell"), "{greeted:?}");
    assert_eq!(shell(&[]), "in the shell\n");
    assert_eq!(text(&device.run("echo x").stdout), "x\n");
    let command = device.ssh_with(&["-tt"]).arg("echo x").stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&command.stdout), "x\r\n");
}
