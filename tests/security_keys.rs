//! Keys of security keys (FIDO), with OpenSSH's client and an agent that is one; the same for OpenSSH's sshd.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use common::agent::{self, string};
use common::sshd::Sshd;
use common::{Device, new_folder, text};
use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

const ED25519: &str = "sk-ssh-ed25519@openssh.com";
const ECDSA: &str = "sk-ecdsa-sha2-nistp256@openssh.com";
const APPLICATION: &[u8] = b"ssh:";
/// Flags of a signature (PROTOCOL.u2f of OpenSSH): somebody touched the key.
const TOUCHED: u8 = 1;

/// What a security key signs, and what follows its signature.
fn signed_by_token(data: &[u8], flags: u8) -> (Vec<u8>, Vec<u8>) {
    let state = [&[flags][..], &7_u32.to_be_bytes()].concat();
    let signed = [&Sha256::digest(APPLICATION)[..], state.as_slice(), &Sha256::digest(data)[..]].concat();
    (signed, state)
}

fn openssl(arguments: &[&str], path: &Path) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).arg(path).output().expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// The two numbers of an ECDSA signature in DER, as SSH writes them: both have the bytes of the same integers.
fn numbers(der: &[u8]) -> Vec<u8> {
    let (first, rest) = der[4..].split_at(usize::from(der[3]));
    [string(first), string(&rest[2..])].concat()
}

/// An agent at `FOLDER/agent-NAME` for each kind of key and flags; the blobs of the keys.
fn start_tokens(folder: &Path) -> [Vec<u8>; 2] {
    let key = SigningKey::from_bytes(&[9; 32]);
    let ed25519 = [string(ED25519.as_bytes()), string(key.verifying_key().as_bytes()), string(APPLICATION)];
    let pem = folder.join("token.pem");
    let made = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"], &pem);
    assert!(made.is_empty());
    let public = openssl(&["ec", "-pubout", "-outform", "DER", "-in"], &pem);
    let point = &public[public.len() - 65..];
    let ecdsa = [string(ECDSA.as_bytes()), string(b"nistp256"), string(point), string(APPLICATION)].concat();
    let blobs = [ed25519.concat(), ecdsa];
    for (name, flags) in [("touched", TOUCHED), ("untouched", 0)] {
        let (key, pem) = (key.clone(), pem.clone());
        let data_file = folder.join(format!("data-{name}"));
        let sign = move |blob: &[u8], data: &[u8]| {
            let (signed, state) = signed_by_token(data, flags);
            if blob[4..].starts_with(ED25519.as_bytes()) {
                let signature = key.sign(&signed).to_bytes();
                return [string(ED25519.as_bytes()), string(&signature), state].concat();
            }
            fs::write(&data_file, signed).unwrap();
            let pem = pem.display().to_string();
            let signature = numbers(&openssl(&["dgst", "-sha256", "-sign", &pem], &data_file));
            [string(ECDSA.as_bytes()), string(&signature), state].concat()
        };
        let sign = Arc::new(sign);
        for (kind, blob) in ["ed25519", "ecdsa"].into_iter().zip(&blobs) {
            agent::start(&folder.join(format!("{kind}-{name}")), vec![blob.clone()], sign.clone());
        }
    }
    blobs
}

fn login(port: u16, agent: &Path) -> Output {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o"]).arg(format!("IdentityAgent={}", agent.display()));
    ssh.args(["-p", &port.to_string(), "root@127.0.0.1", "echo in"]);
    ssh.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn security_keys_get_in_where_their_touch_does_not_matter() {
    let (folder, owner) = new_folder();
    let blobs = start_tokens(folder.path());
    let lines = |options: &str| {
        let line = |(name, blob): (&str, &Vec<u8>)| format!("{options}{name} {}\n", BASE64.encode(blob));
        [ED25519, ECDSA].into_iter().zip(&blobs).map(line).collect::<String>()
    };
    let path = folder.path().join("lines");
    fs::write(&path, lines("")).unwrap();
    let sshd = Sshd::start(folder.path(), &format!("AuthorizedKeysFile {}", path.display()));
    let device = Device::start_in(folder, &owner, &format!("authorized_keys_file = {:?}", [&path]), "");
    let gets_in = |port: u16, agent: &str| {
        let output = login(port, &device.path(agent));
        assert_eq!(output.status.success(), text(&output.stdout) == "in\n", "{output:?}");
        output.status.success()
    };
    for kind in ["ed25519", "ecdsa"] {
        let (touched, untouched) = (format!("{kind}-touched"), format!("{kind}-untouched"));
        assert!(!gets_in(device.port, &touched) && !gets_in(device.port, &untouched));
        if let Some(sshd) = &sshd {
            assert!(gets_in(sshd.port, &touched) && !gets_in(sshd.port, &untouched), "the token is right");
        }
    }
    let log = device.log();
    assert!(
        log.contains("lines:1: key refused") && log.contains("need the option no-touch-required"),
        "{log}"
    );
    let added = device.myelin(&["keys", "add", lines("").lines().next().unwrap()]);
    assert!(text(&added.stderr).contains("no-touch-required"), "{added:?}");

    fs::write(&path, lines("no-touch-required,no-pty ")).unwrap();
    for kind in ["ed25519", "ecdsa"] {
        for agent in [format!("{kind}-touched"), format!("{kind}-untouched")] {
            for port in [Some(device.port), sshd.as_ref().map(|sshd| sshd.port)].into_iter().flatten() {
                assert!(gets_in(port, &agent), "{agent}: {}", device.log());
            }
        }
    }
    // A PIN cannot be seen either, so who asks for one is not obeyed half.
    fs::write(&path, lines("no-touch-required,verify-required ")).unwrap();
    assert!(!gets_in(device.port, "ed25519-touched"));
    device.assert_reachable();
}
