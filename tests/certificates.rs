//! Certificates of users and of host keys, made by ssh-keygen, with OpenSSH's client; the same for OpenSSH's sshd.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::sshd::Sshd;
use common::{Device, new_folder, new_key, signal, text, wait_until};

/// A device and an sshd that trust the same authority, and a folder of keys for both.
struct Servers {
    device: Device,
    sshd: Option<Sshd>,
}

/// Keys `ca`, `rsa_ca`, `other_ca` and `user` in a new folder, and the key of the device's owner.
fn new_keys() -> (tempfile::TempDir, String) {
    let (folder, owner) = new_folder();
    for name in ["ca", "other_ca", "user"] {
        new_key(&folder.path().join(name));
    }
    keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"], &folder.path().join("rsa_ca"));
    (folder, owner)
}

fn keygen(arguments: &[&str], path: &Path) {
    let output = Command::new("ssh-keygen").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn public(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name).with_extension("pub")).unwrap().trim().to_owned()
}

impl Servers {
    /// Both trust `ca` and `rsa_ca` by a file of authorities.
    fn that_trust_the_authorities(more_ssh: &str) -> Self {
        let (folder, owner) = new_keys();
        let authorities = folder.path().join("authorities");
        let lines = format!("# ours\n{}\n{}\n", public(folder.path(), "ca"), public(folder.path(), "rsa_ca"));
        fs::write(&authorities, lines).unwrap();
        let sshd = Sshd::start(folder.path(), &format!("TrustedUserCAKeys {}", authorities.display()));
        let more = format!("trusted_user_ca_keys = [{authorities:?}]\n{more_ssh}");
        Self { device: Device::start_in(folder, &owner, &more, ""), sshd }
    }

    /// Both have one line of authorized_keys: these options, and the key of `ca`.
    fn with_line(options: &str) -> Self {
        let (folder, owner) = new_keys();
        let lines = folder.path().join("lines");
        fs::write(&lines, format!("{options} {}\n", public(folder.path(), "ca"))).unwrap();
        let sshd = Sshd::start(folder.path(), &format!("AuthorizedKeysFile {}", lines.display()));
        let more = format!("authorized_keys_file = [{lines:?}]");
        Self { device: Device::start_in(folder, &owner, &more, ""), sshd }
    }

    fn folder(&self) -> &Path {
        self.device.folder.path()
    }

    /// Makes a certificate of the key `user`.
    fn sign(&self, authority: &str, arguments: &[&str]) -> PathBuf {
        let (key, made) = (self.folder().join("user.pub"), self.folder().join("user-cert.pub"));
        let authority = self.folder().join(authority).display().to_string();
        keygen(&[&["-q", "-s", &authority, "-I", "a \"b\" c", "-z", "42"], arguments].concat(), &key);
        made
    }

    /// What both answer to the command; they must agree.
    #[track_caller]
    fn answer(&self, certificate: &Path, options: &[&str], command: &str) -> Output {
        let ours = login(self.device.port, &self.folder().join("user"), certificate, options, command);
        if let Some(sshd) = &self.sshd {
            let reference = login(sshd.port, &self.folder().join("user"), certificate, options, command);
            let said = fs::read_to_string(self.folder().join("sshd.log")).unwrap();
            assert_eq!(ours.status.code(), reference.status.code(), "{ours:?}, sshd: {reference:?}: {said}");
            assert_eq!(text(&ours.stdout), text(&reference.stdout));
        }
        ours
    }

    #[track_caller]
    fn lets_in(&self, certificate: &Path) {
        let output = self.answer(certificate, &[], "echo in");
        assert_eq!(text(&output.stdout), "in\n", "{output:?}");
    }

    #[track_caller]
    fn refuse_terminal(&self, certificate: &Path) {
        self.lets_in(certificate);
        let output = self.answer(certificate, &["-tt"], "tty");
        assert!(text(&output.stderr).contains("PTY allocation request failed"), "{output:?}");
    }

    #[track_caller]
    fn refuse(&self, certificate: &Path, reason: &str) {
        // The log names a source once a second.
        std::thread::sleep(Duration::from_millis(1100));
        let output = self.answer(certificate, &[], "echo in");
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        assert!(text(&output.stderr).contains("Permission denied (publickey"), "{output:?}");
        assert!(self.device.log().contains(reason), "{reason}: {}", self.device.log());
    }
}

fn login(port: u16, key: &Path, certificate: &Path, options: &[&str], command: &str) -> Output {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]).args(options);
    ssh.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ]);
    ssh.arg("-i").arg(key).arg("-o").arg(format!("CertificateFile={}", certificate.display()));
    ssh.args(["-p", &port.to_string(), "root@127.0.0.1", command]);
    ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_certificate_lets_in_whom_it_names_and_nobody_else() {
    let both = Servers::that_trust_the_authorities("");
    both.lets_in(&both.sign("ca", &["-n", "root", "-V", "+1h"]));
    let log = both.device.log();
    assert!(log.contains(r#"certificate="a \\\"b\\\" c""#) && log.contains("serial=42"), "{log}");
    both.lets_in(&both.sign("rsa_ca", &["-n", "ada,root"]));
    both.lets_in(&both.sign("ca", &["-n", "root", "-O", "source-address=10.0.0.0/8,127.0.0.1/32"]));

    both.refuse(&both.sign("ca", &["-n", "ada"]), "none of its principals");
    both.refuse(&both.sign("ca", &[]), "none of its principals");
    both.refuse(&both.sign("other_ca", &["-n", "root"]), "is not trusted");
    both.refuse(
        &both.sign("ca", &["-n", "root", "-O", "critical:x@y=1"]),
        "a critical option that is unknown",
    );
    both.refuse(&both.sign("ca", &["-n", "root", "-O", "source-address=10.0.0.0/8"]), "this address");
    both.refuse(&both.sign("rsa_ca", &["-n", "root", "-t", "ssh-rsa"]), "not secure any more");
    both.refuse(&both.sign("ca", &["-n", "root", "-V", "-2h:-1h"]), "");
    both.refuse(&both.sign("ca", &["-n", "root", "-V", "+1h:+2h"]), "");
    // The authority itself is nobody.
    let user = both.folder().join("user");
    fs::copy(both.folder().join("ca"), &user).unwrap();
    both.refuse(Path::new("/nonexistent"), "key not authorized");
    both.device.assert_reachable();
}

/// OpenSSH's client does not even offer a certificate that is for a host.
#[test]
fn paramiko_shows_certificates_too() {
    let both = Servers::that_trust_the_authorities("");
    let program = "
import paramiko, sys
port, key, certificate = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(key)
key.load_certificate(certificate)
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect('127.0.0.1', int(port), 'root', pkey=key, look_for_keys=False, allow_agent=False)
print(client.exec_command('echo in')[1].read().decode(), end='')
";
    let log_in = |certificate: &Path| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-W", "ignore", "-c", program, &both.device.port.to_string()]);
        let output = python.arg(both.folder().join("user")).arg(certificate).output().unwrap();
        text(&[output.stdout, output.stderr].concat())
    };
    let said = log_in(&both.sign("ca", &["-n", "root"]));
    assert_eq!(said, "in\n", "paramiko is installed (apt install python3-paramiko): {}", both.device.log());
    let said = log_in(&both.sign("ca", &["-h", "-n", "root"]));
    assert!(said.contains("AuthenticationException"), "{said}");
    assert!(both.device.log().contains("is for a host"), "{}", both.device.log());
}

#[test]
fn a_certificate_may_do_what_it_says() {
    let both = Servers::that_trust_the_authorities("");
    let forced =
        both.sign("ca", &["-n", "root", "-O", "force-command=echo \"$SSH_ORIGINAL_COMMAND\" forced"]);
    assert_eq!(text(&both.answer(&forced, &[], "id").stdout), "id forced\n");
    let plain = both.sign("ca", &["-n", "root"]);
    assert!(text(&both.answer(&plain, &["-tt"], "test -t 0 && echo terminal").stdout).contains("terminal"));
    both.refuse_terminal(&both.sign("ca", &["-n", "root", "-O", "clear"]));
}

#[test]
fn a_line_of_an_authority_says_for_whom_and_takes_away() {
    let both = Servers::with_line("cert-authority,principals=\"ops,dev\",no-pty");
    both.lets_in(&both.sign("ca", &["-n", "ops"]));
    both.refuse_terminal(&both.sign("ca", &["-n", "dev"]));
    both.refuse(&both.sign("ca", &["-n", "root"]), "none of its principals");

    let both = Servers::with_line("cert-authority,command=\"echo line\"");
    let plain = both.sign("ca", &["-n", "root"]);
    assert_eq!(text(&both.answer(&plain, &[], "id").stdout), "line\n");
    both.refuse(&both.sign("ca", &["-n", "root", "-O", "force-command=echo other"]), "different commands");
    both.refuse(&both.sign("ca", &["-n", "ada"]), "none of its principals");
    both.refuse(&both.sign("other_ca", &["-n", "root"]), "is not trusted");

    let both = Servers::with_line("cert-authority,from=\"10.0.0.0/8\"");
    both.refuse(&both.sign("ca", &["-n", "root"]), "from= does not allow");
}

#[test]
fn principals_may_stand_for_roles() {
    let mut both = Servers::that_trust_the_authorities("authorized_principals = [\"ops\"]");
    both.sshd = None;
    both.lets_in(&both.sign("ca", &["-n", "ops"]));
    both.refuse(&both.sign("ca", &["-n", "root"]), "none of its principals");
    let listed = text(&both.device.myelin(&["keys", "list"]).stdout);
    assert!(listed.contains("[cert-authority]") && listed.contains("authorities:2"), "{listed}");
}

#[test]
fn many_keys_without_a_certificate_do_not_keep_the_right_one_out() {
    let both = Servers::that_trust_the_authorities("");
    let mut options = Vec::new();
    for number in 0..8 {
        let path = both.folder().join(format!("wrong{number}"));
        new_key(&path);
        options.extend(["-i".to_owned(), path.display().to_string()]);
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let owner = both.folder().join("key");
    let output = login(both.device.port, &owner, Path::new("/nonexistent"), &options, "echo in");
    assert_eq!(text(&output.stdout), "in\n", "{output:?}\n{}", both.device.log());
}

#[test]
fn a_host_certificate_is_shown_to_those_who_trust_its_authority() {
    let (folder, owner) = new_keys();
    let certificate = folder.path().join("host-cert.pub");
    let more = format!("host_certificate = [{certificate:?}]");
    let device = Device::start_in(folder, &owner, &more, "");
    assert!(device.log().contains("host certificate not used"), "{}", device.log());
    let known = device.path("known_hosts");
    fs::write(&known, format!("@cert-authority * {}\n", public(device.folder.path(), "ca"))).unwrap();
    let trusts = || {
        let known = format!("UserKnownHostsFile={}", known.display());
        let mut ssh = device.ssh_with(&["-o", "StrictHostKeyChecking=yes", "-o", &known]);
        ssh.arg("true").stdin(Stdio::null()).output().unwrap().status.success()
    };
    let reload_with = |arguments: &[&str]| {
        let key = device.path("state/ssh/ssh_host_ed25519_key.pub");
        let authority = device.path("ca").display().to_string();
        keygen(&[&["-q", "-s", &authority, "-I", "board"], arguments].concat(), &key);
        let made = device.path("state/ssh/ssh_host_ed25519_key-cert.pub");
        fs::rename(made, &certificate).unwrap();
        let before = device.log().matches("configuration read again").count();
        signal(device.daemon.id(), "HUP");
        wait_until("it is read", || device.log().matches("configuration read again").count() > before);
    };
    assert!(!trusts());
    reload_with(&["-h", "-n", "127.0.0.1"]);
    assert!(trusts(), "{}", device.log());
    reload_with(&["-h", "-n", "other"]);
    assert!(!trusts());
    for (arguments, reason) in
        [(&["-n", "127.0.0.1"][..], "it is for a user"), (&["-h", "-V", "-2h:-1h"], "it has expired")]
    {
        reload_with(arguments);
        assert!(device.log().contains(reason), "{}", device.log());
        assert!(!trusts());
        // Who knows the key needs no certificate.
        device.assert_reachable();
    }
}
