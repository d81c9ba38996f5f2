//! Programs that know keys and passwords, with OpenSSH's client; those for keys also for OpenSSH's sshd.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::sshd::Sshd;
use common::{Device, new_folder, new_key, text};

fn program(path: &Path, script: &str) {
    // Written beside and moved: a daemon may start it now.
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A folder that others may enter, as a program that runs as somebody else has to; the key of the device's owner.
fn open_folder() -> (tempfile::TempDir, String, PathBuf) {
    let (folder, owner) = new_folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("keys.sh");
    (folder, owner, path)
}

fn login(port: u16, user: &str, key: &Path, command: &str) -> Output {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]);
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"]).arg(key);
    ssh.args(["-p", &port.to_string(), "-l", user, "127.0.0.1", command]);
    ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_program_may_know_the_keys() {
    let (folder, owner, script) = open_folder();
    let path = |name: &str| folder.path().join(name);
    let (known, other) = (new_key(&path("known")), new_key(&path("other")));
    let blob = known.split(' ').nth(1).unwrap().to_owned();
    let asked = path("asked");
    fs::write(&asked, "").unwrap();
    fs::set_permissions(&asked, fs::Permissions::from_mode(0o666)).unwrap();
    program(
        &script,
        &format!(
            "echo \"$(id -un) $*\" >> {}\n[ \"$1 $2 $3\" = 'root ssh-ed25519 {blob}' ] || exit 0\n\
             echo 'command=\"echo forced $SSH_ORIGINAL_COMMAND\"' \"$2 $3\"",
            asked.display()
        ),
    );
    let sshd = Sshd::start(
        folder.path(),
        &format!(
            "AuthorizedKeysFile none\nAuthorizedKeysCommand {} %u %t %k %f\nAuthorizedKeysCommandUser nobody",
            script.display()
        ),
    );
    let more = format!("authorized_keys_command = [{script:?}, \"%u\", \"%t\", \"%k\", \"%f\"]");
    let device = Device::start_in(folder, &owner, &more, "");
    for port in [Some(device.port), sshd.as_ref().map(|sshd| sshd.port)].into_iter().flatten() {
        let output = login(port, "root", &device.path("known"), "id");
        assert_eq!(text(&output.stdout), "forced id\n", "{output:?}\n{}", device.log());
        assert_eq!(login(port, "root", &device.path("other"), "id").status.code(), Some(255));
    }
    let fingerprint = |name: &str| {
        let listed = Command::new("ssh-keygen").arg("-lf").arg(device.path(name)).output().unwrap();
        text(&listed.stdout).split(' ').nth(1).unwrap().to_owned()
    };
    let said = fs::read_to_string(&asked).unwrap();
    let whoami = if sshd.is_some() { "nobody " } else { "" };
    for (name, blob) in [("known", &known), ("other", &other)] {
        let blob = blob.split(' ').nth(1).unwrap();
        let line = format!("{whoami}root ssh-ed25519 {blob} {}", fingerprint(name));
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert!(device.log().contains("source=\"authorized_keys_command:1\""), "{}", device.log());

    // The owner, whom the configuration knows, is not asked about; an answer counts for a while.
    let lines = said.lines().count();
    device.assert_reachable();
    assert_eq!(login(device.port, "root", &device.path("known"), "id").status.code(), Some(0));
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), lines);
    // Nor is it asked about names that it could take for options.
    assert_eq!(login(device.port, "-x", &device.path("known"), "id").status.code(), Some(255));
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), lines);
    assert_eq!(login(device.port, "bob", &device.path("known"), "id").status.code(), Some(255));
    assert!(fs::read_to_string(&asked).unwrap().contains("bob ssh-ed25519"));
}

#[test]
fn a_program_that_fails_keeps_nobody_out() {
    let (folder, owner, script) = open_folder();
    let known = new_key(&folder.path().join("known"));
    program(&script, &format!("echo '{known}'; sleep 60"));
    let device = Device::start_in(folder, &owner, &format!("authorized_keys_command = {script:?}"), "");
    let began = Instant::now();
    assert_eq!(login(device.port, "root", &device.path("known"), "id").status.code(), Some(255));
    assert!(began.elapsed() > Duration::from_secs(4), "it had its time");
    assert!(device.log().contains("authorized_keys_command lets nobody in"), "{}", device.log());
    device.assert_reachable();
    for (content, mode) in [(format!("echo '{known}'; exit 1"), 0o755), (format!("echo '{known}'"), 0o777)] {
        program(&script, &content);
        fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(login(device.port, "root", &device.path("known"), "id").status.code(), Some(255));
    }
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = login(device.port, "root", &device.path("known"), "echo in");
    assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", device.log());
}

/// A login with a password alone.
fn with_password(device: &Device, user: &str, password: &str, method: &str) -> Output {
    let ask = device.path("askpass");
    program(&ask, "printf '%s\\n' \"$ASKED\"");
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o"]).arg(format!("PreferredAuthentications={method}"));
    ssh.args(["-p", &device.port.to_string(), &format!("{user}@127.0.0.1"), "echo in"]);
    ssh.env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force").env("ASKED", password);
    ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_program_may_know_the_passwords() {
    let (folder, owner, script) = open_folder();
    let told = folder.path().join("told");
    program(
        &script,
        &format!(
            "password=$(cat)\necho \"$MYELIN_USER ${{MYELIN_PEER%:*}} $MYELIN_METHOD $password\" >> {}\n\
             case $password in right) exit 0;; end) exit 2;; odd) exit 7;; esac\nexit 1",
            told.display()
        ),
    );
    let more = format!("auth_command = {script:?}\n[ssh.users.ada]\npassword = \"known here\"");
    let device = Device::start_in(folder, &owner, &more, "");
    for method in ["password", "keyboard-interactive"] {
        let output = with_password(&device, "ada", "right", method);
        assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", device.log());
        let line = format!("ada 127.0.0.1 {method} right\n");
        assert!(fs::read_to_string(&told).unwrap().contains(&line));
    }
    for password in ["wrong", "odd", "known here"] {
        let output = with_password(&device, "ada", password, "password");
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        let times = fs::read_to_string(&told).unwrap().matches(&format!("password {password}\n")).count();
        assert_eq!(times, 3, "{password}: password_tries");
    }
    assert!(device.log().contains("auth_command gave no answer"), "{}", device.log());
    let output = with_password(&device, "ada", "end", "password");
    assert!(text(&output.stderr).contains("Too many authentication failures"), "{output:?}");
    assert_eq!(fs::read_to_string(&told).unwrap().matches("password end\n").count(), 1);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(with_password(&device, "ada", "right", "password").status.code(), Some(255));
    let shown = [device.log(), text(&device.myelin(&["status"]).stdout)].concat();
    assert!(!shown.contains("right") && !shown.contains("known here"), "{shown}");
    device.assert_reachable();
}
