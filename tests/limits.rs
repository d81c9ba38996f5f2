//! Limits: strangers, floods and garbage in front of the door, and the owner still gets in.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::strangers::{connect_from, half_sent_packets};
use common::{
    Device, PATIENCE, descendants, descriptors, new_folder, new_key, random_bytes, signal, status_kib, text,
    wait_at_most, wait_until,
};

const IDENTIFICATION: &[u8] = b"SSH-2.0-stranger\r\n";

/// How long a login may take on a busy machine. What it must not wait for takes longer: the time-outs of
/// others are 5 s and more here.
const AT_ONCE: Duration = Duration::from_secs(10);

fn assert_login_at_once(device: &Device) {
    let began = Instant::now();
    device.assert_reachable();
    assert!(began.elapsed() < AT_ONCE, "the login took {:?}", began.elapsed());
}

/// How many descriptors the worker has when nobody is there.
fn idle_descriptors(device: &Device) -> usize {
    let worker = device.worker();
    let mut last = (0, Instant::now());
    wait_until("the worker is idle", || {
        let open = descriptors(worker);
        if open != last.0 {
            last = (open, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
    last.0
}

fn connect(device: &Device) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", device.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The server's identification line.
fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) && byte != *b"\n" {
        line.push(byte[0]);
    }
    text(&line)
}

/// Reads until the server closes, and says how long that took; `None` when it did not within `limit`.
fn closed_within(stream: &mut TcpStream, limit: Duration) -> Option<Duration> {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 4096];
    while began.elapsed() < limit {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(began.elapsed()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return Some(began.elapsed()),
        }
    }
    None
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8;
    let padding = if padding < 4 { padding + 8 } else { padding };
    let length = u32::try_from(payload.len() + 1 + padding).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(u8::try_from(padding).unwrap());
    bytes.extend_from_slice(payload);
    bytes.extend(std::iter::repeat_n(0, padding));
    bytes
}

/// The KEXINIT of a client that could go on (RFC 4253 section 7.1).
fn key_exchange_init() -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    let lists = [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "none",
        "none",
        "",
        "",
    ];
    for list in lists {
        payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
        payload.extend(list.bytes());
    }
    payload.extend([0; 5]);
    packet(&payload)
}

#[test]
fn handshakes_that_stop_do_not_hold_up_the_owner() {
    let device = Device::start("", "");
    let begun = |bytes: &[u8]| {
        let mut stream = connect(&device);
        stream.write_all(bytes).unwrap();
        stream
    };
    let half_a_packet = [IDENTIFICATION, &key_exchange_init()[..100]].concat();
    let key_exchange = [IDENTIFICATION, &key_exchange_init()].concat();
    for bytes in [&b""[..], b"SSH-2", IDENTIFICATION, &half_a_packet, &key_exchange] {
        let _idle = [begun(bytes), begun(bytes)];
        sleep(Duration::from_millis(100));
        assert_login_at_once(&device);
    }
}

#[test]
fn a_thousand_silent_connections_do_not_lock_the_owner_out() {
    let device = Device::start("", "");
    device.assert_reachable();
    let (worker, before) = (device.worker(), status_kib(device.worker(), "RssAnon"));
    let mut silent: Vec<_> = (0..1000).map(|_| connect(&device)).collect();
    assert_login_at_once(&device);
    assert!(descriptors(worker) < 100, "{} descriptors", descriptors(worker));
    let growth = status_kib(worker, "RssAnon").saturating_sub(before);
    assert!(growth < 8 << 10, "the worker grew by {growth} KiB");
    // The same while more and more come, and with those that say who they are.
    let more = std::thread::scope(|scope| {
        let more = scope.spawn(|| {
            let mut more = Vec::new();
            for _ in 0..200 {
                let mut stream = connect(&device);
                let _ = stream.write_all(b"SSH-2.0-");
                more.push(stream);
                sleep(Duration::from_millis(5));
            }
            more
        });
        assert_login_at_once(&device);
        more.join().unwrap()
    });
    drop(more);
    let mut closed = 0;
    for stream in &mut silent {
        closed += usize::from(closed_within(stream, Duration::from_millis(1)).is_some());
    }
    assert!(closed > 900, "the older ones gave way");
}

#[test]
fn who_does_not_log_in_is_closed_in_time() {
    let device = Device::start("hello_timeout = 1\nlogin_grace_time = 5", "");
    let before = idle_descriptors(&device);
    let began = Instant::now();
    let mut silent = connect(&device);
    let mut identified = connect(&device);
    identified.write_all(IDENTIFICATION).unwrap();
    let mut begun = connect(&device);
    begun.write_all(&[IDENTIFICATION, &key_exchange_init()].concat()).unwrap();
    let mut dribbling = connect(&device);
    let mut dribbler = dribbling.try_clone().unwrap();
    let bytes = [IDENTIFICATION, &key_exchange_init()].concat();
    std::thread::spawn(move || {
        dribbler.write_all(&bytes[..40])?;
        for byte in &bytes[40..] {
            dribbler.write_all(&[*byte])?;
            sleep(Duration::from_millis(500));
        }
        std::io::Result::Ok(())
    });
    let silent = closed_within(&mut silent, PATIENCE).expect("hello_timeout closes it");
    assert!(silent >= Duration::from_millis(900) && silent < Duration::from_secs(20), "{silent:?}");
    for stream in [&mut identified, &mut begun, &mut dribbling] {
        closed_within(stream, PATIENCE).expect("login_grace_time closes it");
        let after = began.elapsed();
        assert!(after > Duration::from_millis(4_900) && after < Duration::from_secs(20), "{after:?}");
    }
    wait_until("nobody is left", || descriptors(device.worker()) <= before);
    device.assert_reachable();
}

#[test]
fn connections_that_wait_for_their_greeting_are_closed_too() {
    // The burst of ten is used up at once; the later ones are greeted one by one, and then have their second.
    let device = Device::start("login_grace_time = 5\nhello_timeout = 1", "");
    let mut all: Vec<_> = (0..40).map(|_| connect(&device)).collect();
    for stream in &mut all {
        closed_within(stream, PATIENCE).expect("closed");
    }
    device.assert_reachable();
}

#[test]
fn what_is_not_ssh_is_sent_away() {
    let device = Device::start("", "");
    device.assert_reachable();
    let (worker, before) = (device.worker(), status_kib(device.worker(), "RssAnon"));
    let random = random_bytes(1 << 20, 8);
    let endless = [b'x'; 100_000];
    let no_line = [&b"SSH-2.0-"[..], &[b'y'; 100_000]].concat();
    let huge = [IDENTIFICATION, &u32::MAX.to_be_bytes(), &[0; 64]].concat();
    let quarter = [IDENTIFICATION, &(256_u32 << 10).to_be_bytes(), &[20; 1000]].concat();
    let zero = [IDENTIFICATION, &[0; 64]].concat();
    let garbage: [&[u8]; 8] =
        [b"GET / HTTP/1.0\r\n\r\n", b"SSH-1.5-x\r\n", &random, &endless, &no_line, &huge, &quarter, &zero];
    for bytes in garbage {
        let mut stream = connect(&device);
        assert!(read_line(&mut stream).starts_with("SSH-2.0-"));
        // It may close while we are still sending.
        let _ = stream.write_all(bytes);
        let what = text(&bytes[..bytes.len().min(20)]);
        assert!(closed_within(&mut stream, AT_ONCE).is_some(), "still open after {what:?}");
    }
    assert_login_at_once(&device);
    assert_eq!(device.worker(), worker);
    let growth = status_kib(worker, "RssAnon").saturating_sub(before);
    assert!(growth < 4 << 10, "the worker grew by {growth} KiB");
}

#[test]
fn any_message_before_the_key_exchange_is_survived() {
    let device = Device::start("login_grace_time = 5", "");
    device.assert_reachable();
    let worker = device.worker();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for number in 0..=255_u8 {
            for (round, body) in [&[][..], &[0; 8], &random_bytes(300, u64::from(number))].iter().enumerate()
            {
                let source = u16::from(number) + 256 * u16::try_from(round).unwrap();
                let mut stream = connect_from(source, device.port).await.unwrap();
                let bytes = [IDENTIFICATION, &packet(&[&[number], *body].concat())].concat();
                let after = [bytes, key_exchange_init(), packet(&[number])].concat();
                let _ = stream.write_all(&after).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ =
                    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed");
            }
        }
    });
    assert_login_at_once(&device);
    assert_eq!(device.worker(), worker);
    assert!(!device.log().contains("panicked"), "{}", device.log());
}

#[test]
fn half_sent_packets_of_strangers_do_not_fill_the_memory() {
    const CONNECTIONS: u16 = 200;
    let device = Device::start("login_grace_time = 5", "");
    device.assert_reachable();
    let open = idle_descriptors(&device);
    let (worker, before) = (device.worker(), status_kib(device.worker(), "VmHWM"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (announced, _held) = half_sent_packets(device.port, CONNECTIONS).await;
        assert!(announced > 100, "only {announced} got as far");
        assert_login_at_once(&device);
    });
    let growth = status_kib(worker, "VmHWM") - before;
    assert!(growth < 10 << 10, "the worker grew by {growth} KiB");
    wait_until("all are closed", || descriptors(worker) <= open);
    assert_eq!(device.worker(), worker);
}

#[test]
fn a_shortage_of_descriptors_does_not_lock_the_owner_out() {
    let (folder, public) = new_folder();
    let device = Device::start_wrapped(folder, &["prlimit", "--nofile=64"], &public, "", "");
    device.wait_until_it_answers();
    let silent: Vec<_> = (0..200).map(|_| connect(&device)).collect();
    assert_login_at_once(&device);
    drop(silent);
    assert_login_at_once(&device);
    // It becomes short while the worker runs.
    let pid = device.worker().to_string();
    let few = (descriptors(device.worker()) + 20).to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={few}")]).status().unwrap();
    assert!(limited.success());
    let silent: Vec<_> = (0..60).map(|_| connect(&device)).collect();
    assert_login_at_once(&device);
    drop(silent);
}

#[test]
fn silent_connections_give_way_when_places_are_few() {
    let device = Device::start("max_startups = 4", "");
    let before = idle_descriptors(&device);
    let idle: Vec<_> = (0..20).map(|_| connect(&device)).collect();
    assert_login_at_once(&device);
    wait_at_most(AT_ONCE, "four are left", &mut || descriptors(device.worker()) <= before + 4);
    drop(idle);
}

#[test]
fn max_connections_refuses_with_a_word_and_forgets_nobody() {
    let device = Device::start("max_connections = 2", "");
    let sessions: Vec<_> = (0..2)
        .map(|n| {
            let session = device.ssh().arg(format!("sleep 30.{n}")).stdin(Stdio::null()).spawn().unwrap();
            let line = format!("sleep 30.{n}");
            wait_until("it runs", || descendants(device.worker()).iter().any(|(_, it)| it.ends_with(&line)));
            session
        })
        .collect();
    let third = device.ssh_with(&["-o", "LogLevel=INFO"]).arg("true").output().unwrap();
    assert_eq!(third.status.code(), Some(255));
    assert!(text(&third.stderr).contains("too many connections"), "{}", text(&third.stderr));
    for mut session in sessions {
        session.kill().unwrap();
        session.wait().unwrap();
    }
    wait_until("there is room again", || device.run("true").status.success());
}

#[test]
fn an_agent_full_of_wrong_keys_costs_no_time_and_has_an_end() {
    let device = Device::start("", "");
    let right = device.path("key").display().to_string();
    let wrong: Vec<_> = (0..25)
        .map(|n| {
            let path = device.path(&format!("wrong{n}"));
            new_key(&path);
            path.display().to_string()
        })
        .collect();
    let login = |wrong: &[String]| -> Output {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]);
        for key in wrong.iter().chain([&right]) {
            command.args(["-i", key]);
        }
        command.args(["-p", &device.port.to_string(), "root@127.0.0.1", "true"]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let began = Instant::now();
    assert!(login(&wrong[..5]).status.success());
    assert!(began.elapsed() < AT_ONCE, "six keys took {:?}", began.elapsed());
    let all = login(&wrong);
    assert_eq!(all.status.code(), Some(255));
    assert!(text(&all.stderr).contains("Too many authentication"), "{}", text(&all.stderr));
    assert!(login(&wrong[..18]).status.success(), "nineteen refusals are still fine");
    assert_login_at_once(&device);
}

#[test]
fn only_public_keys_are_offered_and_old_signatures_refused() {
    let device = Device::start("", "");
    let none = device.ssh_with(&["-o", "PreferredAuthentications=none"]).arg("true").output().unwrap();
    assert!(text(&none.stderr).contains("Permission denied (publickey)."), "{}", text(&none.stderr));
    let rsa = device.path("rsa");
    Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"])
        .arg(&rsa)
        .status()
        .unwrap();
    let line = fs::read_to_string(rsa.with_extension("pub")).unwrap();
    assert!(device.myelin(&["keys", "add", line.trim()]).status.success());
    let login = |algorithm: &str| {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]).arg(&rsa);
        command.args(["-o", &format!("PubkeyAcceptedAlgorithms={algorithm}")]);
        command.args(["-p", &device.port.to_string(), "root@127.0.0.1", "true"]);
        command.stdin(Stdio::null()).output().unwrap().status.code()
    };
    assert_eq!(login("rsa-sha2-512"), Some(0));
    assert_eq!(login("rsa-sha2-256"), Some(0));
    assert_eq!(login("ssh-rsa"), Some(255));
}

#[test]
fn an_unused_connection_is_closed_and_a_used_one_is_not() {
    let device = Device::start("unused_connection_timeout = 1", "");
    let mut used = device.ssh().arg("sleep 4; echo done").stdout(Stdio::piped()).spawn().unwrap();
    let mut unused = device.ssh_with(&["-N"]).stdin(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    wait_until("the unused one ends", || unused.try_wait().unwrap().is_some());
    assert!(began.elapsed() > Duration::from_millis(900));
    let mut answer = String::new();
    used.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "done\n");
    used.wait().unwrap();
}

#[test]
fn a_client_that_stopped_is_given_up() {
    let device = Device::start("client_alive_interval = 1\nclient_alive_count_max = 2", "");
    // One is silent, the other has a program that writes all it can.
    let mut stopped = Vec::new();
    for command in ["sleep 33.3", "yes 33.3"] {
        let client = device.ssh().arg(command).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        wait_until("it runs", || {
            descendants(device.worker()).iter().any(|(_, line)| line.ends_with(command))
        });
        signal(client.id(), "STOP");
        stopped.push(client);
    }
    wait_until("their programs are gone", || descendants(device.worker()).is_empty());
    for mut client in stopped {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert!(device.log().contains("ssh.disconnect"));
}

#[test]
fn many_logins_leave_nothing_behind() {
    let device = Device::start("", "");
    let several = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..count {
                        device.assert_reachable();
                    }
                });
            }
        });
    };
    several(5);
    let worker = device.worker();
    wait_until("the worker is idle", || descendants(worker).is_empty());
    sleep(Duration::from_millis(300));
    let (open, memory) = (descriptors(worker), status_kib(worker, "RssAnon"));
    several(15);
    wait_until("the worker is idle", || descendants(worker).is_empty());
    wait_until("all is closed", || descriptors(worker) <= open);
    let growth = status_kib(worker, "RssAnon").saturating_sub(memory);
    assert!(growth < 2 << 10, "60 logins cost {growth} KiB");
    assert_eq!(device.worker(), worker);
}
