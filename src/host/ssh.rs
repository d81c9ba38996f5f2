//! The system's ssh: its command line, and what its exit and its messages mean.
//!
//! ssh exits 255 for everything that is its own trouble; which trouble it was stands only in its messages,
//! in English under `LC_ALL=C`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::target::Target;

/// Options that go to ssh as they are.
#[derive(Debug, Default, clap::Args)]
pub struct SshOptions {
    /// ssh: a configuration file instead of ~/.ssh/config.
    #[arg(short = 'F', value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// ssh: the port.
    #[arg(short = 'p', long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// ssh: a private key; may be repeated.
    #[arg(short = 'i', value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// ssh: the user name.
    #[arg(short = 'l', value_name = "USER")]
    login: Option<String>,
    /// ssh: go through these hosts.
    #[arg(short = 'J', value_name = "HOSTS")]
    jump: Option<String>,
    /// ssh: an option as in ssh_config(5); may be repeated.
    #[arg(short = 'o', value_name = "NAME=VALUE")]
    option: Vec<String>,
}

/// How to reach one device.
#[derive(Debug)]
pub struct Ssh {
    args: Vec<OsString>,
    target: Target,
}

impl Ssh {
    pub fn new(options: &SshOptions, target: Target) -> Self {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| args.extend([name.into(), value]);
        if let Some(path) = &options.config_file {
            add("-F", path.into());
        }
        if let Some(port) = target.port.or(options.port) {
            add("-p", port.to_string().into());
        }
        options.identity.iter().for_each(|path| add("-i", path.into()));
        if let Some(user) = options.login.as_ref().filter(|_| target.user.is_none()) {
            add("-l", user.into());
        }
        if let Some(hosts) = &options.jump {
            add("-J", hosts.into());
        }
        options.option.iter().for_each(|option| add("-o", option.into()));
        Self { args, target }
    }

    /// The device is at this address, and still the one that goes by its name: in ~/.ssh/config and in known_hosts.
    pub fn at(mut self, address: &str) -> Self {
        // ssh looks for %h and the like in it.
        let address = address.replace('%', "%%");
        for option in [format!("HostName={address}"), format!("HostKeyAlias={}", self.target.host)] {
            self.args.extend(["-o".into(), option.into()]);
        }
        self
    }

    /// `ssh … -s HOST NAME`. ssh takes the first value of an option, so the user's own come before ours.
    pub fn subsystem(&self, name: &str, ours: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(&self.args);
        for option in ours.iter().chain(OPTIONS) {
            command.args(["-o", option]);
        }
        command.args(["-T", "-s", "--"]).arg(self.target.destination()).arg(name);
        // Build tools set it for their own libraries, and ssh breaks on those.
        command.env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C");
        command
    }
}

/// What every connection of ours wants: messages that can be read, and none of the extras that a
/// configuration may add to interactive logins.
const OPTIONS: &[&str] = &[
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=40",
    "LogLevel=INFO",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
];

/// Why ssh itself gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not understand its own command line or configuration.
    Usage,
    /// No connection came about.
    Connect,
    /// The device does not take our key, or we do not take its.
    Authentication,
    /// The device has no such subsystem, or not for this key.
    NoSubsystem,
    /// The connection was there and broke.
    Lost,
}

/// Finds the trouble in ssh's messages. The first rule that fits wins: with a jump host the messages of
/// two connections come together, and the cause is the more special one.
pub fn trouble(messages: &str) -> Option<Trouble> {
    const RULES: &[(&str, Trouble)] = &[
        ("subsystem request failed", Trouble::NoSubsystem),
        ("Permission denied (", Trouble::Authentication),
        ("Too many authentication failures", Trouble::Authentication),
        ("Host key verification failed", Trouble::Authentication),
        ("HOST IDENTIFICATION HAS CHANGED", Trouble::Authentication),
        ("No supported authentication methods", Trouble::Authentication),
        ("Bad configuration option", Trouble::Usage),
        ("command-line: line", Trouble::Usage),
        ("command-line line", Trouble::Usage),
        ("usage: ssh", Trouble::Usage),
        ("Can't open user config file", Trouble::Usage),
        ("Bad owner or permissions on", Trouble::Usage),
        ("closed by remote host", Trouble::Lost),
        ("send disconnect", Trouble::Lost),
        ("not responding", Trouble::Lost),
        ("Read from remote host", Trouble::Lost),
        ("Write failed", Trouble::Lost),
        ("Could not resolve hostname", Trouble::Connect),
        ("connect to host", Trouble::Connect),
        ("kex_exchange_identification", Trouble::Connect),
        ("ssh_exchange_identification", Trouble::Connect),
        ("banner exchange", Trouble::Connect),
        ("Unable to negotiate", Trouble::Connect),
        ("Connection closed by", Trouble::Connect),
        ("Connection reset by", Trouble::Connect),
        ("Connection timed out", Trouble::Connect),
        ("Connection refused", Trouble::Connect),
    ];
    RULES.iter().find(|(text, _)| messages.contains(text)).map(|(_, trouble)| *trouble)
}

/// The status with which ssh tells of its own trouble.
pub fn is_ssh_own(status: ExitStatus) -> bool {
    status.code() == Some(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn options_of_the_user_come_before_ours() {
        let options = SshOptions {
            port: Some(2222),
            login: Some("root".into()),
            option: vec!["ConnectTimeout=3".into()],
            ..Default::default()
        };
        let ssh = Ssh::new(&options, "dev".parse().unwrap());
        let words = words(&ssh.subsystem("fwup", &[]));
        let place = |text: &str| words.iter().position(|word| word == text).unwrap();
        assert!(place("ConnectTimeout=3") < place("ConnectTimeout=10"));
        assert_eq!(words[..4], ["-p", "2222", "-l", "root"]);
        assert_eq!(words[words.len() - 4..], ["-s", "--", "dev", "fwup"]);
    }

    #[test]
    fn what_the_host_names_wins_over_the_options() {
        let options = SshOptions { port: Some(1), login: Some("no".into()), ..Default::default() };
        let words = words(&Ssh::new(&options, "ssh://me@dev:2".parse().unwrap()).subsystem("fwup", &[]));
        assert_eq!(words[..2], ["-p", "2"]);
        assert!(!words.contains(&"no".to_owned()));
        assert!(words.contains(&"me@dev".to_owned()));
    }

    #[test]
    fn an_address_that_was_found_comes_after_the_options_of_the_user() {
        let options = SshOptions { option: vec!["HostKeyAlias=mine".into()], ..Default::default() };
        let ssh = Ssh::new(&options, "box.local".parse().unwrap()).at("fe80::1%eth0");
        let words = words(&ssh.subsystem("fwup", &[]));
        let place = |text: &str| words.iter().position(|word| word == text).unwrap();
        assert!(place("HostKeyAlias=mine") < place("HostKeyAlias=box.local"));
        assert!(words.contains(&"HostName=fe80::1%%eth0".to_owned()));
        assert_eq!(words[words.len() - 2..], ["box.local", "fwup"]);
    }

    #[test]
    fn messages_of_openssh_are_told_apart() {
        for (text, expected) in [
            ("root@dev: Permission denied (publickey).", Trouble::Authentication),
            ("Host key verification failed.", Trouble::Authentication),
            (
                "Received disconnect from ::1 port 22:2: Too many authentication failures",
                Trouble::Authentication,
            ),
            ("ssh: connect to host 127.0.0.1 port 1: Connection refused", Trouble::Connect),
            ("ssh: Could not resolve hostname x: Name or service not known", Trouble::Connect),
            ("ssh: connect to host 10.255.255.1 port 22: Connection timed out", Trouble::Connect),
            ("kex_exchange_identification: read: Connection reset by peer", Trouble::Connect),
            ("Connection timed out during banner exchange", Trouble::Connect),
            ("subsystem request failed on channel 0", Trouble::NoSubsystem),
            ("Connection to dev closed by remote host.", Trouble::Lost),
            ("client_loop: send disconnect: Broken pipe", Trouble::Lost),
            ("Timeout, server dev not responding.", Trouble::Lost),
            ("command-line: line 0: Bad configuration option: frob", Trouble::Usage),
        ] {
            assert_eq!(trouble(text), Some(expected), "{text}");
        }
        assert_eq!(trouble("Warning: Permanently added 'dev' (ED25519) to the list of known hosts."), None);
    }
}
