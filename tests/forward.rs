//! Forwarding, with OpenSSH's client: connections that the device makes and accepts for it, and its agent.
//!
//! Where a test has `both`, OpenSSH's daemon has to pass it too.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::{
    Device, PATIENCE, descriptors, free_port, new_folder, new_key, pipe_into, random_bytes, signal, text,
    wait_until,
};

/// Ours and OpenSSH's daemon, each with lines for its configuration.
fn both(ssh: &str, sshd: &str) -> [(&'static str, Device); 2] {
    [("ours", Device::start(ssh, "")), ("OpenSSH's", Device::start_sshd(sshd))]
}

/// Serves every connection to a free port of `address` by `answer`, as long as the test runs.
fn serve_on(address: &str, answer: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    port
}

fn serve(answer: fn(TcpStream)) -> u16 {
    serve_on("127.0.0.1", answer)
}

/// What a web server does: reads a request, answers, closes.
fn web(mut stream: TcpStream) {
    let mut request = [0; 1000];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
}

fn echo(stream: TcpStream) {
    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Answers how many bytes it got, once there are no more.
fn count(mut stream: TcpStream) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes());
}

/// A socket has its name before anybody listens there.
fn connect(socket: &Path) -> UnixStream {
    let mut stream = None;
    wait_until("somebody listens", || {
        stream = UnixStream::connect(socket).ok();
        stream.is_some()
    });
    stream.unwrap()
}

/// A client of OpenSSH that only forwards.
struct Tunnel {
    client: Child,
    /// Where the client listens, if it does.
    socket: PathBuf,
    errors: PathBuf,
}

impl Tunnel {
    /// Forwards a socket of the test's folder to `target`, as the device sees it.
    fn to(device: &Device, target: &str) -> Self {
        Self::to_with(device, target, device.ssh_with(&["-o", "LogLevel=INFO"]))
    }

    fn to_with(device: &Device, target: &str, mut ssh: Command) -> Self {
        let socket = device.path(&format!("tunnel{}", free_port()));
        ssh.arg("-L").arg(format!("{}:{target}", socket.display()));
        let tunnel = Self::spawn(ssh, socket);
        tunnel.wait();
        tunnel
    }

    fn spawn(mut ssh: Command, socket: PathBuf) -> Self {
        let errors = socket.with_extension("errors");
        let stderr = fs::File::create(&errors).unwrap();
        let client = ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]).stdin(Stdio::null()).stderr(stderr);
        Self { client: client.spawn().unwrap(), socket, errors }
    }

    fn wait(&self) {
        wait_until("the client listens", || self.socket.exists());
    }

    fn connect(&self) -> UnixStream {
        let stream = connect(&self.socket);
        stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        stream
    }

    /// Sends all of `request` and its end, and gives what comes back.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // One that is refused is closed before it takes anything.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let said = || fs::read_to_string(&self.errors).unwrap();
        wait_until(&format!("the client says {words:?}: {:?}", said()), || said().contains(words));
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn an_idle_forward_ends_and_a_busy_one_does_not() {
    let socket = |device: &Device| device.path("echo");
    let sshd = "ChannelTimeout direct-tcpip=3s direct-streamlocal@openssh.com=3s";
    let (folder, public) = new_folder();
    let ssh = format!(
        "channel_timeout = [\"direct-*=3s\"]\npermit_socket = [\"{}\"]",
        folder.path().join("echo").display()
    );
    let devices =
        [("ours", Device::start_in(folder, &public, &ssh, "")), ("OpenSSH's", Device::start_sshd(sshd))];
    for (name, device) in &devices {
        let listener = UnixListener::bind(socket(device)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut from, mut to) = (stream.as_ref().unwrap(), stream.as_ref().unwrap());
                let _ = std::io::copy(&mut from, &mut to);
            }
        });
        let targets = [format!("127.0.0.1:{}", serve(echo)), socket(device).display().to_string()];
        for target in targets {
            let tunnel = Tunnel::to(device, &target);
            let mut stream = tunnel.connect();
            let mut byte = [0];
            for _ in 0..5 {
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{name} {target}: {error}"));
                thread::sleep(Duration::from_secs(1));
            }
            assert_eq!(stream.read(&mut byte).unwrap(), 0, "{name} {target}");
            // The connection stands, and so does the next forward.
            let mut stream = tunnel.connect();
            stream.write_all(b"y").unwrap();
            stream.read_exact(&mut byte).unwrap();
        }
    }
    assert!(devices[0].1.log().contains("channel_timeout is over"), "{}", devices[0].1.log());
}

/// `ssh -W TARGET` with `input` on its stdin.
fn ask_through(device: &Device, target: &str, input: &[u8]) -> Output {
    pipe_into(&mut device.ssh_with(&["-o", "LogLevel=INFO", "-W", target]), input)
}

#[test]
fn a_permitted_port_is_reached() {
    let port = serve(web);
    for (name, device) in both("", "") {
        for host in ["127.0.0.1", "localhost"] {
            let tunnel = Tunnel::to(&device, &format!("{host}:{port}"));
            let answer = tunnel.ask(b"GET / HTTP/1.0\r\n\r\n");
            assert!(text(&answer).starts_with("HTTP/1.0 200 "), "{name} {host}: {}", text(&answer));
        }
        if name == "ours" {
            device.wait_for_log("ssh.forward peer=127.0.0.1:");
            device.wait_for_log(&format!(
                "direction=\"local\" target=\"localhost:{port}\" outcome=\"allowed\""
            ));
        }
    }
}

#[test]
fn what_is_not_permitted_or_not_there_is_refused_with_the_reason() {
    let elsewhere = serve_on("127.0.0.2", web);
    for (name, device) in both("", "PermitOpen 127.0.0.1:*") {
        let tunnel = Tunnel::to(&device, &format!("127.0.0.2:{elsewhere}"));
        assert_eq!(tunnel.ask(b"x"), b"", "{name}");
        tunnel.says("open failed: administratively prohibited");
        let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{}", free_port()));
        assert_eq!(tunnel.ask(b"x"), b"", "{name}");
        tunnel.says("open failed: connect failed");
        device.assert_reachable();
    }
}

#[test]
fn no_other_name_leads_around_the_rules() {
    let (port, elsewhere) = (serve(web), serve_on("127.0.0.2", web));
    let device = Device::start(&format!("permit_open = [\"127.0.0.1:{port}\", \"localhost:1\"]"), "");
    for (host, port, reached) in [
        ("127.0.0.1", port, true),
        ("[::ffff:127.0.0.1]", port, true),
        ("LOCALHOST", port, true),
        ("127.1", port, true),
        ("0x7f000001", port, true),
        ("127.0.0.2", elsewhere, false),
        ("[::ffff:127.0.0.2]", elsewhere, false),
        ("127.2", elsewhere, false),
        ("127.0.0.1", elsewhere, false),
        ("0.0.0.0", port, false),
        ("0", port, false),
        ("[::]", port, false),
    ] {
        let output = ask_through(&device, &format!("{host}:{port}"), b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(text(&output.stdout).contains("200 OK"), reached, "{host}:{port} {output:?}");
        assert_eq!(
            text(&output.stderr).contains("administratively prohibited"),
            !reached,
            "{host} {output:?}"
        );
    }
    let device = Device::start("permit_open = [\"127.0.0.2:*\", \"127.1:*\"]", "");
    assert!(
        device.log().contains("permit_open"),
        "a rule that cannot be read is reported:\n{}",
        device.log()
    );
    let device = Device::start("allow_tcp_forwarding = \"no\"", "");
    let output = ask_through(&device, &format!("127.0.0.1:{port}"), b"");
    assert!(text(&output.stderr).contains("administratively prohibited"), "{output:?}");
    device.wait_for_log("allow_tcp_forwarding does not include local");
}

#[test]
fn a_key_narrows_it() {
    let (port, other) = (serve(web), serve(web));
    let device = Device::start("", "");
    fs::create_dir_all(device.path("state/ssh")).unwrap();
    let key = new_key(&device.path("narrow"));
    let narrow = format!("IdentityFile={}", device.path("narrow").display());
    let reaches = |options: &str, host: &str, port: u16| {
        fs::write(device.path("state/ssh/authorized_keys"), format!("{options} {key}\n")).unwrap();
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "LogLevel=INFO", "-o", &narrow, "-W", &format!("{host}:{port}")]);
        let own = format!("IdentityFile={}", device.path("key").display());
        let same =
            device.ssh_options().into_iter().map(|word| if word == own { narrow.clone() } else { word });
        ssh.args(same).args(["-p", &device.port.to_string(), "root@127.0.0.1"]);
        let output = pipe_into(&mut ssh, b"GET / HTTP/1.0\r\n\r\n");
        let reached = text(&output.stdout).contains("200 OK");
        assert!(reached || text(&output.stderr).contains("administratively prohibited"), "{output:?}");
        reached
    };
    let only = format!("permitopen=\"127.0.0.1:{port}\"");
    assert!(reaches("no-pty", "127.0.0.1", port) && reaches("no-pty", "127.0.0.1", other));
    assert!(reaches(&only, "127.0.0.1", port) && reaches(&only, "localhost", port));
    assert!(!reaches(&only, "127.0.0.1", other));
    assert!(reaches(&format!("restrict,port-forwarding,{only}"), "127.0.0.1", port));
    assert!(!reaches("permitopen=\"*:*\"", "127.0.0.2", port), "it cannot widen what the device permits");
    for options in ["restrict", "restrict,command=\"echo no\"", "no-port-forwarding", "subsystems=\"fwup\""] {
        assert!(!reaches(options, "127.0.0.1", port), "{options}");
    }
    device.wait_for_log("the key's options forbid forwarding");
}

#[test]
fn socks_clients_name_their_target_on_the_device() {
    let port = serve(web);
    for (name, device) in both("", "") {
        let socket = device.path("socks");
        let mut ssh = device.ssh();
        // OpenSSH has no -D for a socket, so a port it is; nothing else connects to it.
        let proxy = free_port();
        ssh.args(["-D", &format!("127.0.0.1:{proxy}")]);
        let _tunnel = Tunnel::spawn(ssh, socket);
        let mut stream = None;
        wait_until("the client listens", || {
            stream = TcpStream::connect(("127.0.0.1", proxy)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // RFC 1928: no authentication; CONNECT to a name.
        stream.write_all(b"\x05\x01\x00").unwrap();
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).unwrap();
        stream.write_all(b"\x05\x01\x00\x03\x09localhost").unwrap();
        stream.write_all(&port.to_be_bytes()).unwrap();
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!((chosen, reply[1]), ([5, 0], 0), "{name}");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{name}: {answer}");
    }
}

#[test]
fn it_is_a_jump_host() {
    let inner = Device::start_sshd("");
    for (name, device) in both("", "") {
        let config = device.path("ssh_config");
        // -J starts a client of its own, which gets this file and no options.
        fs::write(
            &config,
            format!(
                "Host *\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\nLogLevel ERROR\n\
                 UserKnownHostsFile /dev/null\nIdentityFile {}\nIdentityFile {}\n",
                inner.path("key").display(),
                device.path("key").display()
            ),
        )
        .unwrap();
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(["-J", &format!("root@127.0.0.1:{}", device.port)]);
        ssh.args(["-p", &inner.port.to_string(), "root@127.0.0.1", "cat"]);
        let data = random_bytes(3 << 20, 1);
        let output = pipe_into(&mut ssh, &data);
        assert!(output.stdout == data, "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn each_way_has_its_own_end() {
    let port = serve(count);
    for (name, device) in both("", "") {
        let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{port}"));
        assert_eq!(text(&tunnel.ask(b"x")), "1 bytes", "{name}");
        assert_eq!(text(&tunnel.ask(&random_bytes(5_000_000, 2))), "5000000 bytes", "{name}");
        let through = ask_through(&device, &format!("127.0.0.1:{port}"), b"abc");
        assert_eq!(text(&through.stdout), "3 bytes", "{name}");
    }
}

#[test]
fn much_flows_both_ways_at_once() {
    let port = serve(echo);
    let sent = random_bytes(64 << 20, 3);
    for (name, device) in both("", "") {
        let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{port}"));
        let mut stream = tunnel.connect();
        let mut writer = stream.try_clone().unwrap();
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut received).unwrap();
        });
        assert!(received == sent, "{name}: {} bytes came back", received.len());
        // A reader that comes late: neither side may wait for the other for ever.
        let file = device.path("big");
        fs::write(&file, &sent[..40 << 20]).unwrap();
        let ssh = device.ssh_line(&["-W", &format!("127.0.0.1:{port}")]);
        let line = format!("{ssh} < {} | (sleep 2; cksum)", file.display());
        let late = Command::new("timeout").args(["120", "sh", "-c", &line]).output().unwrap();
        let expected = pipe_into(&mut Command::new("cksum"), &sent[..40 << 20]);
        assert_eq!(text(&late.stdout), text(&expected.stdout), "{name}");
    }
}

#[test]
fn one_that_nobody_reads_does_not_hold_up_the_others() {
    fn deaf(stream: TcpStream) {
        thread::sleep(PATIENCE * 3);
        drop(stream);
    }
    let (deaf, port) = (serve(deaf), serve(count));
    let device = Device::start("", "");
    let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{deaf}"));
    let mut ssh = device.ssh();
    ssh.arg("-L").arg(format!("{}:127.0.0.1:{deaf}", tunnel.socket.with_extension("deaf").display()));
    let forward = Tunnel::to_with(&device, &format!("127.0.0.1:{port}"), ssh);
    let mut stalled = connect(&tunnel.socket.with_extension("deaf"));
    stalled.set_write_timeout(Some(PATIENCE / 10)).unwrap();
    // As much as fits, up to more than memory holds.
    let _ = stalled.write_all(&random_bytes(20 << 20, 4));
    assert_eq!(text(&forward.ask(b"here")), "4 bytes");
}

#[test]
fn places_are_limited_and_given_back() {
    let port = serve(echo);
    let device = Device::start("max_sessions = 1", "");
    let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{port}"));
    let open = || {
        let mut stream = tunnel.connect();
        stream.write_all(b"x").unwrap();
        let answered = stream.read(&mut [0]).unwrap_or(0) == 1;
        (stream, answered)
    };
    let all: Vec<_> = (0..16).map(|_| open()).collect();
    assert!(all.iter().all(|(_, answered)| *answered));
    assert!(!open().1);
    tunnel.says("open failed: resource shortage");
    drop(all);
    wait_until("a place is free again", || open().1);
    // Many, one after the other.
    for round in 0..50 {
        assert_eq!(text(&tunnel.ask(b"again")), "again", "{round}");
    }
}

#[test]
fn nothing_is_left_of_a_client_that_was_killed() {
    let port = serve(echo);
    let device = Device::start("", "");
    device.assert_reachable();
    let worker = device.worker();
    let mut before = 0;
    wait_until("the worker is idle", || {
        thread::sleep(std::time::Duration::from_millis(300));
        std::mem::replace(&mut before, descriptors(worker)) == descriptors(worker)
    });
    let tunnel = Tunnel::to(&device, &format!("127.0.0.1:{port}"));
    let mut streams: Vec<_> = (0..5).map(|_| tunnel.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
    assert!(descriptors(worker) >= before + 5);
    signal(tunnel.client.id(), "KILL");
    wait_until("its descriptors are closed", || descriptors(worker) <= before);
}

/// A client that has the device listen: `-R WORDS`.
fn reverse(device: &Device, words: &str) -> Tunnel {
    let socket = device.path(&format!("reverse{}", free_port()));
    let mut ssh = device.ssh_with(&["-o", "LogLevel=INFO"]);
    ssh.args(["-R", words]);
    Tunnel::spawn(ssh, socket)
}

impl Tunnel {
    /// The port that the device chose, which the client prints.
    fn allocated(&self) -> u16 {
        self.says("Allocated port ");
        let said = fs::read_to_string(&self.errors).unwrap();
        let number = said.split("Allocated port ").nth(1).unwrap().split(' ').next().unwrap();
        number.parse().unwrap()
    }

    /// Waits until a client that was refused has ended.
    fn ends(&mut self) {
        wait_until("the client ends", || self.client.try_wait().unwrap().is_some());
    }
}

fn get(address: &str, port: u16) -> String {
    let mut stream = TcpStream::connect((address, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

const ALL: &str = "allow_tcp_forwarding = \"all\"";

#[test]
fn the_device_listens_for_its_client_until_that_is_gone() {
    let port = serve(web);
    for (name, device) in both(ALL, "AllowTcpForwarding yes") {
        let mut tunnel = reverse(&device, &format!("0:127.0.0.1:{port}"));
        let allocated = tunnel.allocated();
        for address in ["127.0.0.1", "::1"] {
            // Where there is no IPv6, nothing listens there.
            if TcpListener::bind((address, 0)).is_ok() {
                assert!(get(address, allocated).contains("200 OK"), "{name} {address}");
            }
        }
        // The same port for somebody else is refused.
        let mut second = reverse(&device, &format!("127.0.0.1:{allocated}:127.0.0.1:{port}"));
        second.ends();
        second.says("remote port forwarding failed");
        tunnel.client.kill().unwrap();
        tunnel.client.wait().unwrap();
        wait_until("the port is free", || TcpListener::bind(("127.0.0.1", allocated)).is_ok());
        let again = reverse(&device, &format!("{allocated}:127.0.0.1:{port}"));
        wait_until("it is there again", || TcpStream::connect(("127.0.0.1", allocated)).is_ok());
        assert!(get("127.0.0.1", allocated).contains("200 OK"), "{name}");
        drop(again);
    }
}

#[test]
fn a_listening_port_can_be_given_back() {
    let port = serve(web);
    for (name, device) in both(ALL, "AllowTcpForwarding yes") {
        let control = format!("ControlPath={}", device.path("master").display());
        let free = free_port();
        let mut ssh = device.ssh_with(&["-M", "-o", &control, "-o", "LogLevel=DEBUG1"]);
        ssh.args(["-R", &format!("{free}:127.0.0.1:{port}")]);
        let tunnel = Tunnel::spawn(ssh, device.path("cancelled"));
        // An order that comes before the client has read the answer ends the client.
        wait_until("the client has its port", || {
            fs::read_to_string(&tunnel.errors).unwrap().contains("remote forward success")
        });
        assert!(TcpStream::connect(("127.0.0.1", free)).is_ok(), "{name}");
        let order = |order: &str| {
            let words = format!("{free}:127.0.0.1:{port}");
            let mut ssh = device.ssh_with(&["-O", order, "-o", &control, "-R", &words]);
            assert!(ssh.status().unwrap().success(), "{name}: {order}");
        };
        order("cancel");
        // The client waits for no answer.
        wait_until("the port is gone", || TcpStream::connect(("127.0.0.1", free)).is_err());
        order("forward");
        assert!(get("127.0.0.1", free).contains("200 OK"), "{name}");
    }
}

#[test]
fn ports_that_are_not_permitted_are_refused() {
    let (port, free) = (serve(web), free_port());
    let words = format!("{free}:127.0.0.1:{port}");
    for (name, device) in both(
        &format!("{ALL}\npermit_listen = \"localhost:1,none\""),
        "AllowTcpForwarding yes\nPermitListen localhost:1",
    ) {
        let mut tunnel = reverse(&device, &words);
        tunnel.ends();
        tunnel.says("remote port forwarding failed");
        assert!(TcpStream::connect(("127.0.0.1", free)).is_err(), "{name}");
        device.assert_reachable();
    }
    // At first nothing may listen.
    let device = Device::start("", "");
    reverse(&device, &words).ends();
    device.wait_for_log(&format!(
        "direction=\"remote\" target=\"localhost:{free}\" outcome=\"refused: allow_tcp"
    ));
    // A key narrows it.
    let device = Device::start(ALL, "");
    let key = fs::read_to_string(device.path("key.pub")).unwrap();
    for (options, works) in [
        (format!("permitlisten=\"{free}\""), true),
        (format!("permitlisten=\"localhost:{free}\""), true),
        ("permitlisten=\"1\"".to_owned(), false),
        ("restrict".to_owned(), false),
    ] {
        let config = fs::read_to_string(device.config()).unwrap();
        let line = config.lines().find(|line| line.starts_with("authorized_keys")).unwrap();
        let new = format!("authorized_keys = ['{options} {}']", key.trim());
        fs::write(device.config(), config.replace(line, &new)).unwrap();
        let read = || device.log().matches("configuration read again").count();
        let before = read();
        signal(device.worker(), "HUP");
        wait_until("it is read", || read() > before);
        let mut tunnel = reverse(&device, &words);
        let mut ended = false;
        wait_until("it is decided", || {
            ended = tunnel.client.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", free)).is_ok()
        });
        assert_eq!(!ended, works, "{options}");
        drop(tunnel);
        wait_until("the port is free", || TcpListener::bind(("127.0.0.1", free)).is_ok());
    }
}

#[test]
fn gateway_ports_opens_them_to_others() {
    let (port, free) = (serve(web), free_port());
    for (gateway, bind, reached) in [
        ("no", "0.0.0.0:", false),
        ("yes", "127.0.0.1:", true),
        ("clientspecified", "0.0.0.0:", true),
        ("clientspecified", "localhost:", false),
        ("clientspecified", "127.0.0.2:", true),
    ] {
        for (name, device) in both(
            &format!("{ALL}\ngateway_ports = \"{gateway}\""),
            &format!("AllowTcpForwarding yes\nGatewayPorts {gateway}"),
        ) {
            let tunnel = reverse(&device, &format!("{bind}{free}:127.0.0.1:{port}"));
            let own = if bind == "127.0.0.2:" { "127.0.0.2" } else { "127.0.0.1" };
            wait_until("it listens", || TcpStream::connect((own, free)).is_ok());
            let other = TcpStream::connect(("127.0.0.2", free));
            assert_eq!(other.is_ok(), reached, "{name} {gateway} {bind}");
            drop(tunnel);
            wait_until("the port is free", || TcpListener::bind(("0.0.0.0", free)).is_ok());
        }
    }
}

#[test]
fn listeners_take_places_and_keep_their_connection() {
    let port = serve(web);
    let device = Device::start(&format!("{ALL}\nmax_forwards = 2\nunused_connection_timeout = \"2s\""), "");
    let target = format!("0:127.0.0.1:{port}");
    let tunnel = reverse(&device, &target);
    let allocated = tunnel.allocated();
    // Longer than a connection without any use.
    thread::sleep(std::time::Duration::from_secs(9));
    assert!(get("127.0.0.1", allocated).contains("200 OK"));
    let mut ssh = device.ssh_with(&["-o", "LogLevel=INFO"]);
    ssh.args(["-R", &target, "-R", "0:127.0.0.1:1", "-R", "0:127.0.0.1:2"]);
    let mut three = Tunnel::spawn(ssh, device.path("three"));
    three.ends();
    device.wait_for_log("max_forwards are open");
}

/// Serves a socket of the file system as `web` does.
fn serve_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
        }
    });
}

#[test]
fn sockets_of_the_file_system_are_forwarded_both_ways() {
    let (folder, public) = new_folder();
    let permitted = folder.path().join("here*");
    let ours = format!("allow_stream_local_forwarding = \"all\"\npermit_socket = [{permitted:?}]");
    let mine = Device::start_in(folder, &public, &ours, "");
    for (name, device) in [("ours", mine), ("OpenSSH's", Device::start_sshd(""))] {
        let (there, here) = (device.path("here-server"), device.path("here-listens"));
        serve_at(&there);
        let tunnel = Tunnel::to(&device, &there.display().to_string());
        assert!(text(&tunnel.ask(b"GET / HTTP/1.0\r\n\r\n")).contains("200 OK"), "{name}");

        let reversed = reverse(&device, &format!("{}:{}", here.display(), there.display()));
        wait_until("it listens", || here.exists());
        assert_eq!(fs::metadata(&here).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let mut stream = connect(&here);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.contains("200 OK"), "{name}: {answer}");
        if name == "ours" {
            // What is there already stays, unless stream_local_bind_unlink says otherwise.
            reverse(&device, &format!("{}:{}", here.display(), there.display())).ends();
            assert!(here.exists());
            drop(reversed);
            wait_until("its name is gone", || !here.exists());
            let elsewhere = device.path("elsewhere");
            serve_at(&elsewhere);
            let tunnel = Tunnel::to(&device, &elsewhere.display().to_string());
            assert_eq!(tunnel.ask(b"x"), b"");
            tunnel.says("open failed: administratively prohibited");
            reverse(&device, &format!("{}:{}", device.path("no").display(), there.display())).ends();
            assert!(!device.path("no").exists());
        }
    }
}

#[test]
fn the_clients_agent_is_there_for_its_session_and_gone_afterwards() {
    let agents = tempfile::tempdir().unwrap();
    let socket = agents.path().join("agent");
    let mut agent = Command::new("ssh-agent");
    let mut agent = agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the agent is there", || socket.exists());
    let key = agents.path().join("key");
    new_key(&key);
    let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status();
    assert!(added.unwrap().success());
    let listed = Command::new("ssh-keygen").arg("-lf").arg(&key).output().unwrap();
    let fingerprint = text(&listed.stdout).split(' ').nth(1).unwrap().to_owned();
    let ask = |device: &Device, command: &str| {
        let mut ssh = device.ssh_with(&["-A"]);
        ssh.env("SSH_AUTH_SOCK", &socket).arg(command).stdin(Stdio::null()).output().unwrap()
    };
    for (name, device) in both("allow_agent_forwarding = true", "AllowAgentForwarding yes") {
        let command = "ssh-add -l; ssh-add -l; echo $SSH_AUTH_SOCK; stat -c '%a %F' $SSH_AUTH_SOCK; \
                       stat -c '%a' $(dirname $SSH_AUTH_SOCK)";
        let output = ask(&device, command);
        let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 5, "{name}: {output:?}");
        assert!(lines[0].contains(&fingerprint) && lines[1] == lines[0], "{name}: {output:?}");
        if name == "ours" {
            assert_eq!((&*lines[3], &*lines[4]), ("600 socket", "700"));
        }
        let path = Path::new(&lines[2]);
        wait_until("its socket is gone", || !path.exists() && !path.parent().unwrap().exists());
        // Without -A there is none.
        let output = device.run("echo ${SSH_AUTH_SOCK-none}");
        assert_eq!(text(&output.stdout), "none\n", "{name}");
    }
    let device = Device::start("", "");
    assert_eq!(text(&ask(&device, "echo ${SSH_AUTH_SOCK-none}").stdout), "none\n");
    device.wait_for_log("allow_agent_forwarding is off");
    agent.kill().unwrap();
    agent.wait().unwrap();
}
