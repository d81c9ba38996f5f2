//! A daemon of its own on a free port, with a user's key, and the stock ssh client to reach it.

#![allow(dead_code, reason = "each test program uses another part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub struct Device {
    pub folder: tempfile::TempDir,
    pub port: u16,
    daemon: Option<Child>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Device {
    /// `config` follows the lines that every test needs; it stands in `[ssh]` and may open other sections.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let device = Self { folder, port, daemon: None };
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(device.path("user"))
            .status();
        assert!(made.unwrap().success());
        let key = fs::read_to_string(device.path("user.pub")).unwrap();
        let text = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\n[ssh]\nlisten_address = [\"127.0.0.1\"]\nport = {port}\n\
             authorized_keys = [{:?}]\n{config}\n",
            device.path("state"),
            device.path("run"),
            key.trim(),
        );
        fs::write(device.path("config.toml"), text).unwrap();
        device
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon; it need not listen yet.
    pub fn start(&mut self) {
        self.start_after("true");
    }

    /// Starts the daemon from a shell that first runs `script`, in a mount namespace of its own.
    pub fn start_in_namespace(&mut self, script: &str) {
        let script = format!("mount --make-rprivate / && {script}");
        self.spawn(Command::new("unshare").args(["-m", "sh", "-c"]).arg(self.then_daemon(&script)));
    }

    fn start_after(&mut self, script: &str) {
        self.spawn(Command::new("sh").arg("-c").arg(self.then_daemon(script)));
    }

    fn then_daemon(&self, script: &str) -> String {
        let program = env!("CARGO_BIN_EXE_myelin");
        format!("{script} && exec {program} daemon --config {}", self.path("config.toml").display())
    }

    fn spawn(&mut self, command: &mut Command) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.daemon = Some(child.unwrap());
    }

    /// Ends the daemon as init does.
    pub fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(6);
        while daemon.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                let _ = daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_for_port(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the daemon does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Options of ssh and of `myelin upload` that reach this device with its user's key.
    pub fn options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        let mut words = vec!["-F".to_owned(), "none".into(), "-p".into(), self.port.to_string()];
        words.extend(["-i".into(), self.path("user").display().to_string()]);
        for option in ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new", &known] {
            words.extend(["-o".into(), option.to_owned()]);
        }
        words
    }

    pub fn ssh(&self, words: &[&str]) -> Output {
        let mut command = Command::new("ssh");
        command.args(self.options()).args(words).env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        command.output().unwrap()
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether this machine lets tests mount things in a namespace of their own.
pub fn namespaces_work() -> bool {
    Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success())
}
