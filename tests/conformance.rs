//! What every SSH daemon must do for real clients, asked of ours and of OpenSSH's: what the latter passes, a test may
//! ask for. docs/conformance.md tells which row of it stands where.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use common::transfer::{PARAMIKO, python, succeeded};
use common::{
    Device, dropbear_key, free_port, is_running, new_folder, new_key, pipe_into, random_bytes, text,
    wait_until,
};

/// Ours and OpenSSH's, configured alike. Without root there is no second one.
fn both(ours: &str, sshd: &str) -> Vec<(&'static str, Device)> {
    let mut servers = vec![("ours", Device::start(ours, ""))];
    if nix::unistd::geteuid().is_root() {
        servers.push(("OpenSSH's", Device::start_sshd(&format!("PermitRootLogin yes\n{sshd}"))));
    } else {
        eprintln!("SKIPPED: OpenSSH's sshd is not asked, it needs root");
    }
    servers
}

fn seen(output: &Output) -> (String, String, Option<i32>) {
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn commands_have_their_streams_and_their_status() {
    for (name, device) in both("", "") {
        let run = |command: &str| seen(&device.run(command));
        assert_eq!(run("exit 7"), (String::new(), String::new(), Some(7)), "{name}");
        assert_eq!(run("echo o; echo e >&2"), ("o\n".into(), "e\n".into(), Some(0)), "{name}");
        // The end of its input is no reason to end a command.
        assert_eq!(run("sleep 1; echo done").0, "done\n", "{name}");
        assert_eq!(run("tty").0, "not a tty\n", "{name}");
        assert_eq!(run("/no/such/program").2, Some(127), "{name}");
        let killed = device.ssh_with(&["-v", "-o", "LogLevel=DEBUG"]).arg("kill -TERM $$").output().unwrap();
        assert_eq!(killed.status.code(), Some(255), "{name}");
        assert!(text(&killed.stderr).contains("exit-signal"), "{name}: {}", text(&killed.stderr));
        let nobody = device.ssh_with(&["-s"]).arg("nosuch").stdin(Stdio::null()).output().unwrap();
        assert_eq!(nobody.status.code(), Some(255), "{name}");
        assert!(
            text(&nobody.stderr).contains("subsystem request failed"),
            "{name}: {}",
            text(&nobody.stderr)
        );
    }
}

#[test]
fn data_passes_whole_with_every_cipher() {
    let big = random_bytes(16 << 20, 4);
    for (name, device) in both("", "") {
        for cipher in [
            "chacha20-poly1305@openssh.com",
            "aes128-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "aes128-ctr",
        ] {
            let mut ssh = device.ssh_with(&["-c", cipher, "-m", "hmac-sha2-256-etm@openssh.com"]);
            let output = pipe_into(ssh.arg("cat"), &big);
            assert!(output.status.success() && output.stdout == big, "{name} {cipher}: {}", output.status);
        }
        let old = device.ssh_with(&["-o", "LogLevel=INFO", "-c", "aes128-cbc"]).arg("true").output().unwrap();
        assert_eq!(old.status.code(), Some(255), "{name}");
        assert!(text(&old.stderr).contains("no matching cipher"), "{name}: {}", text(&old.stderr));
    }
}

#[test]
fn a_client_may_renew_the_keys_again_and_again() {
    let big = random_bytes(16 << 20, 5);
    for (name, device) in both("", "") {
        let output = pipe_into(device.ssh_with(&["-o", "RekeyLimit=1M"]).arg("cat"), &big);
        assert!(output.status.success() && output.stdout == big, "{name}: {}", output.status);
    }
}

#[test]
fn terminals_are_those_of_the_client() {
    for (name, device) in both("", "") {
        let ssh = device.ssh_line(&["-tt"]);
        let script = format!("stty rows 33 cols 101 intr ^X; {ssh} 'stty size; stty -a; tty'");
        let output = Command::new("script").args(["-qec", &script, "/dev/null"]).output().unwrap();
        let output = text(&output.stdout);
        for part in ["33 101", "intr = ^X", "/dev/pts/"] {
            assert!(output.contains(part), "{name}: {part} is not in {output}");
        }
    }
}

#[test]
fn the_environment_holds_what_was_asked_for_and_nothing_dangerous() {
    for (name, device) in both("accept_env = [\"LC_*\"]", "AcceptEnv LC_*") {
        let mut ssh = device.ssh_with(&["-o", "SendEnv=LC_X LD_PRELOAD"]);
        ssh.env("LC_X", "1").env("LD_PRELOAD", "");
        let script = "echo $LC_X-${LD_PRELOAD-unset}; \
                      for name in SSH_CONNECTION SSH_CLIENT USER HOME SHELL PATH; do \
                      printenv $name >/dev/null || echo no $name; done";
        assert_eq!(text(&ssh.arg(script).output().unwrap().stdout), "1-unset\n", "{name}");
    }
}

#[test]
fn signals_of_the_client_reach_the_command() {
    let program = r#"
import asyncio, asyncssh, sys
async def main():
    async with asyncssh.connect("127.0.0.1", int(sys.argv[1]), username="root", client_keys=[sys.argv[2]],
                                known_hosts=None, agent_path=None, config=None) as connection:
        for name in ("TERM", "INT", "USR1"):
            command = f'trap "echo got {name}; exit 0" {name}; echo ready; while :; do sleep 0.1; done'
            process = await connection.create_process(command)
            assert await process.stdout.readline() == "ready\n"
            process.send_signal(name)
            print((await process.stdout.readline()).strip(), flush=True)
            await process.wait()
asyncio.run(asyncio.wait_for(main(), 60))
"#;
    // OpenSSH's daemon does not hand on signals in sessions of root.
    let device = Device::start("", "");
    let output = python(&device, "asyncssh", program);
    succeeded(&output, "asyncssh");
    assert_eq!(text(&output.stdout), "got TERM\ngot INT\ngot USR1\n");
}

#[test]
fn python_clients_run_commands() {
    let paramiko = r#"
stdin, stdout, stderr = client.exec_command("cat; echo e >&2; exit 3", timeout=60)
stdin.write("x" * 300000)
stdin.channel.shutdown_write()
print(len(stdout.read()), stderr.read().decode().strip(), stdout.channel.recv_exit_status())
"#;
    let asyncssh = r#"
import asyncio, asyncssh, sys
async def main():
    async with asyncssh.connect("127.0.0.1", int(sys.argv[1]), username="root", client_keys=[sys.argv[2]],
                                known_hosts=None, agent_path=None, config=None) as connection:
        result = await connection.run("cat; echo e >&2; exit 3", input="x" * 300000)
        print(len(result.stdout), result.stderr.strip(), result.exit_status)
asyncio.run(asyncio.wait_for(main(), 60))
"#;
    for (name, device) in both("", "") {
        for (module, program) in
            [("paramiko", PARAMIKO.to_owned() + paramiko), ("asyncssh", asyncssh.to_owned())]
        {
            let output = python(&device, module, &program);
            succeeded(&output, &format!("{name} {module}"));
            assert_eq!(text(&output.stdout), "300000 e 3\n", "{name} {module}");
        }
    }
}

#[test]
fn libssh_runs_commands() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (source, program) = (Path::new("tests/data/libssh_exec.c"), folder.path().join("client"));
    let made = Command::new("cc").arg(source).arg("-o").arg(&program).arg("-lssh").output().unwrap();
    succeeded(&made, "a program for libssh (apt install gcc libssh-dev)");
    for (name, device) in both("", "") {
        let mut client = Command::new(&program);
        // Where it looks for known hosts and configuration.
        client.env("HOME", device.folder.path());
        client.arg(device.port.to_string()).arg(device.path("key")).arg("wc -c; exit 5");
        assert_eq!(
            seen(&pipe_into(&mut client, &[b'x'; 300_000])),
            ("300000\n".into(), String::new(), Some(5)),
            "{name}"
        );
    }
}

#[test]
fn what_was_started_to_stay_stays() {
    for (number, (name, device)) in both("", "").into_iter().enumerate() {
        let sleep = format!("sleep 61.{}{number}", std::process::id());
        let output = device.run(&format!("nohup {sleep} >/dev/null 2>&1 & echo started"));
        assert_eq!(text(&output.stdout), "started\n", "{name}");
        assert!(is_running(&sleep), "{name}");
        assert!(Command::new("pkill").args(["-f", &sleep]).status().unwrap().success());
    }
}

/// Makes this the file of keys, wherever that is.
fn authorize(device: &Device, lines: &str) {
    let files = ["keys", "state/ssh/authorized_keys"].map(|name| device.path(name));
    let file = files.iter().find(|path| path.exists()).unwrap_or(&files[1]);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("{lines}\n")).unwrap();
}

/// The keys that this line lets in, at ours and at OpenSSH's.
fn lets_in(line: impl Fn(&str) -> String, command: &str) -> Vec<(String, Option<i32>)> {
    let answers = both("", "").into_iter().map(|(_, device)| {
        let public = new_key(&device.path("other"));
        authorize(&device, &line(&public));
        let identity = format!("IdentityFile={}", device.path("other").display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", &identity]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-p", &device.port.to_string(), "root@127.0.0.1"]);
        let output = ssh.arg(command).stdin(Stdio::null()).output().unwrap();
        (text(&output.stdout), output.status.code())
    });
    answers.collect()
}

#[test]
fn lines_of_authorized_keys_mean_what_they_mean_to_sshd() {
    let good = |said: &str| (said.to_owned(), Some(0));
    let refused = (String::new(), Some(255));
    for (options, expected) in [
        ("", good("hi\n")),
        ("restrict,command=\"echo only\" ", good("only\n")),
        ("from=\"10.0.0.0/8\" ", refused.clone()),
        ("from=\"127.0.0.0/8,::1\" ", good("hi\n")),
        ("from=\"!127.0.0.1,127.0.0.0/8\" ", refused.clone()),
        ("expiry-time=\"20200101\" ", refused.clone()),
        ("expiry-time=\"20990101\" ", good("hi\n")),
        ("no-such-option ", refused.clone()),
    ] {
        for answer in lets_in(|key| format!("{options}{key}\n"), "echo hi") {
            assert_eq!(answer, expected, "{options}");
        }
    }
    let garbage = |key: &str| {
        let (kind, rest) = key.split_once(' ').unwrap();
        format!(
            "# a comment\r\n\n\u{1}\u{2} no key\n{kind} AAAA!!!bad\nssh-dss {rest}\nfrob={kind} {rest}\n  {key}"
        )
    };
    for answer in lets_in(garbage, "echo hi") {
        assert_eq!(answer, good("hi\n"));
    }
}

#[test]
fn an_agent_may_have_other_keys_too() {
    for (name, device) in both("", "") {
        let socket = device.path("agent");
        let mut agent =
            Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        wait_until("the agent is there", || socket.exists());
        for other in ["one", "two", "three"] {
            new_key(&device.path(other));
        }
        for key in ["one", "two", "three", "key"] {
            let mut add = Command::new("ssh-add");
            let added = add.arg("-q").arg(device.path(key)).env("SSH_AUTH_SOCK", &socket).output().unwrap();
            succeeded(&added, "ssh-add");
        }
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "IdentityFile=none",
        ]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-p", &device.port.to_string(), "root@127.0.0.1"]);
        let output = ssh.arg("echo hi").env("SSH_AUTH_SOCK", &socket).stdin(Stdio::null()).output().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert_eq!(
            (text(&output.stdout), output.status.code()),
            ("hi\n".into(), Some(0)),
            "{name}: {output:?}"
        );
    }
}

/// A clock that is set while people are logged in: back by a year, then ten years ahead.
#[test]
fn a_clock_that_jumps_ends_nobody_and_delays_nothing() {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(Path::new(&library).exists(), "{library} is installed (apt install faketime)");
    let (folder, public) = new_folder();
    let offset = folder.path().join("clock");
    fs::write(&offset, "+0").unwrap();
    let clock = [
        "env".to_owned(),
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let clock: Vec<&str> = clock.iter().map(String::as_str).collect();
    let more = "client_alive_interval = 1\nunused_connection_timeout = 5\nlogin_grace_time = 20";
    let device = Device::start_wrapped(folder, &clock, &public, more, "");
    device.wait_until_it_answers();
    // The daemon's clock, as its log tells it; commands have no library in front of theirs.
    let year = || {
        device.assert_reachable();
        let log = device.log();
        let line = log.lines().rfind(|line| line.contains("ssh.auth.ok")).unwrap();
        line.split('-').next().unwrap().parse::<i32>().unwrap()
    };
    let today = year();
    let mut session = device.ssh();
    let mut session = session.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut echo = |text: &[u8]| {
        input.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        output.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    };
    echo(b"before");
    for (jump, years) in [("-366d", -1), ("+3660d", 10)] {
        fs::write(&offset, jump).unwrap();
        // A login sees the new clock, and the session outlives several of its own questions.
        assert_eq!(year(), today + years);
        sleep(Duration::from_secs(4));
        echo(jump.as_bytes());
        assert_eq!(year(), today + years);
    }
    let worker = device.log().matches("ssh worker started").count();
    assert_eq!(worker, 1, "{}", device.log());
    session.kill().unwrap();
    session.wait().unwrap();
}

/// Gives back what it gets, to each client, until this test's process ends.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

#[test]
fn other_clients_forward_ports_too() {
    let paramiko = r#"
channel = transport.open_channel("direct-tcpip", ("127.0.0.1", TARGET), ("127.0.0.1", 1))
channel.sendall(b"x" * 100000)
channel.shutdown_write()
seen = b""
while part := channel.recv(65536): seen += part
print(len(seen))
"#;
    let asyncssh = r#"
import asyncio, asyncssh, sys
async def main():
    async with asyncssh.connect("127.0.0.1", int(sys.argv[1]), username="root", client_keys=[sys.argv[2]],
                                known_hosts=None, agent_path=None, config=None) as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", TARGET)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
        writer.write(b"x" * 100000)
        writer.write_eof()
        print(len(await reader.read()))
asyncio.run(asyncio.wait_for(main(), 60))
"#;
    let target = echo_server();
    for (name, device) in both("", "") {
        for (module, program) in
            [("paramiko", PARAMIKO.to_owned() + paramiko), ("asyncssh", asyncssh.to_owned())]
        {
            let output = python(&device, module, &program.replace("TARGET", &target.to_string()));
            succeeded(&output, &format!("{name} {module}"));
            assert_eq!(text(&output.stdout), "100000\n", "{name} {module}");
        }
        // dropbear's client, by a key of its own.
        let key = device.path("dropbear");
        authorize(&device, &dropbear_key(&key));
        let port = free_port();
        let mut client = Command::new("dbclient");
        client.args(["-y", "-y", "-N", "-i"]).arg(&key).args(["-L", &format!("{port}:127.0.0.1:{target}")]);
        client.args(["-p", &device.port.to_string(), "root@127.0.0.1"]).stdin(Stdio::null());
        let mut client = client.stderr(Stdio::null()).spawn().unwrap();
        let mut stream = None;
        wait_until("dbclient listens", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.write_all(b"through dropbear").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        assert_eq!(seen, "through dropbear", "{name}");
    }
}
