//! The system's ssh: its command line.

mod messages;
mod process;

use std::ffi::OsString;
use std::process::Command;

pub use messages::trouble;

use super::options::SshOptions;
use super::target::Target;

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
}
