//! Flow control: nobody waits for ever for somebody who does not read, and nothing grows meanwhile.

mod common;

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::strangers::Anybody;
use common::{Device, descendants, descriptors, pipe_into, random_bytes, status_kib, text, wait_until};

/// What a connection may add to the worker while everything waits: queues of 1 MiB, pieces on their way, and
/// what the allocator keeps of it.
const GROWTH_KIB: u64 = 16 << 10;

/// Runs a line of shell, which a dead-lock must not hold for ever.
fn shell(line: &str) -> Output {
    let output = Command::new("timeout").args(["60", "sh", "-c", line]).stdin(Stdio::null()).output();
    output.unwrap()
}

fn checksum(bytes: &[u8]) -> String {
    text(&pipe_into(&mut Command::new("cksum"), bytes).stdout)
}

fn spawn_quietly(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The highest resident size of the worker so far.
fn peak_kib(device: &Device) -> u64 {
    status_kib(device.worker(), "VmHWM")
}

#[test]
fn output_that_is_read_late_does_not_stop_the_input() {
    let device = Device::start("", "");
    device.assert_reachable();
    let before = peak_kib(&device);
    for megabytes in [8, 60] {
        let big = random_bytes(megabytes << 20, 3);
        let file = device.path("big");
        fs::write(&file, &big).unwrap();
        let ssh = device.ssh_line(&[]);
        let output = shell(&format!("{ssh} cat < {} | (sleep 2; cksum)", file.display()));
        assert_eq!(text(&output.stdout), checksum(&big), "{megabytes} MB");
    }
    let growth = peak_kib(&device) - before;
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB");
}

/// Kills a client that has more to send than `command` takes, and waits until nothing of it is left.
fn kill_a_stalled_client(device: &Device, command: &str, length: usize) {
    let worker = device.worker();
    let quiet = || descendants(worker).is_empty();
    wait_until("the worker is idle", quiet);
    let before = descriptors(worker);
    let file = device.path("big");
    fs::write(&file, random_bytes(length, 4)).unwrap();
    let mut client = device
        .ssh()
        .arg(command)
        .stdin(fs::File::open(&file).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it runs", || descendants(worker).iter().any(|(_, line)| line.ends_with(command)));
    sleep(Duration::from_secs(1));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("its program is gone", quiet);
    wait_until("its descriptors are closed", || descriptors(worker) <= before);
}

#[test]
fn nothing_is_left_of_a_stalled_client_that_was_killed() {
    let device = Device::start("", "");
    device.assert_reachable();
    kill_a_stalled_client(&device, "cat", 20 << 20);
    kill_a_stalled_client(&device, "sleep 51", 20 << 20);
}

#[test]
fn nor_of_one_that_the_device_does_not_read_from_any_more() {
    // Without a disk the connection itself waits: its end is seen although nobody reads from it. What the client
    // sent has to fit into the socket's buffer behind what we hold, or its end cannot arrive.
    let device = Device::start("spool_dir = \"/proc/version/spool\"", "");
    device.assert_reachable();
    kill_a_stalled_client(&device, "sleep 52", 1500 << 10);
}

#[test]
fn a_reader_that_has_enough_ends_its_writer() {
    let device = Device::start("", "");
    let ssh = device.ssh_line(&[]);
    let output = shell(&format!("head -c 8M /dev/zero | {ssh} cat | head -c 10 | wc -c"));
    assert_eq!(text(&output.stdout).trim(), "10");
    let worker = device.worker();
    wait_until("no cat is left", || descendants(worker).is_empty());
}

#[test]
fn a_stalled_channel_does_not_hold_up_its_sibling() {
    let device = Device::start("", "");
    let socket = device.path("master");
    let control = format!("ControlPath={}", socket.display());
    let mut master = spawn_quietly(&mut device.ssh_with(&["-M", "-N", "-o", &control]));
    wait_until("the master is there", || socket.exists());
    let ssh = device.ssh_line(&["-o", &control]);
    let line = format!("head -c 40M /dev/zero | {ssh} 'sleep 20'");
    let mut stalled = spawn_quietly(Command::new("sh").args(["-c", &line]));
    let worker = device.worker();
    wait_until("it runs", || descendants(worker).iter().any(|(_, line)| line.ends_with("sleep 20")));
    sleep(Duration::from_secs(1));
    let began = Instant::now();
    let answer = device.ssh_with(&["-o", &control]).arg("echo here").output().unwrap();
    assert_eq!(text(&answer.stdout), "here\n");
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    assert!(stalled.try_wait().unwrap().is_none(), "the other is still at it");
    master.kill().unwrap();
    master.wait().unwrap();
    stalled.wait().unwrap();
}

#[test]
fn questions_of_the_client_are_answered_while_its_input_waits() {
    let device = Device::start("", "");
    let ssh = device.ssh_line(&["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"]);
    let output = shell(&format!("head -c 32M /dev/zero | {ssh} 'sleep 5; wc -c'"));
    assert_eq!(text(&output.stdout).trim(), (32 << 20).to_string(), "{}", text(&output.stderr));
}

#[test]
fn without_a_spool_the_client_waits_and_a_deadlock_ends_with_a_word() {
    // Below a file there is no folder; it is not tried again for each piece, but named.
    let device = Device::start("spool_dir = \"/proc/version/spool\"", "");
    let before = peak_kib(&device);
    let ssh = device.ssh_line(&[]);
    let output = shell(&format!("head -c 16M /dev/zero | {ssh} 'sleep 2; wc -c'"));
    assert_eq!(text(&output.stdout).trim(), (16 << 20).to_string());
    assert!(device.log().contains("cannot keep input on disk"), "{}", device.log());
    assert_eq!(device.log().matches("cannot keep input on disk").count(), 1);

    let began = Instant::now();
    let output = shell(&format!("head -c 16M /dev/zero | {ssh} cat | (sleep 3; cat > /dev/null)"));
    assert!(text(&output.stderr).contains("myelin: ended"), "{output:?}");
    assert!(began.elapsed() > Duration::from_secs(9), "a slow reader is no deadlock yet");
    assert!(began.elapsed() < Duration::from_secs(60));
    device.assert_reachable();
    let growth = peak_kib(&device) - before;
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB");
}

#[test]
fn a_full_spool_stops_the_client_and_nothing_is_lost() {
    let device = Device::start("", "");
    device.assert_reachable();
    let before = peak_kib(&device);
    let ssh = device.ssh_line(&[]);
    let size = 80 << 20;
    let slow = format!("head -c {size} /dev/zero | {ssh} 'sleep 3; wc -c'");
    // 64 MiB on disk, a window and the pipes are not enough for this one.
    let late = format!("head -c 100M /dev/zero | {ssh} cat | (sleep 16; cat > /dev/null)");
    let (slow, late) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| shell(&slow));
        let late = shell(&late);
        (slow.join().unwrap(), late)
    });
    assert_eq!(text(&slow.stdout).trim(), size.to_string());
    assert!(text(&late.stderr).contains("myelin: ended"), "{late:?}");
    let growth = peak_kib(&device) - before;
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB");
    device.assert_reachable();
    wait_until("the spool is given back", || {
        let worker = device.worker();
        let open = fs::read_dir(format!("/proc/{worker}/fd")).unwrap().flatten();
        !open
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|file| file.to_string_lossy().contains("/spool/"))
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    let device = Device::start("", "");
    let big = random_bytes(8 << 20, 5);
    let slow = "for i in $(seq 32); do head -c 262144; sleep 0.05; done | cksum";
    let output = pipe_into(device.ssh().arg(slow), &big);
    assert_eq!(text(&output.stdout), checksum(&big));
}

#[test]
fn both_sides_renew_their_keys_in_the_middle_of_it() {
    let device = Device::start("rekey_limit = \"16M\"", "");
    let big = random_bytes(40 << 20, 6);
    assert_eq!(text(&pipe_into(device.ssh().arg("cksum"), &big).stdout), checksum(&big));
    let zeros = device.run("head -c 40M /dev/zero").stdout;
    assert!(zeros.len() == 40 << 20 && zeros.iter().all(|&byte| byte == 0));
    let renewed = device.ssh_with(&["-v", "-o", "LogLevel=DEBUG"]).arg("head -c 40M /dev/zero").output();
    let renewed = text(&renewed.unwrap().stderr).matches("SSH2_MSG_NEWKEYS received").count();
    assert!(renewed >= 3, "{renewed} key exchanges");
}

#[test]
fn a_flood_of_tiny_packets_costs_what_it_carries() {
    const PACKETS: usize = 400_000;
    let device = Device::start("", "");
    device.assert_reachable();
    let before = peak_kib(&device);
    let key = russh::keys::load_secret_key(device.path("key"), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let output = runtime.block_on(async {
        let config = Arc::new(russh::client::Config::default());
        let mut client = russh::client::connect(config, ("127.0.0.1", device.port), Anybody).await.unwrap();
        let key = russh::keys::PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(client.authenticate_publickey("root", key).await.unwrap().success());
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "sleep 4; wc -c").await.unwrap();
        for _ in 0..PACKETS {
            channel.data_bytes(&b"x"[..]).await.unwrap();
        }
        channel.eof().await.unwrap();
        let mut output = Vec::new();
        while let Some(message) = channel.wait().await {
            if let russh::ChannelMsg::Data { data } = message {
                output.extend_from_slice(&data);
            }
        }
        output
    });
    assert_eq!(text(&output).trim(), PACKETS.to_string());
    let growth = peak_kib(&device) - before;
    assert!(growth < GROWTH_KIB, "the worker grew by {growth} KiB for {PACKETS} bytes");
}
