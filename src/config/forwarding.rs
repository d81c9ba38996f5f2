//! Forwarding: which ways are open, and where they may lead (sshd_config(5), `PermitOpen`, `PermitListen`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::values::pattern_matches;

/// Which ways are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    No,
    /// Those that begin at the client (`ssh -L`).
    Local,
    /// Those that begin here (`ssh -R`).
    Remote,
    #[serde(alias = "yes")]
    All,
}

impl Forwarding {
    pub fn local(self) -> bool {
        matches!(self, Self::Local | Self::All)
    }

    pub fn remote(self) -> bool {
        matches!(self, Self::Remote | Self::All)
    }
}

/// Who may connect to what a client has us listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayPorts {
    /// Only this device.
    No,
    /// Everybody.
    Yes,
    /// Whom the client says.
    ClientSpecified,
}

/// Whether one of the patterns is for this socket of the file system. `*` and `?` match within one folder, and a
/// path must be plain: `..` would lead out of a pattern.
pub fn socket_is_permitted(patterns: &[String], path: &str) -> bool {
    let is_plain = |path: &str| {
        path.len() <= MAX_SOCKET_PATH
            && path.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
            })
    };
    let matches = |pattern: &String| {
        pattern.split('/').count() == path.split('/').count()
            && pattern.split('/').zip(path.split('/')).all(|(pattern, name)| pattern_matches(pattern, name))
    };
    is_plain(path) && patterns.iter().any(matches)
}

/// `HOST:PORT`, or the words `any` and `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permit {
    host: Host,
    /// `None` is any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Nobody,
    Anybody,
    /// `PORT` alone.
    Unsaid,
    /// `localhost`, which is both addresses.
    Loopback,
    Address(IpAddr),
    Block(Block),
    /// What a client may ask for by this name, wherever it leads; `*` and `?` as elsewhere.
    Name(String),
}

impl Permit {
    /// The loopback addresses, any port.
    pub fn loopback() -> Vec<Self> {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
            .map(|address| Self { host: Host::Address(address), port: None })
            .to_vec()
    }

    /// Any address, any port.
    pub fn anything() -> Self {
        Self { host: Host::Anybody, port: None }
    }

    /// Whether it says for which host it is; for listening it need not.
    pub fn names_a_host(&self) -> bool {
        self.host != Host::Unsaid
    }

    /// Whether it is for this address and port, which a client may have asked for by `name`.
    ///
    /// A rule for addresses looks at the address alone: no name leads around it.
    pub fn matches(&self, name: Option<&str>, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        let host = match &self.host {
            Host::Nobody => false,
            Host::Anybody | Host::Unsaid => true,
            Host::Loopback => address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST,
            Host::Address(permitted) => *permitted == address,
            Host::Block(block) => block.contains(address),
            Host::Name(pattern) => name.is_some_and(|name| {
                pattern_matches(pattern, name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().as_str())
            }),
        };
        host && self.port.is_none_or(|permitted| permitted == port)
    }
}

impl TryFrom<String> for Permit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let all = |host| Ok(Self { host, port: None });
        match text.as_str() {
            "any" => return all(Host::Anybody),
            "none" => return all(Host::Nobody),
            _ => {}
        }
        let wrong = || format!("`{text}` is not HOST:PORT (an IPv6 address in brackets, `*` for any)");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (Host::parse(host).ok_or_else(wrong)?, port),
            None => (Host::Unsaid, text.as_str()),
        };
        let port = match port {
            "*" => None,
            number => Some(number.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        };
        Ok(Self { host, port })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(v6) = text.strip_prefix('[') {
            let v6 = v6.strip_suffix(']')?;
            return match v6.parse::<Ipv6Addr>() {
                Ok(address) => Some(Self::Address(IpAddr::from(address).to_canonical())),
                Err(_) => Block::parse(v6).map(Self::Block),
            };
        }
        if text == "*" {
            return Some(Self::Anybody);
        }
        if text.eq_ignore_ascii_case("localhost") {
            return Some(Self::Loopback);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        if text.contains('/') {
            return Block::parse(text).map(Self::Block);
        }
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.*?".contains(c);
        // `10.*` would be a pattern for names: whoever writes it means a block.
        let is_name = text.len() <= MAX_NAME
            && text.chars().all(letters)
            && text.chars().any(|c| c.is_ascii_alphabetic());
        is_name.then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Nobody => return f.write_str("none"),
            Host::Anybody => f.write_str("*:")?,
            Host::Unsaid => {}
            Host::Loopback => f.write_str("localhost:")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Host::Address(address) => write!(f, "{address}:")?,
            Host::Block(block) if block.to_string().contains(':') => write!(f, "[{block}]:")?,
            Host::Block(block) => write!(f, "{block}:")?,
            Host::Name(name) => write!(f, "{name}:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("*"),
        }
    }
}

impl From<Permit> for String {
    fn from(permit: Permit) -> Self {
        permit.to_string()
    }
}

/// What sun_path of unix(7) holds, with its zero byte.
const MAX_SOCKET_PATH: usize = 107;
/// The longest name of DNS.
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(rule: &str, name: Option<&str>, address: &str, port: u16) -> bool {
        Permit::try_from(rule.to_owned()).unwrap().matches(name, address.parse().unwrap(), port)
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "127.0.0.1:*",
            "[::1]:22",
            "10.0.0.0/8:80",
            "[fd00::/8]:*",
            "db.lan:5432",
            "*.lan:*",
            "localhost:1",
            "*:*",
            "none",
            "8080",
            "*",
        ] {
            assert_eq!(Permit::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        assert_eq!(Permit::try_from("any".to_owned()).unwrap().to_string(), "*:*");
        for text in [
            "",
            "host",
            "::1:22",
            "[::1]",
            "[::1:22",
            "a b:1",
            "10.*:80",
            "h:0",
            "h:65536",
            "h:",
            ":1",
            "10.0.0.1/8:1",
            "h:1-9",
        ] {
            assert!(Permit::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_permitted_whatever_they_are_called() {
        assert!(permits("127.0.0.1:*", Some("anything"), "127.0.0.1", 1));
        assert!(permits("127.0.0.1:*", None, "::ffff:127.0.0.1", 1));
        assert!(permits("localhost:80", None, "::1", 80) && permits("localhost:80", None, "127.0.0.1", 80));
        assert!(permits("[fd00::/8]:22", None, "fd12::1", 22));
        for (rule, name, address, port) in [
            ("127.0.0.1:*", Some("localhost"), "10.0.0.1", 1),
            ("localhost:80", Some("localhost"), "10.0.0.1", 80),
            ("localhost:80", None, "::1", 81),
            ("10.0.0.0/8:80", Some("10.0.0.1"), "11.0.0.1", 80),
            ("127.0.0.1:*", None, "0.0.0.0", 80),
            ("none", None, "127.0.0.1", 1),
        ] {
            assert!(!permits(rule, name, address, port), "{rule} {address}");
        }
    }

    #[test]
    fn sockets_are_permitted_within_one_folder() {
        let patterns = ["/run/app/*.sock".to_owned(), "/run/one".to_owned()];
        for path in ["/run/app/a.sock", "/run/one"] {
            assert!(socket_is_permitted(&patterns, path), "{path}");
        }
        for path in
            ["/run/app/b/a.sock", "/run/app/../a.sock", "/run/two", "run/one", "/run//one", "/run/one/", ""]
        {
            assert!(!socket_is_permitted(&patterns, path), "{path}");
        }
        let all = ["/run/*/*/*".to_owned()];
        assert!(socket_is_permitted(&all, "/run/a/b/c") && !socket_is_permitted(&all, "/run/a/../c"));
    }

    #[test]
    fn names_are_permitted_wherever_they_lead() {
        assert!(permits("db.lan:5432", Some("DB.lan."), "10.9.9.9", 5432));
        assert!(permits("*.lan:*", Some("a.lan"), "10.9.9.9", 1));
        assert!(!permits("db.lan:5432", None, "10.9.9.9", 5432), "the address alone is not its name");
        assert!(!permits("db.lan:5432", Some("db.lan.example"), "10.9.9.9", 5432));
    }
}
