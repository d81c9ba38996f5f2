//! Which methods it takes to get in, with OpenSSH's client and paramiko; the lists also for OpenSSH's sshd.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use common::{Device, new_key, text};

/// Of `secret`, made by `openssl passwd -6`.
const ADA: &str = "[ssh.users.ada]\npassword_hash = \"$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.\"";

fn device(more_ssh: &str) -> Device {
    Device::start(&format!("{more_ssh}\n{ADA}"), "")
}

/// A login that has this password, and the key of this name.
fn login(device: &Device, key: &str, password: &str, options: &[&str]) -> Output {
    let ask = device.path("askpass");
    fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$ASKED\"\n").unwrap();
    fs::set_permissions(&ask, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "NumberOfPasswordPrompts=1", "-o", "IdentitiesOnly=yes", "-i"]).arg(device.path(key));
    command.args(options).args(["-p", &device.port.to_string(), "-l", "ada", "127.0.0.1", "echo in"]);
    command.env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force").env("ASKED", password);
    command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn gets_in(device: &Device, key: &str, password: &str) {
    let output = login(device, key, password, &[]);
    assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", device.log());
}

#[track_caller]
fn stays_out(device: &Device, key: &str, password: &str, offered: &str) {
    let output = login(device, key, password, &[]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(text(&output.stderr).contains(&format!("Permission denied ({offered})")), "{output:?}");
}

#[test]
fn a_key_and_a_password_are_both_needed() {
    let device = device("authentication_methods = \"publickey,password publickey,keyboard-interactive\"");
    new_key(&device.path("wrong"));
    gets_in(&device, "key", "secret");
    let log = device.log();
    assert!(log.contains("ssh.auth.partial") && log.contains("ssh.auth.ok"), "{log}");
    for method in ["password", "keyboard-interactive"] {
        let only = format!("PreferredAuthentications=publickey,{method}");
        let output = login(&device, "key", "secret", &["-o", &only]);
        assert_eq!(text(&output.stdout), "in\n", "{method}: {output:?}");
        let output = login(&device, "key", "secret", &["-o", &format!("PreferredAuthentications={method}")]);
        assert_eq!(output.status.code(), Some(255), "the key comes first: {output:?}");
    }
    stays_out(&device, "key", "wrong", "keyboard-interactive,password");
    stays_out(&device, "wrong", "secret", "publickey");
    let none = login(&device, "key", "secret", &["-o", "PreferredAuthentications=none"]);
    assert!(text(&none.stderr).contains("Permission denied (publickey)"), "{none:?}");
}

#[test]
fn the_order_counts() {
    let device = device("authentication_methods = [\"password,publickey\"]");
    stays_out(&device, "key", "wrong", "password");
    let order = ["-o", "PreferredAuthentications=password,publickey"];
    let output = login(&device, "key", "secret", &order);
    assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", device.log());
}

/// What was shown for one name is nothing for another.
#[test]
fn another_name_begins_anew() {
    let device = device("authentication_methods = \"publickey,password\"");
    let program = "
import paramiko, sys
port, key = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(key)
transport = paramiko.Transport(('127.0.0.1', int(port)))
transport.start_client()
print(transport.auth_publickey('bob', key))
# It would ask for the service anew each time, which the library under the device does not answer.
def again(self):
    message = paramiko.Message()
    message.add_string('ssh-userauth')
    message.rewind()
    self._parse_service_accept(message)
paramiko.auth_handler.AuthHandler._request_auth = again
try:
    print(transport.auth_password('ada', 'secret'))
except paramiko.SSHException as error:
    print(type(error).__name__, error)
print(transport.auth_publickey('ada', key))
print(transport.auth_password('ada', 'secret'), transport.is_authenticated())
";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-W", "ignore", "-c", program, &device.port.to_string()]).arg(device.path("key"));
    let output = python.output().unwrap();
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    let [partial, refused, again, done] = lines[..] else { panic!("{output:?}") };
    assert_eq!((partial, again, done), ("['password']", "['password']", "[] True"), "{output:?}");
    assert!(refused.contains("publickey"), "{output:?}");
}

#[test]
fn keys_can_be_switched_off_while_there_are_passwords() {
    let device = device("pubkey_authentication = false");
    gets_in(&device, "key", "secret");
    stays_out(&device, "key", "wrong", "keyboard-interactive,password");
    let device = Device::start("pubkey_authentication = false", "");
    gets_in(&device, "key", "");
    let device = Device::start(
        "pubkey_authentication = false\npassword_authentication = false\nkbd_interactive_authentication = false",
        ADA,
    );
    gets_in(&device, "key", "");
}

#[test]
fn lists_that_cannot_be_gone_through_do_not_count() {
    let device =
        device("authentication_methods = \"publickey,password password\"\npassword_authentication = false");
    gets_in(&device, "key", "");
    assert!(device.log().contains("any method is enough"), "{}", device.log());
    // The probe that looks whether logins work needs one step.
    let device = self::device("authentication_methods = \"publickey,password\"\n");
    assert!(device.myelin(&["status"]).status.success());
    let checked = device.myelin(&["config", "check"]);
    assert!(checked.status.success(), "{checked:?}");
}
