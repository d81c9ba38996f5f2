//! A device whose answers the test chooses: OpenSSH's sshd with two subsystems that are shell scripts, because a device
//! that loses the connection, falls back or never returns is easier to script than to provoke.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{banner, free_port, new_key, random_bytes, wait_until};

/// Takes everything, and comes back with it.
pub const GOOD: &str = "cat >got; echo 'Success!'; (sleep 1; mv after.json status.json) >/dev/null 2>&1 &";
/// The configuration of a device that answers `myelin-status`.
pub const STATUS: &str = "Subsystem myelin-status cat HERE/status.json";

/// A device whose subsystems are shell scripts, behind OpenSSH's sshd.
pub struct Device {
    pub folder: tempfile::TempDir,
    pub sshd: Child,
    pub port: u16,
    /// The UUID of new.fw.
    pub uuid: String,
    client: &'static [&'static str],
}

/// What makes the connection: the system's ssh, or the client that is built in.
pub const CLIENTS: [&[&str]; 2] = [&[], &["--builtin"]];

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl Device {
    /// `fwup` is the script behind the subsystem of that name, in the device's folder. The system's ssh goes there.
    pub fn new(fwup: &str) -> Self {
        Self::start(fwup, &[], STATUS, &[])
    }

    /// One device for each client.
    pub fn each(fwup: &str) -> impl Iterator<Item = Self> {
        CLIENTS.into_iter().map(move |client| Self::start(fwup, client, STATUS, &[]))
    }

    /// `config` is added to that of sshd, which `wrapper` becomes.
    pub fn start(fwup: &str, client: &'static [&'static str], config: &str, wrapper: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for key in ["host", "user", "stranger"] {
            new_key(&path(key));
        }
        fs::write(path("fwup.sh"), format!("cd {}\n{fwup}\n", folder.path().display())).unwrap();
        let free = free_port();
        let here = folder.path().display();
        // Of two values for one option, sshd takes the first.
        let config = format!(
            "{}\nPort {free}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
             UsePAM no\nStrictModes no\nPidFile {here}/sshd.pid\nSubsystem fwup sh {here}/fwup.sh\n",
            config.replace("HERE", &here.to_string())
        );
        fs::write(path("sshd_config"), config).unwrap();
        // sshd wants this folder of its package's service.
        let _ = fs::create_dir_all("/run/sshd");
        let words = [wrapper, &["/usr/sbin/sshd", "-D", "-e", "-f"]].concat();
        let sshd = Command::new(words[0])
            .args(&words[1..])
            .arg(path("sshd_config"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("sshd.log")).unwrap())
            .spawn()
            .expect("sshd is installed (apt install openssh-server)");
        let uuid = firmware(&folder.path().join("new.fw"), "board-x");
        let device = Self { folder, sshd, port: free, uuid, client };
        device.status("status.json", "boot-1", "a", "old");
        // What the device says after its reboot, for scripts to move into place.
        device.status("after.json", "boot-2", "b", &device.uuid);
        device.status("fallen-back.json", "boot-2", "a", "old");
        device.wait_for_port();
        device
    }

    pub fn wait_for_port(&self) {
        wait_until("sshd answers", || banner(self.port).is_some());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn status(&self, name: &str, boot: &str, running: &str, uuid: &str) {
        let status = serde_json::json!({
            "running": running, "next": running, "boot_id": boot, "serial_number": null, "devpath": null,
            "update": null, "pending_reboot": false,
            "slots": {running: {"uuid": uuid, "version": "9.9", "product": "p", "platform": "board-x",
                                "architecture": "arm", "validated": true}}
        });
        fs::write(self.path(name), status.to_string()).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        let known = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        command
            .arg("upload")
            .args(self.client)
            .args(["-F", "none", "-p", &self.port.to_string(), "-o", &known])
            .args([
                "-o",
                "StrictHostKeyChecking=accept-new",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "BatchMode=yes",
            ])
            .arg("-i")
            .arg(self.path("user"))
            .args(args)
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("MYELIN_HOST")
            .current_dir(self.folder.path());
        command
    }

    /// Uploads new.fw.
    pub fn upload(&self, args: &[&str]) -> Output {
        self.command(&["127.0.0.1", "new.fw"]).args(args).output().unwrap()
    }
}

/// Makes a firmware file of about 3 MiB and returns its UUID.
pub fn firmware(path: &Path, platform: &str) -> String {
    let folder = path.parent().unwrap();
    fs::write(folder.join("noise.img"), random_bytes(3 << 20, 1)).unwrap();
    let config = format!(
        "meta-product = \"p\"\nmeta-version = \"2.0\"\nmeta-platform = \"{platform}\"\n\
         meta-architecture = \"arm\"\nfile-resource noise.img {{ host-path = \"{}/noise.img\" }}\n\
         task upgrade {{ on-resource noise.img {{ raw_write(0) }} }}\n",
        folder.display()
    );
    fs::write(folder.join("fwup.conf"), config).unwrap();
    let fwup = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        let output = command.arg("fwup").args(words).arg(path).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", all(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    fwup(&["-c", "-f", "fwup.conf", "-o"]);
    let metadata = fwup(&["-m", "-i"]);
    let uuid = metadata.lines().find_map(|line| line.strip_prefix("meta-uuid=")).expect("a UUID");
    uuid.trim_matches('"').to_owned()
}

pub fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
pub fn expect(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", all(output));
    assert!(all(output).contains(words), "{words:?} is missing in: {}", all(output));
}
