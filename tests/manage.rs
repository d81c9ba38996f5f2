//! Commands that ask the running daemon, or change what it does from the next login on.

mod common;

use std::process::{Command, Stdio};

use common::{Device, text, wait_until};
use serde_json::Value;

fn json(device: &Device, words: &[&str]) -> Vec<Value> {
    let output = device.myelin(words);
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn addresses_and_fingerprints_are_those_that_clients_see() {
    let device = Device::start("host_key_types = [\"ed25519\", \"ecdsa\"]", "");
    let public = |kind: &str| device.path(&format!("state/ssh/ssh_host_{kind}_key.pub"));
    let fingerprint = |kind: &str| {
        let listed = Command::new("ssh-keygen").arg("-lf").arg(public(kind)).output().unwrap();
        text(&listed.stdout).split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    wait_until("the slow key is made", || public("ecdsa").exists());
    let expected = [
        format!("ssh-ed25519 {}", fingerprint("ed25519")),
        format!("ecdsa-sha2-nistp256 {}", fingerprint("ecdsa")),
    ];
    let info = || json(&device, &["ssh", "info", "--json"]).remove(0);
    wait_until("both are served", || info()["host_keys"].as_array().unwrap().len() == 2);
    assert_eq!(info()["host_keys"], Value::from(expected.to_vec()));
    assert_eq!((&info()["port"], &info()["connections"]), (&device.port.into(), &0.into()));
    let addresses: Vec<_> =
        ["127.0.0.1", "[::1]"].iter().map(|address| format!("{address}:{}", device.port)).collect();
    let mut shown: Vec<String> = serde_json::from_value(info()["addresses"].clone()).unwrap();
    shown.sort();
    assert_eq!(shown, addresses);
    assert_eq!(info()["version"], env!("CARGO_PKG_VERSION"));

    let mut client = device.ssh().arg("sleep 778").stdin(Stdio::null()).spawn().unwrap();
    wait_until("the client counts", || info()["connections"] == 1);
    let shown = text(&device.myelin(&["ssh", "info"]).stdout);
    assert!(expected.iter().all(|key| shown.contains(key)) && shown.contains("connections   1,"), "{shown}");
    client.kill().unwrap();
    client.wait().unwrap();

    let records = text(&device.myelin(&["ssh", "info", "--sshfp=board.example"]).stdout);
    for kind in ["ed25519", "ecdsa"] {
        let made = Command::new("ssh-keygen").args(["-r", "board.example", "-f"]).arg(public(kind)).output();
        let made = text(&made.unwrap().stdout);
        let sha256 = made.lines().find(|line| line.split(' ').nth(4) == Some("2")).unwrap();
        assert!(records.lines().any(|line| line == sha256), "{records}\n{made}");
    }
}

#[test]
fn algorithms_are_those_that_are_offered() {
    let mut device = Device::start("ciphers = \"-aes*-ctr\"\nmacs = \"+hmac-sha2-512\"", "");
    let lists = json(&device, &["ssh", "algorithms", "--json"]);
    let list = |key: &str, what: &str| -> Vec<String> {
        let list = lists.iter().find(|list| list["key"] == key).unwrap();
        serde_json::from_value(list[what].clone()).unwrap()
    };
    let output = device.ssh_with(&["-vv"]).arg("true").stdin(Stdio::null()).output().unwrap();
    // The second proposal that ssh shows is the server's.
    let offered = |line: &str| {
        let log = text(&output.stderr);
        let names = log.lines().filter_map(|l| l.strip_prefix(line)).nth(1).unwrap().trim().to_owned();
        names.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("ciphers", "enabled"), offered("debug2: ciphers ctos: "));
    assert_eq!(list("macs", "enabled"), offered("debug2: MACs ctos: "));
    assert_eq!(list("host_key_types", "enabled"), offered("debug2: host key algorithms: "));
    let kex = offered("debug2: KEX algorithms: ");
    assert_eq!(list("kex_algorithms", "enabled"), kex[..kex.len() - 2], "{kex:?}");
    assert!(list("ciphers", "supported").contains(&"aes256-ctr".into()));
    let shown = text(&device.myelin(&["ssh", "algorithms"]).stdout);
    assert!(shown.contains("(aes256-ctr: not enabled)"), "{shown}");
    device.stop();
    assert_eq!(json(&device, &["ssh", "algorithms", "--json"])[1], lists[1], "known without the daemon too");
    assert_eq!(device.myelin(&["ssh", "info"]).status.code(), Some(1));
}
