//! Which device: `host`, `user@host`, `ssh://user@host:port`, IPv6 literals with a zone.

use std::str::FromStr;

use thiserror::Error;

/// A device as the ssh program takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    #[error("the name of the device is empty; give one, such as nerves.local or root@10.0.0.5")]
    Empty,
    #[error("a name of a device holds no blanks or control characters and does not begin with a dash")]
    BadCharacter,
    #[error("the port after the colon is no number from 1 to 65535")]
    BadPort,
    #[error("HOST comes first: myelin upload HOST {0}")]
    File(String),
}

impl Target {
    /// `user@host`, the word that names the device on ssh's command line.
    pub fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri = text.strip_prefix("ssh://").map(|rest| rest.trim_end_matches('/'));
        let rest = uri.unwrap_or(text);
        // User names may hold an @ (such as user@realm), host names never do.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host, port) = match (rest.strip_prefix('['), uri) {
            (Some(bracketed), _) => {
                let (host, after) = bracketed.split_once(']').ok_or(TargetError::BadCharacter)?;
                (host, after.strip_prefix(':'))
            }
            (None, Some(_)) => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
            (None, None) => (rest, None),
        };
        // A URI writes the % before the zone as %25 (RFC 6874).
        let host = if uri.is_some() { host.replacen("%25", "%", 1) } else { host.to_owned() };
        for word in user.iter().chain([&host]) {
            if word.is_empty() {
                return Err(TargetError::Empty);
            }
            if word.starts_with('-') || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(TargetError::BadCharacter);
            }
        }
        if host.ends_with(".fw") && std::path::Path::new(text).is_file() {
            return Err(TargetError::File(host));
        }
        let port = match port {
            Some(digits) => Some(digits.parse().ok().filter(|port| *port > 0).ok_or(TargetError::BadPort)?),
            None => None,
        };
        Ok(Self { user, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> (Option<String>, String, Option<u16>) {
        let target: Target = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        (target.user, target.host, target.port)
    }

    #[test]
    fn every_form_that_users_write_is_understood() {
        let user = |name: &str| Some(name.to_owned());
        assert_eq!(target("nerves.local"), (None, "nerves.local".into(), None));
        assert_eq!(target("root@10.0.0.5"), (user("root"), "10.0.0.5".into(), None));
        assert_eq!(target("ssh://root@dev:2222"), (user("root"), "dev".into(), Some(2222)));
        assert_eq!(target("ssh://dev/"), (None, "dev".into(), None));
        assert_eq!(target("fe80::1%eth0"), (None, "fe80::1%eth0".into(), None));
        assert_eq!(target("a@b@fe80::1%eth0"), (user("a@b"), "fe80::1%eth0".into(), None));
        assert_eq!(target("[fe80::1%eth0]"), (None, "fe80::1%eth0".into(), None));
        assert_eq!(target("ssh://[fe80::1%25eth0]:22"), (None, "fe80::1%eth0".into(), Some(22)));
    }

    #[test]
    fn what_could_become_an_option_of_ssh_is_refused() {
        let error = |text: &str| text.parse::<Target>().unwrap_err();
        assert_eq!(error("-oProxyCommand=x"), TargetError::BadCharacter);
        assert_eq!(error("ssh://-oProxyCommand=x"), TargetError::BadCharacter);
        assert_eq!(error("root@-x"), TargetError::BadCharacter);
        assert_eq!(error("a b"), TargetError::BadCharacter);
        assert_eq!(error(""), TargetError::Empty);
        assert_eq!(error("root@"), TargetError::Empty);
        assert_eq!(error("ssh://dev:0"), TargetError::BadPort);
        assert_eq!(error("ssh://dev:99999"), TargetError::BadPort);
    }
}
