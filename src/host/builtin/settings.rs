//! What the command line means for the built-in client: the names of ssh_config(5), as far as it knows them.
//!
//! Nothing else is read. An option that would be ignored is refused: it may be one that protects somebody.

use std::env;
use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::host::options::SshOptions;
use crate::host::target::{Target, TargetError};

/// Everything that a connection goes by.
#[derive(Debug)]
pub struct Settings {
    /// The jump hosts in order, and then the device.
    pub route: Vec<Hop>,
    pub connect_timeout: Duration,
    pub alive_interval: Duration,
    pub alive_count: usize,
    /// Private keys, and whether the user has named them.
    pub identities: Vec<PathBuf>,
    pub identities_named: bool,
    pub identities_only: bool,
    pub agent: Option<PathBuf>,
    /// The first is the one that is written to.
    pub known_hosts: Vec<PathBuf>,
    pub global_known_hosts: Vec<PathBuf>,
    pub strict: Strict,
    /// Nobody is asked for anything.
    pub batch: bool,
    /// Warnings are not shown.
    pub quiet: bool,
    /// In the order in which they are tried.
    pub methods: Vec<Method>,
    pub password_prompts: usize,
    pub password_file: Option<PathBuf>,
    pub passphrase_file: Option<PathBuf>,
}

/// One machine on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub user: String,
    /// Where it is.
    pub host: String,
    pub port: u16,
    /// What it is called in known_hosts, if that is another name.
    pub alias: Option<String>,
}

/// `StrictHostKeyChecking`: what becomes of a host whose key is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strict {
    Yes,
    Ask,
    AcceptNew,
    No,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    PublicKey,
    KeyboardInteractive,
    Password,
}

#[derive(Debug, Error)]
pub enum SettingsError {
    #[error(
        "the built-in client reads no configuration of ssh (-F {0}): give what it needs as options, or leave --builtin away where ssh is installed"
    )]
    ConfigFile(String),
    #[error("the built-in client does not know the option {name}; it understands {}", OPTIONS.join(", "))]
    Unknown { name: String },
    #[error("-o {name}={value}: {expected}")]
    Value { name: String, value: String, expected: &'static str },
    #[error("jump host {hop}: {source}")]
    Jump { hop: String, source: TargetError },
}

/// The options that `-o` may name.
const OPTIONS: &[&str] = &[
    "BatchMode",
    "ConnectTimeout",
    "GlobalKnownHostsFile",
    "HostKeyAlias",
    "HostName",
    "IdentitiesOnly",
    "IdentityAgent",
    "IdentityFile",
    "IdentityPassphraseFile",
    "KbdInteractiveAuthentication",
    "LogLevel",
    "NumberOfPasswordPrompts",
    "PasswordAuthentication",
    "Port",
    "PreferredAuthentications",
    "ProxyJump",
    "PubkeyAuthentication",
    "ServerAliveCountMax",
    "ServerAliveInterval",
    "StrictHostKeyChecking",
    "User",
    "UserKnownHostsFile",
];

/// Who logs in when nobody is named: firmware is root's.
const DEFAULT_USER: &str = "root";
/// A day.
const MAX_SECONDS: u64 = 24 * 3600;
/// So often nothing is tried.
const MAX_COUNT: u64 = 1000;
/// More machines on the way than anybody has.
const MAX_JUMPS: usize = 16;

impl Settings {
    /// `address` is where the device was found, if it was looked for.
    pub fn new(options: &SshOptions, target: &Target, address: Option<&str>) -> Result<Self, SettingsError> {
        match &options.config_file {
            Some(path) if path != Path::new("none") => {
                return Err(SettingsError::ConfigFile(path.display().to_string()));
            }
            _ => {}
        }
        let given = Given::parse(&options.option)?;
        let home = env::home_dir().unwrap_or_else(|| "/".into());
        let path = |value: &str| expand(value, &home);
        let paths = |name: &str, default: &'static str| {
            let value = given.text(name).unwrap_or(default);
            value.split_whitespace().filter(|value| *value != "none").map(path).collect::<Vec<_>>()
        };
        let seconds = |name: &str, least: u64, default: u64| {
            given
                .number(name, least..=MAX_SECONDS)
                .map(|number| Duration::from_secs(number.unwrap_or(default)))
        };
        let count = |name: &str, default: usize| {
            given.number(name, 1..=MAX_COUNT).map(|number| number.map_or(default, |number| number as usize))
        };
        // What can be wrong comes first, before there is much to be thrown away.
        let connect_timeout = seconds("ConnectTimeout", 1, 10)?;
        let alive_interval = seconds("ServerAliveInterval", 0, 15)?;
        let alive_count = count("ServerAliveCountMax", 40)?;
        let password_prompts = count("NumberOfPasswordPrompts", 3)?;
        let identities_only = given.flag("IdentitiesOnly", false)?;
        let batch = given.flag("BatchMode", false)?;
        let strict = strict(&given)?;
        let methods = methods(&given)?;
        let route = route(options, &given, target, address)?;
        let mut identities: Vec<PathBuf> = options.identity.clone();
        let mut identities_named = !identities.is_empty();
        for (_, value) in given.0.iter().filter(|(name, _)| *name == "IdentityFile") {
            identities_named = true;
            identities.extend(Some(value.as_str()).filter(|value| *value != "none").map(path));
        }
        if !identities_named {
            identities = DEFAULT_IDENTITIES.iter().map(|value| path(value)).collect();
        }
        let quiet =
            given.text("LogLevel").is_some_and(|level| is_one_of(level, &["quiet", "fatal", "error"]));
        let passphrase_file = given.text("IdentityPassphraseFile").map(path);
        Ok(Self {
            route,
            connect_timeout,
            alive_interval,
            alive_count,
            identities,
            identities_named,
            identities_only,
            agent: agent(given.text("IdentityAgent")).map(|value| path(&value)),
            known_hosts: paths("UserKnownHostsFile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
            global_known_hosts: paths(
                "GlobalKnownHostsFile",
                "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
            ),
            strict,
            batch,
            quiet,
            methods,
            password_prompts,
            password_file: options.password_file.clone(),
            passphrase_file: options.passphrase_file.clone().or(passphrase_file),
        })
    }
}

/// What ssh looks for, less what nothing here can sign with.
const DEFAULT_IDENTITIES: &[&str] = &["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"];

fn route(
    options: &SshOptions,
    given: &Given,
    target: &Target,
    address: Option<&str>,
) -> Result<Vec<Hop>, SettingsError> {
    let port = given.number("Port", 1..=u64::from(u16::MAX))?.and_then(|port| u16::try_from(port).ok());
    let name = given.text("HostName").map(|name| name.replace("%h", &target.host).replace("%%", "%"));
    let alias = given.text("HostKeyAlias").map(str::to_owned);
    let device = Hop {
        user: [&target.user, &options.login, &given.text("User").map(str::to_owned)]
            .into_iter()
            .find_map(Clone::clone)
            .unwrap_or_else(|| DEFAULT_USER.into()),
        host: name.or_else(|| address.map(str::to_owned)).unwrap_or_else(|| target.host.clone()),
        port: target.port.or(options.port).or(port).unwrap_or(22),
        alias: alias.or_else(|| address.map(|_| target.host.clone())),
    };
    let jumps = options.jump.as_deref().or(given.text("ProxyJump")).filter(|hosts| *hosts != "none");
    if let Some(hosts) = jumps.filter(|hosts| hosts.split(',').count() > MAX_JUMPS) {
        let (name, value) = ("ProxyJump".to_owned(), hosts.to_owned());
        return Err(SettingsError::Value { name, value, expected: "at most 16 jump hosts" });
    }
    let hosts = jumps.into_iter().flat_map(|hosts| hosts.split(','));
    let mut route = hosts.map(jump).collect::<Result<Vec<_>, _>>()?;
    route.push(device);
    Ok(route)
}

/// `user@host:port` or a URI.
fn jump(text: &str) -> Result<Hop, SettingsError> {
    let uri = if text.starts_with("ssh://") { text.to_owned() } else { format!("ssh://{text}") };
    let target: Target =
        uri.parse().map_err(|source| SettingsError::Jump { hop: text.to_owned(), source })?;
    Ok(Hop {
        user: target.user.unwrap_or_else(|| DEFAULT_USER.into()),
        host: target.host,
        port: target.port.unwrap_or(22),
        alias: None,
    })
}

fn agent(option: Option<&str>) -> Option<String> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    match option {
        None | Some("SSH_AUTH_SOCK") => variable("SSH_AUTH_SOCK"),
        Some("none") => None,
        Some(value) => match value.strip_prefix('$') {
            Some(name) => variable(name.trim_matches(['{', '}'])),
            None => Some(value.to_owned()),
        },
    }
}

fn methods(given: &Given) -> Result<Vec<Method>, SettingsError> {
    let names = given.text("PreferredAuthentications").unwrap_or("publickey,keyboard-interactive,password");
    let mut methods = Vec::new();
    for name in names.split(',') {
        let (method, switch) = match name.trim() {
            "publickey" => (Method::PublicKey, "PubkeyAuthentication"),
            "keyboard-interactive" => (Method::KeyboardInteractive, "KbdInteractiveAuthentication"),
            "password" => (Method::Password, "PasswordAuthentication"),
            // Those that ssh has besides: nobody can log in here by them.
            _ => continue,
        };
        if given.flag(switch, true)? {
            methods.push(method);
        }
    }
    Ok(methods)
}

/// The options of `-o`. Of two values for one name the first counts, as with ssh.
struct Given(Vec<(&'static str, String)>);

impl Given {
    fn parse(options: &[String]) -> Result<Self, SettingsError> {
        let mut given = Vec::new();
        for option in options {
            let (name, value) = option
                .split_once('=')
                .or_else(|| option.split_once(char::is_whitespace))
                .unwrap_or((option, ""));
            let name = name.trim();
            let Some(known) = OPTIONS.iter().find(|known| known.eq_ignore_ascii_case(name)) else {
                return Err(SettingsError::Unknown { name: name.to_owned() });
            };
            let value = value.trim().trim_matches('"');
            if value.is_empty() {
                return Err(bad(known, value, "a value is missing"));
            }
            given.push((*known, value.to_owned()));
        }
        Ok(Self(given))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A whole number of this range.
    fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SettingsError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad(name, value, "this is no whole number, or none that makes sense")),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, SettingsError> {
        match self.text(name) {
            None => Ok(default),
            Some(value) if is_one_of(value, &["yes", "true"]) => Ok(true),
            Some(value) if is_one_of(value, &["no", "false"]) => Ok(false),
            Some(value) => Err(bad(name, value, "yes or no")),
        }
    }
}

fn bad(name: &str, value: &str, expected: &'static str) -> SettingsError {
    SettingsError::Value { name: name.to_owned(), value: value.to_owned(), expected }
}

fn is_one_of(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn strict(given: &Given) -> Result<Strict, SettingsError> {
    const NAME: &str = "StrictHostKeyChecking";
    match given.text(NAME) {
        None => Ok(Strict::Ask),
        Some(value) if is_one_of(value, &["yes", "true"]) => Ok(Strict::Yes),
        Some(value) if is_one_of(value, &["no", "false", "off"]) => Ok(Strict::No),
        Some(value) if is_one_of(value, &["ask"]) => Ok(Strict::Ask),
        Some(value) if is_one_of(value, &["accept-new"]) => Ok(Strict::AcceptNew),
        Some(value) => Err(bad(NAME, value, "yes, ask, accept-new or no")),
    }
}

fn expand(value: &str, home: &Path) -> PathBuf {
    match value.strip_prefix("~/").or_else(|| value.strip_prefix("%d/")) {
        Some(rest) => home.join(rest),
        None => Path::new(OsStr::new(value)).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        options: &SshOptions,
        target: &str,
        address: Option<&str>,
    ) -> Result<Settings, SettingsError> {
        Settings::new(options, &target.parse().unwrap(), address)
    }

    fn with(options: &[&str]) -> Result<Settings, SettingsError> {
        let option = options.iter().map(ToString::to_string).collect();
        settings(&SshOptions { option, ..Default::default() }, "dev", None)
    }

    fn hop(user: &str, host: &str, port: u16, alias: Option<&str>) -> Hop {
        Hop { user: user.into(), host: host.into(), port, alias: alias.map(str::to_owned) }
    }

    #[test]
    fn names_are_known_in_any_case_and_the_first_value_counts() {
        let settings =
            with(&["port=2200", "PORT=2201", "user me", "STRICTHOSTKEYCHECKING=Accept-New"]).unwrap();
        assert_eq!(settings.route, [hop("me", "dev", 2200, None)]);
        assert_eq!(settings.strict, Strict::AcceptNew);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let text = with(&["ProxyCommand=nc %h %p"]).unwrap_err().to_string();
        assert!(text.contains("ProxyCommand") && text.contains("StrictHostKeyChecking"), "{text}");
        for option in ["ConnectTimeout=soon", "ConnectTimeout=0", "Port=99999", "BatchMode=maybe", "User="] {
            assert!(matches!(with(&[option]), Err(SettingsError::Value { .. })), "{option}");
        }
        let config = SshOptions { config_file: Some("/etc/x".into()), ..Default::default() };
        assert!(matches!(settings(&config, "dev", None), Err(SettingsError::ConfigFile(_))));
        let none = SshOptions { config_file: Some("none".into()), ..Default::default() };
        assert!(settings(&none, "dev", None).is_ok());
    }

    #[test]
    fn an_address_that_was_found_keeps_its_name() {
        let none = SshOptions::default();
        let found = settings(&none, "box.local", Some("fe80::1%eth0")).unwrap();
        assert_eq!(found.route, [hop("root", "fe80::1%eth0", 22, Some("box.local"))]);
        let option = vec!["HostKeyAlias=mine".into(), "HostName=other.%h".into()];
        let named = SshOptions { option, ..Default::default() };
        let named = settings(&named, "box", Some("10.0.0.5")).unwrap();
        assert_eq!(named.route, [hop("root", "other.box", 22, Some("mine"))]);
    }

    #[test]
    fn jump_hosts_come_first_in_their_order() {
        let jump = |hosts: &str| SshOptions {
            jump: Some(hosts.into()),
            login: Some("me".into()),
            ..Default::default()
        };
        let through = settings(&jump("a@one:2201,[fe80::1%eth0]:22,ssh://three"), "dev", None).unwrap();
        assert_eq!(
            through.route,
            [
                hop("a", "one", 2201, None),
                hop("root", "fe80::1%eth0", 22, None),
                hop("root", "three", 22, None),
                hop("me", "dev", 22, None)
            ]
        );
        assert_eq!(settings(&jump("none"), "dev", None).unwrap().route.len(), 1);
        assert!(matches!(settings(&jump("one,,two"), "dev", None), Err(SettingsError::Jump { .. })));
        assert!(matches!(settings(&jump("-x"), "dev", None), Err(SettingsError::Jump { .. })));
        assert_eq!(settings(&jump(&"x,".repeat(16)[..31]), "dev", None).unwrap().route.len(), 17);
        assert!(matches!(
            settings(&jump(&"x,".repeat(17)[..33]), "dev", None),
            Err(SettingsError::Value { .. })
        ));
    }

    #[test]
    fn methods_can_be_switched_off_and_ordered() {
        assert_eq!(
            with(&["PreferredAuthentications=password,hostbased,publickey"]).unwrap().methods,
            [Method::Password, Method::PublicKey]
        );
        let no_passwords = with(&["PasswordAuthentication=no", "KbdInteractiveAuthentication=no"]).unwrap();
        assert_eq!(no_passwords.methods, [Method::PublicKey]);
    }

    #[test]
    fn keys_that_are_named_replace_the_usual_ones() {
        assert_eq!(with(&[]).unwrap().identities.len(), 3);
        let named = with(&["IdentityFile=/a", "IdentityFile=/b"]).unwrap();
        assert_eq!(named.identities, [Path::new("/a"), Path::new("/b")]);
        assert!(with(&["IdentityFile=none"]).unwrap().identities.is_empty());
    }
}
