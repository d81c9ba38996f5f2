//! Commands that ask the running daemon, or change what it does from the next login on.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};

use common::{Device, new_key, pipe_into, signal, text, wait_until};
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

/// A second key, and what makes ssh use it.
fn second_key(device: &Device) -> (String, String) {
    let path = device.path("second");
    (new_key(&path), format!("-oIdentityFile={}", path.display()))
}

fn stays(device: &Device, options: &[&str]) -> Child {
    let mut command = device.ssh_with(options);
    let child = command.arg("echo in; exec sleep 779").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut word = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    child
}

fn ends(child: &mut Child) {
    wait_until("the connection ends", || child.try_wait().unwrap().is_some());
}

#[test]
fn a_removed_key_ends_its_connections_and_no_others() {
    let device = Device::start("", "");
    let (public, option) = second_key(&device);
    assert!(device.myelin(&["keys", "add", &public]).status.success());
    let (mut first, mut second) = (stays(&device, &[]), stays(&device, &[&option]));
    let removed = device.myelin(&["keys", "remove", &public]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(text(&removed.stdout).contains("connections that end: 1"), "{removed:?}");
    ends(&mut second);
    assert!(first.try_wait().unwrap().is_none());

    // One of the configuration, by its own owner, who sees that it was done.
    assert!(device.myelin(&["keys", "add", &public]).status.success());
    let line = fs::read_to_string(device.path("key.pub")).unwrap();
    let blob = line.split(' ').nth(1).unwrap();
    let own = format!("{} keys remove {blob}", env!("CARGO_BIN_EXE_myelin"));
    let output = device.run(&own);
    assert!(text(&output.stdout).contains("connections that end: 2"), "{output:?}");
    ends(&mut first);
    let refused = device.run("true");
    assert_eq!(refused.status.code(), Some(255));
    device.wait_for_log("key is revoked");
    let second = device.ssh_with(&[&option]).arg("echo other").stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&second.stdout), "other\n", "the other key still logs in");
    assert!(device.myelin(&["keys", "add", line.trim()]).status.success());
    device.assert_reachable();
}

#[test]
fn a_key_that_left_the_configuration_ends_its_connections_at_the_reload() {
    let device = Device::start("", "");
    let (public, option) = second_key(&device);
    let config = fs::read_to_string(device.config()).unwrap();
    let both = config.replace("authorized_keys = [", &format!("authorized_keys = [{public:?}, "));
    let reload = |text: &str, times: usize| {
        fs::write(device.config(), text).unwrap();
        signal(device.worker(), "HUP");
        wait_until("it is read again", || device.log().matches("configuration read again").count() == times);
    };
    reload(&both, 1);
    let (mut first, mut second) = (stays(&device, &[]), stays(&device, &[&option]));
    reload("state_dir = \n[ssh]\nport = \"none\"\n", 2);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(second.try_wait().unwrap().is_none(), "a broken configuration throws nobody out");
    reload(&config, 3);
    ends(&mut second);
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn who_is_there_stays_when_nobody_could_log_in_any_more() {
    let device = Device::start("", "");
    let public = fs::read_to_string(device.path("key.pub")).unwrap();
    let config = fs::read_to_string(device.config()).unwrap();
    let added = device.path("state/ssh/authorized_keys");
    fs::write(&added, &public).unwrap();
    fs::write(device.config(), config.replace(public.trim(), "")).unwrap();
    signal(device.worker(), "HUP");
    device.wait_for_log("configuration read again");
    let mut owner = stays(&device, &[]);
    // As if /data were not mounted.
    fs::rename(&added, device.path("elsewhere")).unwrap();
    signal(device.worker(), "HUP");
    wait_until("it is read again", || device.log().matches("configuration read again").count() == 2);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(owner.try_wait().unwrap().is_none(), "{}", device.log());
    fs::rename(device.path("elsewhere"), &added).unwrap();
    device.assert_reachable();
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[test]
fn connections_of_a_removed_key_can_stay() {
    let device = Device::start("revoke_ends_sessions = false", "");
    let (public, option) = second_key(&device);
    assert!(device.myelin(&["keys", "add", &public]).status.success());
    let mut second = stays(&device, &[&option]);
    assert!(device.myelin(&["keys", "remove", &public]).status.success());
    let other = device.ssh_with(&[&option]).arg("true").stdin(Stdio::null()).output().unwrap();
    assert!(other.status.success(), "with the key after it");
    device.wait_for_log("key not authorized");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(second.try_wait().unwrap().is_none());
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn subsystems_come_and_go_until_the_reboot() {
    let mut device = Device::start("", "[ssh.subsystem]\nshout = [\"/usr/bin/tr\", \"a-z\", \"A-Z\"]");
    let ask = |device: &Device, name: &str| {
        let output = pipe_into(device.ssh_with(&["-s"]).arg(name), b"abc");
        (text(&output.stdout), output.status.code())
    };
    let subsystem = |device: &Device, words: &[&str]| device.myelin(&[&["subsystem"], words].concat());
    assert_eq!(ask(&device, "count"), (String::new(), Some(255)));
    let added = subsystem(&device, &["add", "count", "/usr/bin/wc", "-c"]);
    assert!(added.status.success(), "{added:?}");
    assert_eq!(ask(&device, "count"), ("3\n".into(), Some(0)));
    assert!(subsystem(&device, &["add", "shout", "/usr/bin/tr", "abc", "xyz"]).status.success());
    assert_eq!(ask(&device, "shout"), ("xyz".into(), Some(0)), "it replaces the one of the configuration");

    let entries = json(&device, &["subsystem", "list", "--json"]);
    let source = |name: &str| entries.iter().find(|entry| entry["name"] == name).unwrap()["source"].clone();
    assert_eq!((source("fwup"), source("count")), ("built in".into(), "until the reboot".into()));
    assert_eq!(entries.iter().filter(|entry| entry["name"] == "shout").count(), 1);
    assert!(text(&subsystem(&device, &["list"]).stdout).contains("/usr/bin/tr abc xyz"));

    signal(device.worker(), "KILL");
    device.wait_until_it_answers();
    assert_eq!(ask(&device, "count").0, "3\n", "a worker that dies takes nothing with it");
    assert!(subsystem(&device, &["remove", "shout"]).status.success());
    assert_eq!(ask(&device, "shout").0, "ABC", "that of the configuration is back");
    let again = subsystem(&device, &["remove", "shout"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("myelin subsystem list"), "{again:?}");

    for (name, program) in
        [("two words", "/bin/cat"), ("", "/bin/cat"), (&*"x".repeat(65), "/bin/cat"), ("x", "cat")]
    {
        assert_eq!(subsystem(&device, &["add", name, program]).status.code(), Some(1), "{name:?} {program}");
    }
    assert_eq!(subsystem(&device, &["add", "x"]).status.code(), Some(2));

    fs::write(device.path("run/subsystems.json"), "{").unwrap();
    assert_eq!(ask(&device, "shout").0, "ABC", "a broken file costs what is in it");
    assert!(text(&subsystem(&device, &["add", "x", "/bin/cat"]).stderr).contains("remove it, then add"));

    device.stop();
    fs::remove_dir_all(device.path("run")).unwrap();
    device.start_again();
    assert_eq!(ask(&device, "count").1, Some(255));
}
