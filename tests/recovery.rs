#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
//! Whatever breaks, somebody with a key can still log in: workers, sockets, configuration, keys, disks.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Device, PATIENCE, banner, descendants, is_running, new_folder, new_key, pipe_into, signal, text,
    wait_at_most, wait_until,
};

/// The daemon promises 800 ms; machines that run tests are busy.
const SOON: Duration = Duration::from_secs(10);

fn assert_login_soon(device: &Device) {
    let began = Instant::now();
    device.assert_reachable();
    assert!(began.elapsed() < SOON, "the login took {:?}", began.elapsed());
}

/// Waits until another worker than `old` runs.
fn next_worker(device: &Device, old: u32) -> u32 {
    let mut new = old;
    wait_until("there is another worker", || {
        new = device.worker();
        new != old
    });
    new
}

/// How long the supervisor said it would wait, each time a worker had ended.
fn delays(device: &Device) -> Vec<u64> {
    let log = device.log();
    let lines = log.lines().filter_map(|line| line.split_once("delay_ms="));
    lines.map(|(_, number)| number.trim().parse().unwrap()).collect()
}

#[test]
fn a_killed_worker_is_replaced_at_once_when_it_was_of_use() {
    let device = Device::start("", "");
    device.assert_reachable();
    for _ in 0..5 {
        signal(device.worker(), "KILL");
        // It comes while there is no worker, and waits in the backlog instead of being refused.
        assert_login_soon(&device);
    }
    assert_eq!(delays(&device), [0; 5]);
}

#[test]
fn workers_of_no_use_wait_longer_and_connections_wait_with_them() {
    let device = Device::start("", "");
    let mut worker = device.worker();
    for _ in 0..3 {
        signal(worker, "KILL");
        worker = next_worker(&device, worker);
    }
    signal(worker, "KILL");
    wait_until("the fourth end is noticed", || delays(&device).len() == 4);
    let delays = delays(&device);
    assert_eq!(delays[0], 0);
    assert!((375..=500).contains(&delays[1]) && (1500..=2000).contains(&delays[3]), "{delays:?}");
    assert!(TcpStream::connect(("127.0.0.1", device.port)).is_ok(), "not refused while nobody serves");
    assert!(banner(device.port).is_some_and(|line| line.starts_with("SSH-2.0-")), "and then served");
    device.assert_reachable();
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let device = Device::start("", "");
    device.assert_reachable();
    let worker = device.worker();
    signal(worker, "STOP");
    wait_at_most(Duration::from_secs(30), "it is replaced", &mut || {
        let now = device.worker();
        now != worker
    });
    assert_login_soon(&device);
    assert!(device.log().contains("the ssh worker hangs"));
}

#[test]
fn sigterm_ends_everything_in_time() {
    let mut device = Device::start("", "");
    let marker = format!("sleep 77{}", device.port);
    let command = format!("trap '' HUP TERM; {marker} & wait");
    let mut client = device.ssh().arg(&command).stdin(Stdio::piped()).spawn().unwrap();
    let mut idle = device.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("both run", || is_running(&marker) && descendants(device.worker()).len() >= 3);
    let all: Vec<_> = descendants(device.daemon.id()).iter().map(|(pid, _)| *pid).collect();
    assert!(all.len() >= 4, "the worker, a shell, its sleep, a cat: {all:?}");
    let began = Instant::now();
    device.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(device.daemon.wait().unwrap().success());
    for pid in all {
        // What was left to init may be dead there for a while, without a command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(line.is_empty(), "{pid} is left: {}", text(&line));
    }
    for client in [&mut client, &mut idle] {
        assert!(!client.wait().unwrap().success());
    }
    device.start_again();
    device.assert_reachable();
}

#[test]
fn a_worker_does_not_outlive_its_supervisor() {
    let mut device = Device::start("", "");
    device.assert_reachable();
    let worker = device.worker();
    device.daemon.kill().unwrap();
    device.daemon.wait().unwrap();
    wait_until("the worker is gone", || !Path::new(&format!("/proc/{worker}")).exists());
    device.start_again();
    assert_login_soon(&device);
}

#[test]
fn a_port_that_was_taken_is_used_once_it_is_free() {
    let (folder, public) = new_folder();
    // The wrapper holds the port that the configuration names, and lets it go after a while.
    let hold = r#"
import os, re, socket, sys, time
port = int(re.search(r"port = (\d+)", open(sys.argv[-1]).read()).group(1))
holders = [socket.create_server(("127.0.0.1", port)),
           socket.create_server(("::1", port), family=socket.AF_INET6)]
if os.fork() == 0:
    time.sleep(2)
    os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let device = Device::start_wrapped(folder, &["python3", "-c", hold], &public, "", "");
    device.wait_for_log("cannot listen there");
    wait_at_most(Duration::from_secs(60), "it listens", &mut || device.run("true").status.success());
    assert_eq!(device.log().matches("cannot listen there").count(), 2, "one line an address");
    device.assert_reachable();
}

#[test]
fn a_reload_keeps_sessions_and_takes_new_keys() {
    let mut device = Device::start("", "");
    let mut session = device.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut echo = |line: &[u8]| {
        let mut answer = vec![0; line.len()];
        input.write_all(line).unwrap();
        output.read_exact(&mut answer).unwrap();
        answer == line
    };
    assert!(echo(b"before\n"));
    let old = fs::read_to_string(device.path("key.pub")).unwrap();
    let new = new_key(&device.path("new"));
    let config = fs::read_to_string(device.config()).unwrap();
    fs::write(device.config(), config.replace(old.trim(), &new)).unwrap();
    signal(device.daemon.id(), "HUP");
    device.wait_for_log("configuration read again");
    assert!(echo(b"after\n"), "the session lives on");
    let login = |device: &Device, key: &str| {
        let identity = format!("IdentityFile={}", device.path(key).display());
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", &identity]);
        command.args(["-p", &device.port.to_string(), "root@127.0.0.1", "true"]);
        command.stdin(Stdio::null()).output().unwrap().status.success()
    };
    assert!(login(&device, "new") && !login(&device, "key"), "the new key holds, the old one no more");
    assert!(echo(b"still\n"));
    drop(input);
    assert!(session.wait().unwrap().success());
    // Nothing was copied to where it would live on.
    device.stop();
    device.start_again();
    assert!(login(&device, "new") && !login(&device, "key"));
}

// Release builds have nothing that panics when asked to.
#[cfg(debug_assertions)]
#[test]
fn a_panic_ends_its_connection_only() {
    let device = Device::start("", "");
    let worker = device.worker();
    let mut other = device.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("it runs", || !descendants(worker).is_empty());
    for subsystem in ["myelin-panic", "myelin-panic-task"] {
        let ssh = device.ssh_line(&["-s"]);
        let mut command = Command::new("timeout");
        command.args(["20", "sh", "-c", &format!("exec {ssh} {subsystem}")]).stdin(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let status = client.wait().unwrap();
        assert_eq!(status.code(), Some(255), "{subsystem} ends its connection");
    }
    assert!(device.log().contains("a task panicked"));
    other.stdin.take().unwrap().write_all(b"alive").unwrap();
    assert_eq!(text(&other.wait_with_output().unwrap().stdout), "alive");
    assert_eq!(device.worker(), worker);
    device.assert_reachable();
}

#[test]
fn a_worker_that_leaks_is_replaced() {
    let device = Device::start("max_memory = \"64M\"", "");
    let worker = device.worker();
    let _ = device.ssh_with(&["-s"]).arg("myelin-leak").stdin(Stdio::null()).output().unwrap();
    device.wait_for_log("the ssh worker has grown beyond ssh.max_memory");
    wait_until("another worker runs", || device.worker() != worker);
    device.assert_reachable();
    assert_eq!(device.log().matches("grown beyond").count(), 1, "{}", device.log());
}

/// The service manager's end of sd_notify(3), and what NOTIFY_SOCKET has to be.
fn service_manager(folder: &Path) -> (UnixDatagram, String) {
    let path = folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    (manager, path.display().to_string())
}

#[test]
fn readiness_is_told_to_the_service_manager() {
    let (folder, public) = new_folder();
    let (manager, path) = service_manager(folder.path());
    let environment = format!("NOTIFY_SOCKET={path}");
    let mut device = Device::start_wrapped(folder, &["env", &environment], &public, "", "");
    let hear = || {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).unwrap();
        text(&message[..length])
    };
    assert_eq!(hear(), "READY=1");
    device.assert_reachable();
    // It keeps quiet about its workers.
    signal(device.worker(), "KILL");
    device.assert_reachable();
    device.stop();
    assert_eq!(hear(), "STOPPING=1");
}

/// As long as its loop turns, and whatever its workers do: myelin.service has WatchdogSec=.
#[test]
fn the_supervisor_gives_the_service_manager_signs_of_life() {
    let (folder, public) = new_folder();
    let (manager, path) = service_manager(folder.path());
    let environment = format!("NOTIFY_SOCKET={path}");
    let mut device =
        Device::start_wrapped(folder, &["env", &environment, "WATCHDOG_USEC=600000"], &public, "", "");
    device.wait_until_it_answers();
    signal(device.worker(), "STOP");
    let mut signs = 0;
    while signs < 4 {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).unwrap();
        signs += u32::from(&message[..length] == b"WATCHDOG=1");
    }
    signal(device.worker(), "CONT");
    device.stop();
}

#[test]
fn the_worker_runs_under_systemd_as_it_does_under_us() {
    let (folder, public) = new_folder();
    let (manager, path) = service_manager(folder.path());
    // What systemd does with a .socket unit and a service with WatchdogSec (sd_listen_fds(3)).
    let activate = r#"
import os, re, socket, sys
notify, program, config = sys.argv[1], sys.argv[2], sys.argv[-1]
port = int(re.search(r"port = (\d+)", open(config).read()).group(1))
server = socket.create_server(("127.0.0.1", port))
os.dup2(server.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="myelin-ssh.socket",
                  NOTIFY_SOCKET=notify, WATCHDOG_USEC="900000", WATCHDOG_PID=str(os.getpid()))
os.execv(program, ["myelin", "worker", "ssh", "--config", config])
"#;
    let mut device = Device::start_wrapped(folder, &["python3", "-c", activate, &path], &public, "", "");
    let hear = |wanted: &str| {
        let began = Instant::now();
        let mut message = [0; 512];
        loop {
            let length = manager.recv(&mut message).unwrap();
            if message[..length] == *wanted.as_bytes() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no {wanted}");
        }
    };
    hear("READY=1");
    device.assert_reachable();
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    device.stop();
}

#[test]
fn wrong_lines_cost_themselves_and_nothing_else() {
    let (folder, public) = new_folder();
    // In front of everything that counts stands what makes the file no TOML.
    let wrong = "window_size = = 3\nmax_startups = \"many\"\nno such key\nlogin_grace_time = [";
    let device = Device::start_in(folder, &public, wrong, "[[[\nfoo");
    device.assert_reachable();
    let log = device.log();
    for named in
        ["config.toml:7: window_size", "config.toml:8: ssh.max_startups", "config.toml:9", "config.toml:11"]
    {
        assert!(log.contains(named), "{named} is named: {log}");
    }
    let check = device.myelin(&["config", "check", &device.config().display().to_string()]);
    assert_eq!(check.status.code(), Some(1));
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (folder, public) = new_folder();
    let clog = r#"
import os, sys, time
read, write = os.pipe()
os.set_blocking(write, False)
try:
    while os.write(write, b"x" * 4096): pass
except BlockingIOError: pass
os.set_blocking(write, True)
parent = os.getpid()
if os.fork() == 0:
    os.setsid()
    while os.getppid() == parent: time.sleep(0.1)
    os._exit(0)
if "syslog" in os.environ:
    config = sys.argv[-1]
    with open(config) as file: text = file.read()
    with open(config, "w") as file: file.write('log = "syslog"\n' + text)
os.dup2(write, 2)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let device = Device::start_wrapped(folder, &["python3", "-c", clog], &public, "", "");
    device.wait_until_it_answers();
    assert_login_soon(&device);
    // Without a syslogd its lines go there too.
    let (folder, public) = new_folder();
    let wrapper = ["env", "syslog=1", "python3", "-c", clog];
    let device = Device::start_wrapped(folder, &wrapper, &public, "", "");
    device.wait_until_it_answers();
    assert_login_soon(&device);
}

/// Runs the rest of the arguments in a system of its own: no network but lo, `/data` that is empty, and no
/// change that is seen outside.
const SYSTEM: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mount --rbind /dev /mnt/root/dev
mount --rbind /proc /mnt/root/proc
for folder in "$BINARIES" "$FOLDER"; do
    mkdir -p "/mnt/root$folder"
    mount --rbind "$folder" "/mnt/root$folder"
done
mkdir -p /mnt/root/data/myelin/ssh
chmod 700 /mnt/root/data/myelin/ssh
cp "$FOLDER/key.pub" /mnt/root/data/myelin/ssh/authorized_keys
chmod 600 /mnt/root/data/myelin/ssh/authorized_keys
ip link set lo up
exec chroot /mnt/root "$@"
"#;

#[test]
fn a_file_that_is_no_toml_leaves_the_defaults() {
    let (folder, _) = new_folder();
    let binaries = Path::new(env!("CARGO_BIN_EXE_myelin")).parent().unwrap().display().to_string();
    let variables = [format!("BINARIES={binaries}"), format!("FOLDER={}", folder.path().display())];
    let wrapper = ["env", &variables[0], &variables[1], "unshare", "-mn", "sh", "-c", SYSTEM, "sh"];
    let possible = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output().unwrap();
    if !possible.status.success() {
        eprintln!("not tested: this needs root and overlayfs: {}", text(&possible.stderr));
        return;
    }
    // Its errors have no place, and were looked for for ever once.
    let deep =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration/deep")).unwrap();
    let noise = common::random_bytes(3000, 9);
    for garbage in [&noise[..], b"\0\0\0\0", b"<?xml version=\"1.0\"?>\n<a/>\n", b"", &deep] {
        let (other, _) = new_folder();
        for file in ["key", "key.pub"] {
            fs::copy(folder.path().join(file), other.path().join(file)).unwrap();
        }
        let config = other.path().join("config.toml");
        fs::write(&config, garbage).unwrap();
        let log = fs::File::create(other.path().join("log")).unwrap();
        let mut command = Command::new(wrapper[0]);
        command.args([&variables[0], &format!("FOLDER={}", other.path().display())]).args(&wrapper[3..]);
        command.arg(env!("CARGO_BIN_EXE_myelin")).args(["daemon", "--config"]).arg(&config);
        let mut daemon = command.stderr(log).stdin(Stdio::null()).spawn().unwrap();
        let key = other.path().join("key").display().to_string();
        let net = format!("--net=/proc/{}/ns/net", daemon.id());
        let login = || {
            let mut command = Command::new("nsenter");
            command.args([&net, "ssh", "-F", "none", "-i", &key, "-o", "BatchMode=yes"]);
            command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
            command.args(["-o", "IdentitiesOnly=yes", "root@127.0.0.1", "echo reachable"]);
            text(&command.stdin(Stdio::null()).output().unwrap().stdout) == "reachable\n"
        };
        let what = text(&garbage[..garbage.len().min(20)]);
        wait_until(&format!("port 22 lets the key of /data in, with {what:?}"), login);
        signal(daemon.id(), "TERM");
        daemon.wait().unwrap();
        let log = fs::read_to_string(other.path().join("log")).unwrap();
        assert!(garbage.is_empty() || log.contains("config.toml"), "the file is named: {log}");
    }
}

#[test]
fn without_a_key_the_daemon_runs_and_says_how_to_add_one() {
    let (folder, public) = new_folder();
    let device = Device::start_in(folder, "", "", "");
    device.wait_for_log("myelin keys add");
    for _ in 0..3 {
        assert_eq!(device.run("true").status.code(), Some(255));
    }
    assert_eq!(device.log().matches("myelin keys add").count(), 1, "once a minute");
    let check = device.myelin(&["config", "check", &device.config().display().to_string()]);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stdout).contains("key"), "{check:?}");
    assert!(device.myelin(&["keys", "add", &public]).status.success());
    device.assert_reachable();
}

#[test]
fn keys_added_at_run_time_last() {
    let mut device = Device::start("", "");
    let public = fs::read_to_string(device.path("key.pub")).unwrap();
    assert!(device.myelin(&["keys", "add", public.trim()]).status.success());
    let file = device.path("state/ssh/authorized_keys");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let config = fs::read_to_string(device.config()).unwrap();
    fs::write(device.config(), config.replace("authorized_keys =", "# authorized_keys =")).unwrap();
    device.stop();
    device.start_again();
    device.assert_reachable();
}

#[test]
fn bad_lines_between_good_keys_are_passed_over_and_named() {
    let device = Device::start("", "");
    let public = fs::read_to_string(device.path("key.pub")).unwrap();
    let config = fs::read_to_string(device.config()).unwrap();
    fs::write(device.config(), config.replace("authorized_keys =", "# authorized_keys =")).unwrap();
    signal(device.daemon.id(), "HUP");
    device.wait_for_log("configuration read again");
    let lines = [
        "\u{feff}# a comment behind a byte order mark",
        "",
        "not a key at all",
        "ssh-ed25519 AAAA!!!!notbase64 broken",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAOldkey old",
        "no-such-option ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ x",
        "\u{1b}[31mssh-ed25519\0",
    ];
    let bad = lines.join("\r\n");
    let file = device.path("state/ssh/authorized_keys");
    // The good one is the last, without a newline at its end.
    fs::write(&file, format!("{bad}\r\n{}", public.trim())).unwrap();
    device.assert_reachable();
    let log = device.log();
    for line in 3..=7 {
        assert!(log.contains(&format!("authorized_keys:{line}: key refused")), "line {line}: {log}");
    }
    assert!(!log.contains("notbase64"), "their content is not shown");
    device.assert_reachable();
    assert_eq!(device.log().matches("key refused").count(), 5, "once each");
}

#[test]
fn what_stands_in_the_place_of_the_keys_file_keeps_nobody_out() {
    let device = Device::start("", "");
    let file = device.path("state/ssh/authorized_keys");
    let makers: [&[&str]; 3] = [&["mkfifo"], &["mkdir"], &["ln", "-s", "/dev/zero"]];
    for maker in makers {
        assert!(Command::new(maker[0]).args(&maker[1..]).arg(&file).status().unwrap().success());
        assert_login_soon(&device);
        assert!(device.log().contains("authorized_keys: cannot be read"), "{maker:?}: {}", device.log());
        assert!(Command::new("rm").arg("-r").arg(&file).status().unwrap().success());
    }
}

/// Starts a device whose host key folder was prepared, asserts that it can be reached, and gives its log.
fn start_with_host_keys(prepare: impl FnOnce(&Path)) -> Device {
    let (folder, public) = new_folder();
    let state = folder.path().join("state");
    fs::create_dir_all(&state).unwrap();
    prepare(&state.join("ssh"));
    let began = Instant::now();
    let device = Device::start_in(folder, &public, "", "");
    device.assert_reachable();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    device
}

fn host_key_warnings(device: &Device) -> usize {
    device.log().lines().filter(|line| line.contains("WARN") && line.contains("host keys:")).count()
}

#[test]
fn damaged_host_keys_are_moved_aside_and_made_anew() {
    let rsa = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rsa{}", std::process::id()));
    let _ = fs::remove_file(&rsa);
    let arguments = ["-q", "-t", "ecdsa", "-N", "", "-f"];
    assert!(Command::new("ssh-keygen").args(arguments).arg(&rsa).status().unwrap().success());
    let other_type = fs::read(&rsa).unwrap();
    let public = fs::read(rsa.with_extension("pub")).unwrap();
    for content in [&b""[..], &common::random_bytes(500, 10), &other_type, &public, &other_type[..100]] {
        let device = start_with_host_keys(|folder| {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("ssh_host_ed25519_key"), content).unwrap();
        });
        assert_eq!(host_key_warnings(&device), 1, "{}", device.log());
        let key = device.path("state/ssh/ssh_host_ed25519_key");
        assert_eq!(fs::read(format!("{}.corrupt", key.display())).unwrap(), content);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let scan = |device: &Device| {
            let port = device.port.to_string();
            text(&Command::new("ssh-keyscan").args(["-p", &port, "127.0.0.1"]).output().unwrap().stdout)
        };
        let first = scan(&device);
        let mut device = device;
        device.stop();
        device.start_again();
        assert_eq!(scan(&device), first, "the new key stays");
        assert!(!first.is_empty());
    }
    let _ = fs::remove_file(rsa.with_extension("pub"));
    let _ = fs::remove_file(rsa);
}

#[test]
fn what_stands_in_the_place_of_keys_and_folders_keeps_nobody_out() {
    let device = start_with_host_keys(|folder| fs::write(folder, "a file").unwrap());
    assert_eq!(host_key_warnings(&device), 1, "{}", device.log());
    let device = start_with_host_keys(|folder| {
        fs::create_dir_all(folder.join("ssh_host_ed25519_key/something")).unwrap();
    });
    assert_eq!(host_key_warnings(&device), 1, "{}", device.log());
    let device = start_with_host_keys(|folder| {
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
        fs::write(folder.parent().unwrap(), "state_dir is a file").unwrap();
    });
    assert_eq!(host_key_warnings(&device), 1, "{}", device.log());
}

#[test]
fn a_state_dir_that_cannot_be_written_keeps_nobody_out() {
    let read_only = "mount --bind \"$STATE\" \"$STATE\" && mount -o remount,bind,ro \"$STATE\"";
    let full =
        "mount -t tmpfs -o size=16k none \"$STATE\" && ! head -c 1M /dev/zero > \"$STATE/full\" 2> /dev/null";
    for spoil in [read_only, full] {
        let (folder, public) = new_folder();
        let state = folder.path().join("state");
        fs::create_dir_all(&state).unwrap();
        let script = format!("mount --make-rprivate / && {spoil} && exec \"$@\"");
        let variable = format!("STATE={}", state.display());
        let wrapper = ["env", &variable, "unshare", "-m", "sh", "-c", &script, "sh"];
        let possible = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output().unwrap();
        if !possible.status.success() {
            eprintln!("not tested: this needs root: {}", text(&possible.stderr));
            return;
        }
        let mut device = Device::start_wrapped(folder, &wrapper, &public, "", "");
        device.wait_until_it_answers();
        assert_login_soon(&device);
        assert_eq!(host_key_warnings(&device), 1, "{}", device.log());
        // Input that waits has no disk to go to, which is said, and ends nothing.
        let output = pipe_into(device.ssh().arg("sleep 1; wc -c"), &vec![0; 8 << 20]);
        assert_eq!(text(&output.stdout).trim(), (8 << 20).to_string());
        signal(device.worker(), "KILL");
        assert_login_soon(&device);
        device.stop();
    }
}

#[test]
fn nobody_holds_the_port_but_the_daemon() {
    let device = Device::start("", "");
    assert!(TcpListener::bind(("127.0.0.1", device.port)).is_err());
    // What a session leaves behind must not keep the sockets, or no new daemon could have the address.
    let command = "nohup sleep 30 > /dev/null 2>&1 & ls -l /proc/self/fd /proc/$!/fd";
    let open = text(&device.run(command).stdout);
    assert!(!open.contains("socket:"), "{open}");
}
