//! How many keys a client may try to prove.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use common::agent::{self, string};
use common::{Device, new_key, text};

/// A login with whatever the lying agent offers, then with the right key.
fn login(device: &Device, wrong: usize) -> Output {
    let folder = device.path(&format!("agent{wrong}"));
    fs::create_dir(&folder).unwrap();
    let mut blobs = Vec::new();
    for number in 0..wrong {
        let public = new_key(&folder.join(format!("key{number}")));
        let added = device.myelin(&["keys", "add", &public]);
        assert!(added.status.success(), "{added:?}");
        let base64 = public.split(' ').nth(1).unwrap();
        blobs.push(data_encoding::BASE64.decode(base64.as_bytes()).unwrap());
    }
    let socket = folder.join("agent");
    // It signs wrongly with all of them.
    agent::start(&socket, blobs, Arc::new(|_, _| [string(b"ssh-ed25519"), string(&[7; 64])].concat()));
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
    command
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o"])
        .arg(format!("IdentityAgent={}", socket.display()));
    command.arg("-i").arg(device.path("key")).args([
        "-p",
        &device.port.to_string(),
        "root@127.0.0.1",
        "true",
    ]);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn max_auth_tries_ends_a_client_that_proves_nothing() {
    let device = Device::start("max_auth_tries = 3", "");
    let output = login(&device, 2);
    assert!(output.status.success(), "two wrong signatures and a right one: {}", text(&output.stderr));
    let output = login(&device, 5);
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Too many authentication failures"), "{}", text(&output.stderr));
    device.assert_reachable();
}
