//! OpenSSH's server, to know that a test is right.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use super::{banner, free_port, wait_until};

/// A running sshd, for as long as this lives.
pub struct Sshd {
    pub port: u16,
    server: Child,
}

impl Sshd {
    /// Starts one that has its files in `folder`, and these lines in its configuration. `None` without the rights
    /// that it needs.
    pub fn start(folder: &Path, config: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: OpenSSH's sshd is not asked, it needs root");
            return None;
        }
        let port = free_port();
        let host_key = folder.join("sshd_host_key");
        if !host_key.exists() {
            super::new_key(&host_key);
        }
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nUsePAM no\nStrictModes no\nPidFile none\n\
             PermitRootLogin yes\n{config}\n",
            host_key.display()
        );
        let path = folder.join(format!("sshd_config{port}"));
        fs::write(&path, text).unwrap();
        // sshd wants this folder of its package's service.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::create(folder.join("sshd.log")).unwrap();
        let server = Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(path).stderr(log).spawn();
        let sshd = Self { port, server: server.expect("sshd is installed (apt install openssh-server)") };
        wait_until("sshd answers", || banner(port).is_some());
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
