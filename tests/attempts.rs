//! How many keys a client may try to prove.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Device, new_key, text};

/// ssh-agent's messages (draft-ietf-sshm-ssh-agent, section 6.1).
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// An agent that has these keys and signs wrongly with all of them.
fn start_lying_agent(path: &Path, keys: Vec<Vec<u8>>) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &keys);
        }
    });
}

fn answer(mut stream: UnixStream, keys: &[Vec<u8>]) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let reply = match request[0] {
            REQUEST_IDENTITIES => {
                let mut reply = vec![IDENTITIES_ANSWER];
                reply.extend(u32::try_from(keys.len()).unwrap().to_be_bytes());
                for key in keys {
                    reply.extend(string(key));
                    reply.extend(string(b"a key"));
                }
                reply
            }
            SIGN_REQUEST => {
                let signature = [string(b"ssh-ed25519"), string(&[7; 64])].concat();
                [vec![SIGN_RESPONSE], string(&signature)].concat()
            }
            _ => vec![FAILURE],
        };
        stream.write_all(&string(&reply))?;
    }
}

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
    start_lying_agent(&socket, blobs);
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
