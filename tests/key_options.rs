//! What the options in front of a key allow its owner, with a stock ssh client.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};

use common::{Device, free_port, new_key, text};

/// A device with a second key, which has `options` in front.
struct Restricted(Device);

impl Restricted {
    fn with(options: &str, more_ssh: &str, rest: &str) -> Self {
        let device = Device::start(more_ssh, rest);
        fs::create_dir_all(device.path("state/ssh")).unwrap();
        let key = new_key(&device.path("restricted"));
        fs::write(device.path("state/ssh/authorized_keys"), format!("{options} {key}\n")).unwrap();
        Self(device)
    }

    /// A client of OpenSSH with this key alone.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-i"]);
        command.arg(self.0.path("restricted")).env_remove("SSH_AUTH_SOCK");
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command
    }

    fn ssh_to(&self, host: &str, port: u16, options: &[&str], words: &[&str]) -> Output {
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
        ]);
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"]);
        command.arg(self.0.path("restricted")).args(["-p", &port.to_string()]).args(options);
        command.arg(format!("root@{host}")).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn ssh(&self, options: &[&str], words: &[&str]) -> Output {
        self.ssh_to("127.0.0.1", self.0.port, options, words)
    }

    #[track_caller]
    fn gets_in(&self, host: &str) {
        let output = self.ssh_to(host, self.0.port, &[], &["echo in"]);
        assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", self.0.log());
    }

    #[track_caller]
    fn stays_out(&self, reason: &str) {
        let output = self.ssh(&[], &["echo in"]);
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        assert!(text(&output.stderr).contains("Permission denied (publickey)"), "{output:?}");
        assert!(self.0.log().contains(reason), "{}", self.0.log());
    }
}

#[test]
fn a_command_runs_whatever_is_asked_for() {
    let device = Restricted::with(
        r#"restrict,command="echo \"only, this\"; echo for $SSH_ORIGINAL_COMMAND""#,
        "accept_env = [\"*\"]",
        "",
    );
    for (options, words, asked) in [
        (&[][..], &["id -u", "0"][..], "id -u 0"),
        (&["-s"], &["fwup"], "fwup"),
        (&["-s"], &["no-such-subsystem"], "no-such-subsystem"),
        (&["-o", "SetEnv=SSH_ORIGINAL_COMMAND=lie"], &[], ""),
    ] {
        let output = device.ssh(options, words);
        assert_eq!(
            text(&output.stdout),
            format!("only, this\nfor {asked}\n").replace(" \n", "\n"),
            "{output:?}"
        );
        assert!(output.status.success());
    }
    let output = device.ssh(&["-W", "127.0.0.1:1"], &[]);
    assert!(!output.status.success(), "{output:?}");
    device.0.assert_reachable();
}

#[test]
fn a_restricted_key_gets_no_terminal_unless_it_says_pty() {
    let device = Restricted::with("restrict", "", "");
    let output = device.ssh(&["-tt"], &["tty"]);
    assert!(text(&output.stderr).contains("PTY allocation request failed"), "{output:?}");
    device.gets_in("127.0.0.1");
    let device = Restricted::with("restrict,pty", "", "");
    let output = device.ssh(&["-tt"], &["tty"]);
    assert!(text(&output.stdout).starts_with("/dev/pts/"), "{output:?}");
}

#[test]
fn from_says_where_a_key_counts() {
    let device = Restricted::with("from=\"10.0.0.0/8,127.0.0.1,!127.0.0.2\"", "", "");
    device.gets_in("127.0.0.1");
    let output = device.ssh_to("::1", device.0.port, &[], &["true"]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    Restricted::with("from=\"127.0.0.0/8,::1\"", "", "").gets_in("::1");
    Restricted::with("from=\"10.0.0.0/8\"", "", "").stays_out("from= does not allow");
}

#[test]
fn an_expired_key_stays_out() {
    Restricted::with("expiry-time=\"20200101\"", "", "").stays_out("has expired");
    Restricted::with("expiry-time=\"29991231235959Z\"", "", "").gets_in("127.0.0.1");
}

#[test]
fn a_second_line_of_the_key_may_let_it_in() {
    let device = Restricted::with("expiry-time=\"20200101\"", "", "");
    let path = device.0.path("state/ssh/authorized_keys");
    let key = fs::read_to_string(device.0.path("restricted.pub")).unwrap();
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{before}no-pty,command=\"echo second\" {key}")).unwrap();
    let output = device.ssh(&[], &["echo first"]);
    assert_eq!(text(&output.stdout), "second\n", "{output:?}");
}

#[test]
fn a_key_for_updates_can_do_nothing_else() {
    let legacy = free_port();
    let device = Restricted::with(
        "restrict,subsystems=\"fwup\"",
        &format!("[ssh.subsystem]\nother = \"echo other\"\n[ssh.legacy]\nenabled = true\nport = {legacy}"),
        "",
    );
    let status = device.ssh(&["-s"], &["myelin-status"]);
    assert!(text(&status.stdout).contains("boot_id"), "{status:?}");
    // It reaches the subsystem, which has no device to write to.
    let pushed = device.ssh(&["-s"], &["fwup"]);
    assert!(text(&pushed.stdout).contains("Invalid device path"), "{pushed:?}");
    let pushed = device.ssh_to("127.0.0.1", legacy, &["-s"], &["nerves_firmware_ssh"]);
    assert!(text(&pushed.stdout).contains("nerves_firmware_ssh: error invalid_command"), "{pushed:?}");
    for (options, words) in [(&[][..], &["echo no"][..]), (&[], &[]), (&["-s"], &["other"])] {
        let output = device.ssh(options, words);
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}: {output:?}");
    }
    let device = Restricted::with("no-fwup", "", "");
    device.gets_in("127.0.0.1");
    let pushed = device.ssh(&["-s"], &["fwup"]);
    assert!(!pushed.status.success() && pushed.stdout.is_empty(), "{pushed:?}");
}

#[test]
fn a_key_for_files_can_do_nothing_else() {
    let device = Restricted::with("restrict,command=\"internal-sftp\"", "", "");
    fs::write(device.0.path("there"), "content").unwrap();
    let mut sftp = device.client("sftp");
    sftp.args(["-P", &device.0.port.to_string()]);
    sftp.arg(format!("root@127.0.0.1:{}", device.0.path("there").display())).arg(device.0.path("got"));
    let output = sftp.stdin(Stdio::null()).output().unwrap();
    assert_eq!(fs::read_to_string(device.0.path("got")).unwrap_or_default(), "content", "{output:?}");
    let output = device.ssh(&[], &["echo no"]);
    assert!(!text(&output.stdout).contains("no"), "{output:?}");
}

#[test]
fn what_is_not_obeyed_refuses_the_key_and_is_shown() {
    let device = Restricted::with("environment=\"A=secret\"", "", "");
    device.stays_out("option environment is not supported");
    assert!(!device.0.log().contains("secret"));
    let listed = device.0.myelin(&["keys", "list"]);
    assert!(text(&listed.stdout).contains("option environment"), "{listed:?}");

    let device = Restricted::with("no-pty,command=\"echo secret\"", "", "");
    let listed = device.0.myelin(&["keys", "list"]);
    assert!(text(&listed.stdout).contains("[no-pty,command]"), "{listed:?}");
    let json = text(&device.0.myelin(&["keys", "list", "--json"]).stdout);
    assert!(json.contains(r#""options":["no-pty","command"]"#) && !json.contains("secret"), "{json}");
}
