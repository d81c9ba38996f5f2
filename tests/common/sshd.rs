//! OpenSSH's daemon in the place of ours, to know that a test is right.

use std::fs;
use std::process::{Command, Stdio};

use super::{Device, free_port, new_folder, new_key};

impl Device {
    /// Starts sshd with more lines for its configuration.
    pub fn start_sshd(more: &str) -> Self {
        let (folder, public) = new_folder();
        let port = free_port();
        new_key(&folder.path().join("host"));
        let here = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/keys\n\
             UsePAM no\nStrictModes no\nPidFile none\n{more}\n"
        );
        fs::write(folder.path().join("keys"), public + "\n").unwrap();
        fs::write(folder.path().join("sshd_config"), config).unwrap();
        // sshd wants this folder of its package's service.
        let _ = fs::create_dir_all("/run/sshd");
        let daemon = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.path().join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("sshd is installed (apt install openssh-server)");
        let device = Self { folder, port, daemon, wrapper: Vec::new() };
        device.wait_until_it_answers();
        device
    }
}
