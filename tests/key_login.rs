//! Which keys let a stock ssh client in, and how soon a change of them counts.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::process::{Command, Output};

use common::{Device, text};

const FILE: &str = "state/ssh/authorized_keys";

/// A device that knows no key yet, beside the one of its configuration.
fn running() -> Device {
    let device = Device::start("", "");
    fs::create_dir_all(device.path("state/ssh")).unwrap();
    device
}

fn make_key(device: &Device, name: &str, kind: &[&str]) -> String {
    let mut command = Command::new("ssh-keygen");
    let made = command.args(["-q", "-N", "", "-t"]).args(kind).arg("-f").arg(device.path(name)).status();
    assert!(made.unwrap().success());
    fs::read_to_string(device.path(&format!("{name}.pub"))).unwrap()
}

/// A login with this key alone.
fn login(device: &Device, name: &str, options: &[&str]) -> Output {
    let identity = format!("IdentityFile={}", device.path(name).display());
    let mut command = Command::new("ssh");
    for option in
        ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=no", &identity].iter().chain(options)
    {
        command.args(["-o", option]);
    }
    command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-p", &device.port.to_string()]);
    command.args(["root@127.0.0.1", "true"]).env_remove("SSH_AUTH_SOCK").output().unwrap()
}

#[track_caller]
fn gets_in(device: &Device, name: &str) {
    let output = login(device, name, &[]);
    assert!(output.status.success(), "{}\nlog:\n{}", all(&output), device.log());
}

#[track_caller]
fn stays_out(device: &Device, name: &str) {
    let output = login(device, name, &[]);
    assert!(
        all(&output).contains("Permission denied (publickey)"),
        "{}\nlog:\n{}",
        all(&output),
        device.log()
    );
}

fn keys(device: &Device, words: &[&str]) {
    let output = device.myelin(&[&["keys"], words].concat());
    assert!(output.status.success(), "{}", all(&output));
}

fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_good_key_works_among_bad_lines_and_each_of_those_is_named_once() {
    let device = running();
    let key = make_key(&device, "new", &["ed25519"]);
    let options = make_key(&device, "restricted", &["ed25519"]);
    let lines = format!(
        "\u{feff}# comment\r\n\r\ngarbage\r\nssh-ed25519 AAAA!\r\nssh-dss AAAAB3NzaC1kc3MAAACB\r\n\
         frobnicate {}\r\nprincipals=\"a\",command=\"echo no\" {}\r\n{}",
        options.trim(),
        options.trim(),
        key.trim()
    );
    fs::write(device.path(FILE), lines).unwrap();
    gets_in(&device, "new");
    gets_in(&device, "new");
    stays_out(&device, "restricted");
    let log = device.log();
    for line in [3, 4, 5, 6, 7] {
        let place = format!("{}:{line}: ", device.path(FILE).display());
        assert_eq!(log.matches(&place).count(), 1, "{place} in {log}");
    }
    assert!(!log.contains("echo no") && !log.contains("frobnicate"), "{log}");
}

#[test]
fn a_key_counts_from_when_it_is_added_until_it_is_removed() {
    let mut device = running();
    let key = make_key(&device, "new", &["ed25519"]);
    stays_out(&device, "new");
    keys(&device, &["add", key.trim()]);
    gets_in(&device, "new");
    device.stop();
    device.start_again();
    gets_in(&device, "new");
    keys(&device, &["remove", key.trim()]);
    stays_out(&device, "new");
}

#[test]
fn a_key_that_leaves_the_configuration_stays_out() {
    let mut device = running();
    gets_in(&device, "key");
    device.stop();
    let config = fs::read_to_string(device.path("config.toml")).unwrap();
    let without: String = config
        .lines()
        .filter(|line| !line.starts_with("authorized_keys"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(device.path("config.toml"), without).unwrap();
    device.start_again();
    stays_out(&device, "key");
    assert!(!device.path(FILE).exists());
}

#[test]
fn every_kind_of_key_that_is_still_safe_gets_in() {
    let device = running();
    let kinds: [(&str, &[&str]); 5] = [
        ("rsa2048", &["rsa", "-b", "2048"]),
        ("rsa3072", &["rsa", "-b", "3072"]),
        ("p256", &["ecdsa", "-b", "256"]),
        ("p384", &["ecdsa", "-b", "384"]),
        ("p521", &["ecdsa", "-b", "521"]),
    ];
    for (name, kind) in kinds {
        keys(&device, &["add", make_key(&device, name, kind).trim()]);
        gets_in(&device, name);
    }
    let sha1 = login(&device, "rsa2048", &["PubkeyAcceptedAlgorithms=ssh-rsa"]);
    assert_eq!(sha1.status.code(), Some(255), "{}", all(&sha1));
    let short = make_key(&device, "rsa1024", &["rsa", "-b", "1024"]);
    fs::write(device.path(FILE), short).unwrap();
    stays_out(&device, "rsa1024");
    assert!(device.log().contains("1024 bits"), "{}", device.log());
}

#[test]
fn an_agent_with_many_wrong_keys_gets_in_too() {
    let device = running();
    let mut options = Vec::new();
    for number in 0..5 {
        make_key(&device, &format!("wrong{number}"), &["ed25519"]);
        options.push(format!("IdentityFile={}", device.path(&format!("wrong{number}")).display()));
    }
    make_key(&device, "wrong", &["ed25519"]);
    options.push(format!("IdentityFile={}", device.path("key").display()));
    // ssh offers the identities in the order of its options.
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let output = login(&device, "wrong", &options);
    assert!(output.status.success(), "{}", all(&output));
}
