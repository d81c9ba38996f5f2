//! OpenSSH's daemon, to know that a test is right.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Device, banner, free_port, new_folder, new_key, wait_until};

impl Device {
    /// Starts sshd in the place of ours, with more lines for its configuration.
    pub fn start_sshd(more: &str) -> Self {
        let device = Self::start_wrapped_sshd(&[], more);
        device.wait_until_it_answers();
        device
    }

    /// The same through `wrapper`, a command that becomes sshd. Does not wait until it answers.
    pub fn start_wrapped_sshd(wrapper: &[&str], more: &str) -> Self {
        let (folder, public) = new_folder();
        fs::write(folder.path().join("keys"), public + "\n").unwrap();
        let config = format!("AuthorizedKeysFile {}\n{more}", folder.path().join("keys").display());
        let (port, daemon) = spawn(folder.path(), wrapper, &config);
        Self { folder, port, daemon, wrapper: Vec::new() }
    }
}

/// An sshd beside ours, for as long as this lives.
pub struct Sshd {
    pub port: u16,
    daemon: Child,
}

impl Sshd {
    /// Starts one that has its files in `folder`, and these lines in its configuration. `None` without the rights
    /// that it needs.
    pub fn start(folder: &Path, config: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: OpenSSH's sshd is not asked, it needs root");
            return None;
        }
        let (port, daemon) = spawn(folder, &[], config);
        let sshd = Self { port, daemon };
        wait_until("sshd answers", || banner(port).is_some());
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn spawn(folder: &Path, wrapper: &[&str], config: &str) -> (u16, Child) {
    let port = free_port();
    new_key(&folder.join("host"));
    let here = folder.display();
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nUsePAM no\nStrictModes no\nPidFile none\n\
         {config}\n"
    );
    fs::write(folder.join("sshd_config"), text).unwrap();
    // sshd wants this folder of its package's service.
    let _ = fs::create_dir_all("/run/sshd");
    let words = [wrapper, &["/usr/sbin/sshd", "-D", "-e", "-f"]].concat();
    let daemon = Command::new(words[0])
        .args(&words[1..])
        .arg(folder.join("sshd_config"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(folder.join("sshd.log")).unwrap())
        .spawn()
        .expect("sshd is installed (apt install openssh-server)");
    (port, daemon)
}
