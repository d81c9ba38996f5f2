//! Logging in with passwords, with OpenSSH and dropbear's client.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Device, pipe_into, signal, text, wait_until};

/// Of `secret`, made by `openssl passwd -6`.
const HASH: &str =
    "$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.";

fn device(more_ssh: &str) -> Device {
    Device::start(more_ssh, "")
}

fn with_ada(more_ssh: &str) -> Device {
    device(&format!("{more_ssh}\n[ssh.users.ada]\npassword_hash = \"{HASH}\""))
}

/// A login of OpenSSH that has this password and no key.
fn login(device: &Device, user: &str, password: &str, method: &str, options: &[&str]) -> Output {
    let ask = device.path("askpass");
    fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$ASKED\"\nprintf '%s\\n' \"$1\" >> \"$0.asked\"\n").unwrap();
    fs::set_permissions(&ask, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no"]);
    command
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o"])
        .arg(format!("PreferredAuthentications={method}"));
    command.args(options).args(["-p", &device.port.to_string(), &format!("{user}@127.0.0.1"), "echo in"]);
    command.env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force").env("ASKED", password);
    command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn gets_in(device: &Device, user: &str, password: &str) {
    for method in ["password", "keyboard-interactive"] {
        let output = login(device, user, password, method, &[]);
        assert_eq!(text(&output.stdout), "in\n", "{method}: {output:?}\n{}", device.log());
    }
}

#[track_caller]
fn stays_out(device: &Device, user: &str, password: &str) {
    for method in ["password", "keyboard-interactive"] {
        let output = login(device, user, password, method, &["-o", "NumberOfPasswordPrompts=1"]);
        assert_eq!(output.status.code(), Some(255), "{method}: {output:?}");
    }
}

#[test]
fn the_right_password_gets_in_and_nothing_else_does() {
    let device = with_ada("");
    gets_in(&device, "ada", "secret");
    stays_out(&device, "ada", "Secret");
    stays_out(&device, "ada", "");
    stays_out(&device, "bob", "secret");
    let asked = fs::read_to_string(device.path("askpass.asked")).unwrap();
    assert!(asked.contains("password: "), "{asked}");
    device.assert_reachable();
    let log = device.log();
    assert!(log.contains("method=\"password\"") && log.contains("ssh.auth.fail"), "{log}");
    let shown = text(&device.myelin(&["config", "show"]).stdout);
    for said in [&log, &shown] {
        assert!(!said.contains("Secret") && !said.contains("secret") && !said.contains("$6$"), "{said}");
    }
}

#[test]
fn dropbear_gets_in_too() {
    let device = with_ada("");
    let mut client = Command::new("dbclient");
    client.args(["-y", "-y", "-p", &device.port.to_string(), "ada@127.0.0.1", "echo in"]);
    let output =
        client.env("DROPBEAR_PASSWORD", "secret").env("HOME", device.folder.path()).output().unwrap();
    assert_eq!(text(&output.stdout), "in\n", "{output:?}");
}

#[test]
fn wrong_passwords_are_answered_late_and_end_the_connection() {
    let device = with_ada("");
    let began = Instant::now();
    let output = login(&device, "ada", "wrong", "password", &["-o", "NumberOfPasswordPrompts=9"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("Too many authentication failures"), "{output:?}");
    let asked = fs::read_to_string(device.path("askpass.asked")).unwrap();
    // The client may have begun to ask once more when it reads that it is over.
    assert!((3..=4).contains(&asked.lines().count()), "{asked}");
    assert!(began.elapsed() >= Duration::from_millis(2_400), "{:?}", began.elapsed());
    gets_in(&device, "ada", "secret");
}

#[test]
fn passwords_are_offered_only_where_they_can_succeed() {
    let offered = |device: &Device| {
        let none = device.ssh_with(&["-o", "PreferredAuthentications=none"]).arg("true").output().unwrap();
        let text = text(&none.stderr);
        let (_, rest) = text.split_once("Permission denied (").unwrap_or_default();
        rest.split(')').next().unwrap_or_default().to_owned()
    };
    assert_eq!(offered(&device("")), "publickey");
    assert_eq!(offered(&with_ada("")), "publickey,keyboard-interactive,password");
    assert_eq!(offered(&with_ada("password_authentication = false")), "publickey,keyboard-interactive");
    let neither = with_ada("password_authentication = false\nkbd_interactive_authentication = false");
    assert_eq!(offered(&neither), "publickey");
    stays_out(&neither, "ada", "secret");
}

#[test]
fn a_user_of_this_boot_gets_in_until_the_reboot() {
    let mut device = device("");
    let added = device.myelin(&["users", "add", "guest", "--generate"]);
    let password = text(&added.stdout).trim().to_owned();
    assert!(added.status.success() && password.len() == 16, "{added:?}");
    gets_in(&device, "guest", &password);
    let file = fs::read_to_string(device.path("run/users.toml")).unwrap();
    assert!(!file.contains(&password) && file.contains("$6$"), "{file}");

    let worker = device.worker();
    signal(worker, "KILL");
    wait_until("there is another worker", || {
        common::ssh_worker(device.daemon.id()).is_some_and(|pid| pid != worker)
    });
    gets_in(&device, "guest", &password);

    let mut add = Command::new(env!("CARGO_BIN_EXE_myelin"));
    add.arg("--config").arg(device.config()).args(["users", "add", "guest", "--password-stdin"]);
    assert!(pipe_into(&mut add, b"another\n").status.success());
    gets_in(&device, "guest", "another");
    stays_out(&device, "guest", &password);
    assert!(text(&device.myelin(&["users", "list"]).stdout).contains("guest  until the reboot"));

    device.stop();
    fs::remove_dir_all(device.path("run")).unwrap();
    device.start_again();
    stays_out(&device, "guest", "another");
}

#[test]
fn a_user_who_is_to_stay_stays() {
    let mut device = device("");
    let added = device.myelin(&["users", "add", "guest", "--generate"]);
    assert!(added.status.success(), "{added:?}");
    let added = device.myelin(&["users", "add", "guest", "--generate", "--persist"]);
    let password = text(&added.stdout).trim().to_owned();
    gets_in(&device, "guest", &password);
    let mode = fs::metadata(device.path("state/ssh/users.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    device.stop();
    fs::remove_dir_all(device.path("run")).unwrap();
    device.start_again();
    gets_in(&device, "guest", &password);
    // Another one until the reboot.
    let added = device.myelin(&["users", "add", "guest", "--generate"]);
    stays_out(&device, "guest", &password);
    gets_in(&device, "guest", text(&added.stdout).trim());
    let listed = text(&device.myelin(&["users", "list", "--json"]).stdout);
    let lines =
        "{\"name\":\"guest\",\"source\":\"added\"}\n{\"name\":\"guest\",\"source\":\"until the reboot\"}\n";
    assert_eq!(listed, lines);
    assert!(device.myelin(&["users", "remove", "guest"]).status.success());
    assert_eq!(text(&device.myelin(&["users", "list"]).stdout), "");
    stays_out(&device, "guest", &password);
}

#[test]
fn a_removed_user_stays_out_and_mistakes_are_explained() {
    let device = with_ada("");
    assert!(device.myelin(&["users", "add", "guest", "--generate"]).status.success());
    assert!(device.myelin(&["users", "remove", "guest"]).status.success());
    let again = device.myelin(&["users", "remove", "guest"]);
    assert!(text(&again.stderr).contains("myelin users list"), "{again:?}");
    assert_eq!(again.status.code(), Some(1));
    let wrong = device.myelin(&["users", "add", "a:b", "--generate"]);
    assert!(text(&wrong.stderr).contains("1 to 64 bytes"), "{wrong:?}");
    assert_eq!(device.myelin(&["users", "add", "x"]).status.code(), Some(2));
    fs::write(device.path("run/users.toml"), "= broken").unwrap();
    gets_in(&device, "ada", "secret");
    assert!(device.log().contains("the file of users is broken"));
}

#[test]
fn a_removed_user_is_thrown_out() {
    let device = with_ada("");
    let added = device.myelin(&["users", "add", "guest", "--generate"]);
    let password = text(&added.stdout).trim().to_owned();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| login(&device, "guest", &password, "password", &["-N"]));
        wait_until("the guest is in", || {
            text(&device.myelin(&["sessions", "list"]).stdout).contains("guest")
        });
        let removed = device.myelin(&["users", "remove", "guest"]);
        assert!(text(&removed.stdout).contains("connections that end: 1"), "{removed:?}");
        assert_eq!(guest.join().unwrap().status.code(), Some(255));
    });
    device.wait_for_log("its key or user was removed or revoked");
}

#[test]
fn an_empty_password_counts_only_where_that_is_said() {
    let user = "[ssh.users.open]\npassword = \"\"";
    let device = device(user);
    stays_out(&device, "open", "");
    let device = self::device(&format!("permit_empty_passwords = true\n{user}"));
    let output = login(&device, "open", "", "none", &[]);
    assert_eq!(text(&output.stdout), "in\n", "{output:?}");
    assert!(device.log().contains("without a password"), "{}", device.log());
    stays_out(&device, "other", "");
}
