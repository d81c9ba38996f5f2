//! A daemon of its own for each test, and the real OpenSSH client to use it.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod agent;
pub mod disk;
pub mod place;
pub mod scripted;
pub mod sftp;
pub mod sshd;
pub mod strangers;
pub mod terminal;
pub mod transfer;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon with a folder, a port and a key of its own.
pub struct Device {
    pub folder: tempfile::TempDir,
    pub port: u16,
    pub daemon: Child,
    wrapper: Vec<String>,
}

impl Device {
    /// Starts a daemon whose `[ssh]` has `more_ssh` and whose file ends with `rest`.
    pub fn start(more_ssh: &str, rest: &str) -> Self {
        let (folder, public) = new_folder();
        Self::start_in(folder, &public, more_ssh, rest)
    }

    pub fn start_in(folder: tempfile::TempDir, public_key: &str, more_ssh: &str, rest: &str) -> Self {
        let device = Self::start_wrapped(folder, &[], public_key, more_ssh, rest);
        device.wait_until_it_answers();
        device
    }

    /// The same through `wrapper`, a command that becomes the daemon. Does not wait until it answers.
    pub fn start_wrapped(
        folder: tempfile::TempDir,
        wrapper: &[&str],
        public_key: &str,
        more_ssh: &str,
        rest: &str,
    ) -> Self {
        let port = free_port();
        let path = folder.path().display();
        let keys =
            if public_key.is_empty() { String::new() } else { format!("authorized_keys = [{public_key:?}]") };
        let here = "listen_address = [\"127.0.0.1\", \"::1\"]";
        let here = if more_ssh.contains("listen_address") { "" } else { here };
        let config = format!(
            "state_dir = \"{path}/state\"\nruntime_dir = \"{path}/run\"\n\
             [ssh]\n{here}\nport = {port}\n{keys}\n{more_ssh}\n{rest}\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let wrapper: Vec<String> = wrapper.iter().map(ToString::to_string).collect();
        let daemon = spawn_daemon(folder.path(), &wrapper);
        Self { folder, port, daemon, wrapper }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Everything the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Waits until the daemon sends its identification.
    pub fn wait_until_it_answers(&self) {
        wait_until("the daemon answers", || {
            banner(self.port).is_some_and(|line| line.starts_with("SSH-2.0-"))
        });
    }

    /// The options that every OpenSSH client gets here.
    pub fn ssh_options(&self) -> Vec<String> {
        let mut options: Vec<String> = vec!["-F".into(), "none".into()];
        let key = self.path("key").display().to_string();
        for option in [
            format!("IdentityFile={key}"),
            "IdentitiesOnly=yes".into(),
            "StrictHostKeyChecking=no".into(),
            "UserKnownHostsFile=/dev/null".into(),
            "LogLevel=ERROR".into(),
            "BatchMode=yes".into(),
        ] {
            options.extend(["-o".into(), option]);
        }
        options
    }

    /// `ssh … root@127.0.0.1`, to be completed with a command.
    pub fn ssh(&self) -> Command {
        self.ssh_with(&[])
    }

    /// The same with more options, which stand before the host.
    pub fn ssh_with(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        // Of two values for one option, ssh takes the first.
        command.args(options).args(self.ssh_options()).args(["-p", &self.port.to_string(), "root@127.0.0.1"]);
        command
    }

    /// The words of `ssh_with` for a shell, to be followed by a command.
    pub fn ssh_line(&self, options: &[&str]) -> String {
        let command = self.ssh_with(options);
        let words = command.get_args().map(|word| format!("'{}'", word.to_string_lossy()));
        format!("ssh {}", words.collect::<Vec<_>>().join(" "))
    }

    /// `dbclient … root@127.0.0.1` with a key of its own that is let in from now on, to be completed with a command.
    pub fn dbclient(&self) -> Command {
        let key = self.path("dropbear");
        let made = Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key).output();
        let made = made.expect("dropbearkey is installed (apt install dropbear-bin)");
        let line =
            text(&made.stdout).lines().find(|line| line.starts_with("ssh-ed25519")).unwrap().to_owned();
        assert!(self.myelin(&["keys", "add", &line]).status.success());
        let mut client = Command::new("dbclient");
        client.args(["-y", "-y", "-i"]).arg(&key).args(["-p", &self.port.to_string(), "root@127.0.0.1"]);
        client
    }

    /// Runs a command on the device.
    pub fn run(&self, command: &str) -> Output {
        self.ssh().arg(command).stdin(Stdio::null()).output().unwrap()
    }

    /// Asserts that the key can still log in and do something.
    pub fn assert_reachable(&self) {
        let output = self.run("echo reachable");
        assert_eq!(text(&output.stdout), "reachable\n", "{output:?}\nlog:\n{}", self.log());
    }

    /// The pid of the ssh worker.
    pub fn worker(&self) -> u32 {
        let mut found = None;
        wait_until("a worker runs", || {
            found = ssh_worker(self.daemon.id());
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends `input` to the `fwup` subsystem.
    pub fn push(&self, input: &[u8]) -> Output {
        pipe_into(self.ssh_with(&["-s"]).arg("fwup"), input)
    }

    /// Our own command with this device's configuration.
    pub fn myelin(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_myelin"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .output()
            .unwrap()
    }

    pub fn stop(&mut self) {
        signal(self.daemon.id(), "TERM");
        let began = Instant::now();
        while self.daemon.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(10), "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the daemon again after `stop`.
    pub fn start_again(&mut self) {
        self.daemon = spawn_daemon(self.folder.path(), &self.wrapper);
        self.wait_until_it_answers();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let began = Instant::now();
        while self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            if began.elapsed() < Duration::from_millis(50) {
                signal(self.daemon.id(), "TERM");
            } else if began.elapsed() > PATIENCE {
                // One that hangs must not hang its test.
                let _ = self.daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

/// A folder for a device, and the public half of the key `key` in it.
pub fn new_folder() -> (tempfile::TempDir, String) {
    // Under target/ and not in /tmp: that may lie in memory, where spool_dir must not be.
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::Builder::new().prefix("device").tempdir_in(parent).unwrap();
    let public = new_key(&folder.path().join("key"));
    (folder, public)
}

/// Makes a key pair at `path` and gives its public half.
pub fn new_key(path: &Path) -> String {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen is installed (apt install openssh-client)").success());
    fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}

fn spawn_daemon(folder: &Path, wrapper: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let words = [wrapper, &[env!("CARGO_BIN_EXE_myelin").to_owned()]].concat();
    Command::new(&words[0])
        .args(&words[1..])
        .args(["daemon", "--config"])
        .arg(folder.join("config.toml"))
        .env_remove("NOTIFY_SOCKET")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The first line that a server sends.
pub fn banner(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 255 && stream.read(&mut byte).ok()? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

/// Makes a key for dropbear's client and gives its line.
pub fn dropbear_key(path: &Path) -> String {
    let made = Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(path).output();
    let made = made.expect("dropbearkey is installed (apt install dropbear-bin)");
    text(&made.stdout).lines().find(|line| line.starts_with("ssh-ed25519")).unwrap().to_owned()
}

/// The host keys that `ssh-keyscan` finds, as `TYPE KEY`. It has nothing to say but those and the server's name, which
/// newer ones print among them.
pub fn scan(address: &str, port: u16) -> Vec<String> {
    let output = Command::new("ssh-keyscan").args(["-p", &port.to_string(), address]).output().unwrap();
    let is_said = |line: &&str| !line.starts_with('#');
    assert_eq!(text(&output.stderr).lines().find(is_said), None);
    let stdout = text(&output.stdout);
    let keys = stdout.lines().filter(is_said).filter_map(|line| line.split_once(' '));
    keys.map(|(_, key)| key.to_owned()).collect()
}

/// Runs `command` with `input` on its stdin. One that ends early reads no more of it.
pub fn pipe_into(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
}

/// The ssh worker of a daemon, which may have another child for a moment.
pub fn ssh_worker(daemon: u32) -> Option<u32> {
    let is_worker = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"myelin: ssh"))
    };
    children(daemon).into_iter().find(is_worker)
}

pub fn children(pid: u32) -> Vec<u32> {
    // Each thread has those that it has started.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Whether a process runs whose command line contains `text`.
pub fn is_running(text: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.into_iter().any(|entry| {
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        is_process && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    })
}

/// Everything that runs below a process: pids and command lines.
pub fn descendants(pid: u32) -> Vec<(u32, String)> {
    let mut all = Vec::new();
    let mut waiting = vec![pid];
    while let Some(pid) = waiting.pop() {
        for child in children(pid) {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            all.push((child, text(&line).replace('\0', " ").trim_end().to_owned()));
            waiting.push(child);
        }
    }
    all
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, &mut condition);
}

pub fn wait_at_most(limit: Duration, what: &str, condition: &mut dyn FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command prints, which may take so long.
pub fn printed_within(limit: Duration, what: &str, command: &mut Command) -> String {
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(began.elapsed() < limit, "{what} took {:?}: {output:?}", began.elapsed());
    text(&output.stdout)
}

/// A kilobyte count of `/proc/PID/status`, such as `RssAnon`: a process's own memory, without its code, which comes
/// and goes (`sys::unmap_code`).
pub fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Bytes without a pattern, the same for the same seed.
pub fn random_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
