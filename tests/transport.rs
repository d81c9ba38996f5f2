//! The transport as other programs see it: what is offered, what is agreed on, and what auditors say of it.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::transfer::{for_putty, python, succeeded};
use common::{Device, banner, free_port, is_running, pipe_into, scan, text, wait_until};

/// OpenSSH's daemon with the key and the host key of a device, to know that a test is right.
struct Reference {
    daemon: Child,
    port: u16,
}

impl Reference {
    fn start(device: &Device) -> Self {
        let port = free_port();
        let keys = device.path("reference_keys");
        fs::copy(device.path("key.pub"), &keys).unwrap();
        let host_key = device.path("state/ssh/ssh_host_ed25519_key");
        let config = device.path("sshd_config");
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             PermitRootLogin yes\nUsePAM no\nPidFile none\n",
            host_key.display(),
            keys.display()
        );
        fs::write(&config, text).unwrap();
        // It wants this folder to exist.
        let _ = fs::create_dir_all("/run/sshd");
        let daemon = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stderr(fs::File::create(device.path("sshd.log")).unwrap())
            .spawn()
            .expect("sshd is installed (apt install openssh-server)");
        let reference = Self { daemon, port };
        wait_until("OpenSSH's daemon answers", || banner(port).is_some());
        reference
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_scan_finds_each_host_key_once_and_nothing_is_wrong() {
    let device = Device::start("", "");
    let reference = Reference::start(&device);
    let ours = scan("127.0.0.1", device.port);
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(scan("127.0.0.1", reference.port), ours);
}

#[test]
fn every_offered_key_exchange_works_and_no_other() {
    let device = Device::start("", "");
    let known = text(&Command::new("ssh").args(["-Q", "kex"]).output().unwrap().stdout);
    let login = |kex: &str| {
        let option = format!("KexAlgorithms={kex}");
        let mut ssh = device.ssh_with(&["-v", "-o", "LogLevel=DEBUG1", "-o", &option]);
        ssh.arg("true").stdin(Stdio::null()).output().unwrap()
    };
    for kex in ["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"] {
        if !known.lines().any(|name| name == kex) {
            eprintln!("SKIPPED: {kex}, because ssh is older than that");
            continue;
        }
        let output = login(kex);
        assert!(output.status.success(), "{kex}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("kex: algorithm: {kex}")), "{}", text(&output.stderr));
    }
    for kex in ["diffie-hellman-group16-sha512", "ecdh-sha2-nistp256", "diffie-hellman-group-exchange-sha256"]
    {
        let output = login(kex);
        assert_eq!(output.status.code(), Some(255), "{kex}");
        assert!(text(&output.stderr).contains("no matching key exchange method"), "{}", text(&output.stderr));
    }
}

/// Whether a program is a newer one than Debian 12's, which knows no mlkem768x25519 yet.
fn is_newer_than(old: &str, program: &str) -> bool {
    let output = Command::new(program).arg("-V").output().unwrap();
    let version = text(&output.stdout) + &text(&output.stderr);
    let is_newer = !version.contains(old);
    if !is_newer {
        eprintln!("SKIPPED: {program} is too old for mlkem768x25519: {}", version.trim());
    }
    is_newer
}

#[test]
fn clients_of_all_makers_agree_on_the_post_quantum_key_exchange() {
    let device = Device::start("kex_algorithms = \"mlkem768x25519-sha256\"", "");
    let port = device.port.to_string();
    let agreed = |command: &mut Command| {
        let output = command.arg("echo agreed").stdin(Stdio::null()).output().unwrap();
        assert_eq!(text(&output.stdout), "agreed\n", "{command:?}: {output:?}");
    };
    if is_newer_than("OpenSSH_9.2", "ssh") {
        agreed(&mut device.ssh());
    }
    if is_newer_than("0.78", "plink") {
        let (key, fingerprint) = for_putty(&device);
        let mut plink = Command::new("plink");
        plink.env("HOME", device.folder.path());
        plink.args(["-P", &port, "-batch", "-hostkey", &fingerprint, "-i"]).arg(&key).arg("root@127.0.0.1");
        agreed(&mut plink);
    }
    if is_newer_than("v2022", "dbclient") {
        agreed(&mut device.dbclient());
    }
}

#[test]
fn who_wants_compression_gets_none_and_works() {
    let device = Device::start("", "");
    let mut ssh = device.ssh_with(&["-v", "-o", "LogLevel=DEBUG1", "-C"]);
    let output = ssh.arg("echo plain").stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&output.stdout), "plain\n");
    assert!(text(&output.stderr).contains("compression: none"), "{}", text(&output.stderr));
}

#[test]
fn plink_runs_commands() {
    let device = Device::start("", "");
    let reference = Reference::start(&device);
    let (key, fingerprint) = for_putty(&device);
    for (name, port) in [("ours", device.port), ("OpenSSH's", reference.port)] {
        let mut plink = Command::new("plink");
        plink.env("HOME", device.folder.path());
        plink.args(["-P", &port.to_string(), "-batch", "-hostkey", &fingerprint, "-i"]).arg(&key);
        plink.args(["root@127.0.0.1", "wc -c; echo e >&2; exit 6"]);
        let output = pipe_into(&mut plink, &[b'x'; 300_000]);
        let seen = (text(&output.stdout), text(&output.stderr), output.status.code());
        assert_eq!(seen, ("300000\n".into(), "e\n".into(), Some(6)), "{name}");
    }
}

#[test]
fn a_client_may_say_goodbye_at_any_time() {
    let device = Device::start("", "");
    let program = r#"
import paramiko, socket, struct, sys, time
port, key = int(sys.argv[1]), paramiko.Ed25519Key.from_private_key_file(sys.argv[2])
goodbye = b"\x01" + struct.pack(">I", 11) + struct.pack(">I", 3) + b"bye" + struct.pack(">I", 0)
# After the identification, and in the middle of the key exchange's first message.
for part in [b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n" + struct.pack(">IBB", 900, 4, 20)]:
    stream = socket.create_connection(("127.0.0.1", port))
    padding = 8 - (len(goodbye) + 5) % 8 + 8
    stream.sendall(part + struct.pack(">IB", len(goodbye) + padding + 1, padding) + goodbye + bytes(padding))
    stream.close()
def leave(step):
    transport = paramiko.Transport(("127.0.0.1", port))
    transport.start_client(timeout=60)
    if step > 0:
        transport.auth_publickey("root", key)
    if step > 1:
        channel = transport.open_session()
    if step > 2:
        channel.exec_command("exec sleep 784")
    message = paramiko.Message()
    message.add_byte(b"\x01")
    message.add_int(11)
    message.add_string("bye")
    message.add_string("")
    transport._send_message(message)
    began = time.time()
    while transport.is_active() and time.time() - began < 60:
        time.sleep(0.05)
    assert not transport.is_active(), step
    transport.close()
for step in range(4):
    leave(step)
"#;
    succeeded(&python(&device, "paramiko", program), "paramiko");
    wait_until("what ran is gone", || !is_running("sleep 784"));
    device.assert_reachable();
    let log = device.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}

/// ssh-audit of PyPI, in a folder of its own; none where it cannot be installed.
fn ssh_audit() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ssh-audit");
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ssh-audit.txt");
    let installed = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "-q",
            "--upgrade",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ])
        .arg("--target")
        .arg(&folder)
        .args(["-r", list])
        .output();
    match installed {
        Ok(output) if output.status.success() => Some(folder),
        other => {
            eprintln!("SKIPPED: ssh-audit is not run, because it cannot be installed: {other:?}");
            None
        }
    }
}

fn audit(folder: &Path, device: &Device, options: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["300", "python3", "-m", "ssh_audit.ssh_audit"]).args(options);
    command
        .args(["-n", "-p", &device.port.to_string(), "127.0.0.1"])
        .env("PYTHONPATH", folder)
        .output()
        .unwrap()
}

#[test]
fn an_auditor_finds_nothing_that_fails() {
    let Some(folder) = ssh_audit() else { return };
    let device = Device::start("", "");
    for options in [&["--skip-rate-test"][..], &[]] {
        let output = audit(&folder, &device, options);
        let report = text(&output.stdout);
        assert!(
            report.contains("(kex) curve25519-sha256") && report.contains("kex-strict-s-v00"),
            "{output:?}"
        );
        assert!(!report.contains("[fail]"), "{report}");
        let odd = |line: &&str| line.contains("[warn]") && !line.contains("post-quantum");
        assert_eq!(report.lines().find(odd), None, "{report}");
        assert!(!report.contains("DHEat"), "{report}");
    }
    device.assert_reachable();
}
