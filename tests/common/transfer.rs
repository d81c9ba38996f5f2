//! For tests that copy files: trees that are hard to copy, and the programs that do it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Device, random_bytes, text};

/// The same daemon with OpenSSH's server behind the name `sftp`: what it passes, the test may ask for.
pub const REFERENCE: &str = "[ssh.subsystem]\nsftp = \"/usr/lib/openssh/sftp-server\"";

/// Ours, and OpenSSH's to know that a test is right.
pub fn both() -> [(&'static str, Device); 2] {
    [("ours", Device::start("", "")), ("OpenSSH's", Device::start("", REFERENCE))]
}

/// One of OpenSSH's programs that copy files, with the options for this device.
pub fn client(device: &Device, program: &str, options: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(options).args(device.ssh_options()).args(["-P", &device.port.to_string()]);
    command
}

#[track_caller]
pub fn succeeded(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// A small tree with all that gets lost on a bad way: modes, times, odd names, empty files, links.
pub fn new_tree(folder: &Path) {
    fs::create_dir_all(folder.join("deep/er/and deeper")).unwrap();
    fs::create_dir(folder.join("empty folder")).unwrap();
    let names =
        [&b"plain"[..], b"with space", b"new\nline", b"latin \xe4\xf6\xfc", &[b'n'; 255], b"$HOME;'\"*?\\"];
    for (seed, name) in (1..).zip(names) {
        let path = folder.join(OsStr::from_bytes(name));
        fs::write(&path, random_bytes(1 << (2 * seed), seed)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + u32::try_from(seed).unwrap())).unwrap();
    }
    fs::write(folder.join("deep/er/and deeper/big"), random_bytes(3 << 20, 9)).unwrap();
    fs::write(folder.join("deep/empty"), "").unwrap();
    let mut touch = Command::new("find");
    touch.arg(folder).args(["-exec", "touch", "-d", "2001-02-03 04:05:06", "{}", "+"]);
    assert!(touch.status().unwrap().success());
}

/// Names, kinds, modes, times and sums of everything in a folder; what a copy keeps.
pub fn described(folder: &Path) -> String {
    let script = "find . -printf '%P|%y|%m|%Ts|%l\\n' | sort; find . -type f -exec cksum {} + | sort";
    let output = Command::new("sh").args(["-c", script]).env("LC_ALL", "C").current_dir(folder).output();
    text(&output.unwrap().stdout)
}

/// The client's key for PuTTY's programs, and the fingerprint of the host key, which they want to be told.
pub fn for_putty(device: &Device) -> (PathBuf, String) {
    let key = device.path("key.ppk");
    let made = Command::new("puttygen")
        .env("HOME", device.folder.path())
        .arg(device.path("key"))
        .args(["-O", "private", "-o"])
        .arg(&key)
        .output();
    succeeded(&made.expect("puttygen is installed (apt install putty-tools)"), "puttygen");
    let public = device.path("state/ssh/ssh_host_ed25519_key.pub");
    let listed = Command::new("ssh-keygen").arg("-lf").arg(public).output();
    (key, text(&listed.unwrap().stdout).split_whitespace().nth(1).unwrap().to_owned())
}

/// The beginning of programs for `python` that log in with paramiko: what follows has a `transport`.
pub const PARAMIKO: &str = r#"
import paramiko, sys, time
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(sys.argv[1]), "root", allow_agent=False, look_for_keys=False,
               pkey=paramiko.Ed25519Key.from_private_key_file(sys.argv[2]))
transport = client.get_transport()
"#;

/// Runs a Python program with Debian's interpreter, which has Debian's packages.
pub fn python(device: &Device, module: &str, program: &str) -> Output {
    let found =
        Command::new("/usr/bin/python3").args(["-W", "ignore", "-c", &format!("import {module}")]).output();
    assert!(
        found.is_ok_and(|found| found.status.success()),
        "{module} is installed (apt install python3-{module})"
    );
    Command::new("timeout")
        .args(["120", "/usr/bin/python3", "-W", "ignore", "-c", program, &device.port.to_string()])
        .arg(device.path("key"))
        .arg(device.folder.path())
        .output()
        .unwrap()
}
