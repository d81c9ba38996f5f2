//! Sources whose logins fail are kept away for a while, and never the owner.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::{Device, new_key, text, wait_at_most};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

const STRANGER: &str = "127.0.0.2";

/// What the device says first to somebody from this address; nothing when it closes at once.
fn greeting(device: &Device, from: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, device.port));
        let mut stream = socket.connect(address).await.unwrap();
        let mut line = [0; 8];
        let read = tokio::time::timeout(common::PATIENCE, stream.read(&mut line)).await.expect("an answer");
        text(&line[..read.unwrap_or(0)])
    })
}

/// A client from an address, with a key of this name.
fn client(device: &Device, from: &str, key: &str, options: &[&str]) -> Child {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-b", from, "-i"]);
    ssh.arg(device.path(key)).args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args(options).args(["-l", "root", "-p", &device.port.to_string(), "127.0.0.1", "echo in"]);
    ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
    ssh.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn login(device: &Device, from: &str, key: &str) -> Output {
    client(device, from, key, &[]).wait_with_output().unwrap()
}

/// So many at once that the machine's speed does not matter: penalties run out.
fn fail(device: &Device, from: &str, times: usize) {
    if !device.path("wrong").exists() {
        new_key(&device.path("wrong"));
    }
    let clients: Vec<_> = (0..times).map(|_| client(device, from, "wrong", &[])).collect();
    for client in clients {
        assert_eq!(client.wait_with_output().unwrap().status.code(), Some(255));
    }
}

#[test]
fn who_fails_often_is_closed_for_a_while_and_nobody_else() {
    let device = Device::start("", "");
    fail(&device, STRANGER, 6);
    assert_eq!(greeting(&device, STRANGER), "");
    for _ in 6..20 {
        assert_eq!(login(&device, STRANGER, "wrong").status.code(), Some(255));
    }
    device.assert_reachable();
    assert!(greeting(&device, "127.0.0.3").starts_with("SSH-2.0-"));
    let log = device.log();
    assert!(log.contains("ssh.penalty") && log.contains("source=127.0.0.2"), "{log}");
    assert!(log.contains("reason=\"authfail\""), "{log}");
    // Those who were closed at once have added nothing.
    wait_at_most(Duration::from_secs(60), "the penalty is over", &mut || {
        greeting(&device, STRANGER).starts_with("SSH-2.0-")
    });
    assert_eq!(text(&login(&device, STRANGER, "key").stdout), "in\n");
}

#[test]
fn the_owner_may_go_on_with_keys() {
    let device = Device::start("", "[ssh.users.ada]\npassword = \"secret\"");
    assert_eq!(text(&login(&device, STRANGER, "key").stdout), "in\n");
    fail(&device, STRANGER, 6);
    assert!(device.log().contains("ssh.penalty"), "{}", device.log());
    let refused = text(&login(&device, STRANGER, "wrong").stderr);
    assert!(refused.contains("Permission denied (publickey)"), "no passwords: {refused}");
    assert_eq!(text(&login(&device, STRANGER, "key").stdout), "in\n");
    let elsewhere = client(&device, "127.0.0.3", "wrong", &[]).wait_with_output().unwrap();
    assert!(text(&elsewhere.stderr).contains("password"), "{elsewhere:?}");
}

#[test]
fn silence_is_free_and_this_machine_is_never_punished() {
    let device = Device::start("", "");
    for _ in 0..30 {
        assert!(greeting(&device, STRANGER).starts_with("SSH-2.0-"));
    }
    let methods = ["-o", "PreferredAuthentications=none"];
    let clients: Vec<_> = (0..6).map(|_| client(&device, STRANGER, "key", &methods)).collect();
    for client in clients {
        assert_eq!(client.wait_with_output().unwrap().status.code(), Some(255));
    }
    fail(&device, "127.0.0.1", 6);
    assert!(greeting(&device, STRANGER).starts_with("SSH-2.0-"));
    device.assert_reachable();
    assert!(!device.log().contains("ssh.penalty"), "{}", device.log());
}

#[test]
fn users_who_do_not_exist_and_crashes_count_too() {
    let device = Device::start("allow_users = [\"root\"]", "");
    // Release builds have nothing that panics when asked to.
    if cfg!(debug_assertions) {
        let crash = client(&device, "127.0.0.4", "key", &["-l", "myelin-panic"]);
        assert_eq!(crash.wait_with_output().unwrap().status.code(), Some(255));
        device.wait_for_log("reason=\"crash\"");
        assert!(device.log().contains("seconds=90"), "{}", device.log());
        assert_eq!(greeting(&device, "127.0.0.4"), "");
    }
    let clients: Vec<_> = (0..6).map(|_| client(&device, STRANGER, "key", &["-l", "admin"])).collect();
    clients.into_iter().for_each(|client| drop(client.wait_with_output()));
    device.wait_for_log("reason=\"invaliduser\"");
    device.assert_reachable();
    let device = Device::start("per_source_penalties = false", "");
    fail(&device, STRANGER, 6);
    assert_eq!(text(&login(&device, STRANGER, "key").stdout), "in\n");
}
