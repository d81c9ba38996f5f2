#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
//! `myelin config` as builds of images use it: what it names, and its exit status.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn myelin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_myelin")).args(args).env_remove("MYELIN_CONFIG").output().unwrap()
}

/// Checks a file with this text; gives the exit status and what was said, with `FILE` for its name.
fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let state = format!("state_dir = {:?}\n", folder.path().join("state"));
    let file = folder.path().join("config.toml");
    fs::write(&file, state + text).unwrap();
    let output = myelin(&["config", "check", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap().replace(file.to_str().unwrap(), "FILE");
    (output.status.code(), said)
}

#[test]
fn a_good_file_passes_in_silence() {
    let text = format!("[ssh]\nPort = 2222\nauthorized_keys = [\"{KEY} me\"]\n");
    assert_eq!(check(&text), (Some(0), String::new()));
}

#[test]
fn every_fault_is_named_with_its_line() {
    let text = format!(
        "[ssh]\nport = = 3\nlogin_grace_time = 1\nprot = 22\nciphers = \"+rot13\"\n\
         authorized_keys = [\n\"{KEY}\",\n\"verify-required {KEY}\",\n\"ssh-ed25519 AAAA\",\n]\n"
    );
    let (status, said) = check(&text);
    assert_eq!(status, Some(1));
    let places: Vec<&str> = said.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["FILE:3", "FILE:4", "FILE:5", "FILE:6", "FILE:9", "FILE:10"], "{said}");
    assert!(said.contains("FILE:4: ssh.login_grace_time: "), "{said}");
}

#[test]
fn variables_of_fwup_are_looked_at_and_their_values_never_shown() {
    for wrong in [
        "{ \"A=B\" = \"s3cret\" }",
        "{ \"\" = \"s3cret\" }",
        "{ \"A\\u0000\" = \"s3cret\" }",
        "{ A = \"s3cret\\u0000\" }",
        "{ A = 53, B = \"s3cret\" }",
        "[\"s3cret\"]",
        "\"s3cret\"",
    ] {
        let text = format!("[ssh]\nauthorized_keys = [\"{KEY} me\"]\n[firmware]\nfwup_env = {wrong}\n");
        let (status, said) = check(&text);
        assert_eq!((status, said.matches("FILE:5: firmware.fwup_env: ").count()), (Some(1), 1), "{said}");
        assert!(!said.contains("s3cret") && !said.contains("53"), "{said}");
    }
}

#[test]
fn a_device_that_nobody_could_enter_does_not_pass() {
    let (status, said) = check("[ssh]\nport = 2222\n");
    assert_eq!(status, Some(1));
    assert!(said.contains("myelin keys add"), "{said}");
}

#[test]
fn a_public_key_that_cannot_be_read_does_not_pass() {
    let keys = format!("[ssh]\nauthorized_keys = [\"{KEY}\"]\n[firmware]\npublic_keys = ");
    let (status, said) = check(&format!("{keys}[\"/nonexistent/fwup-key.pub\"]\n"));
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("FILE: firmware.public_keys: "), "{said}");
    let (status, said) = check(&format!("{keys}[\"AAAA\n"));
    assert_eq!(status, Some(1));
    assert!(said.contains("FILE:5: "), "{said}");
}

#[test]
fn a_named_file_that_is_not_there_does_not_pass() {
    let output = myelin(&["config", "check", "/nonexistent/config.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["file"], "/nonexistent/config.toml");
}

#[test]
fn what_show_prints_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.toml"), folder.path().join("two.toml"));
    fs::write(
        &one,
        "[SSH]\nport = 2222\nListenAddress = \"::1, 127.0.0.1\"\n[firmware]\nsuccess_action = \"none\"\n",
    )
    .unwrap();
    let show = |file: &Path, more: &[&str]| {
        let args = [&["config", "show", "--config", file.to_str().unwrap()], more].concat();
        let output = myelin(&args);
        assert!(output.status.success());
        output.stdout
    };
    fs::write(&two, show(&one, &[])).unwrap();
    assert_eq!(show(&one, &["--json"]), show(&two, &["--json"]));
    let config: serde_json::Value = serde_json::from_slice(&show(&two, &["--json"])).unwrap();
    assert_eq!(config["ssh"]["listen_address"], serde_json::json!(["::1", "127.0.0.1"]));
    assert_eq!(config["ssh"]["max_sessions"], 8);
}
