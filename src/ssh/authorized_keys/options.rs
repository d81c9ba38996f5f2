//! The options in front of a key (sshd(8), AUTHORIZED_KEYS FILE FORMAT): what its owner may do.
//!
//! An option is obeyed or the line is refused. Values are never repeated in a message: a command may have a
//! password in it. What a certificate says becomes the same options.

mod from;
pub mod time;

use std::net::IpAddr;

pub use self::from::Sources;
use self::time::Expiry;
use super::LineError;
use crate::config::{Permit, split_commas};

/// What the owner of a key may do. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    names: Vec<&'static str>,
    command: Option<String>,
    sources: Option<Sources>,
    expiry: Option<Expiry>,
    no_pty: bool,
    no_port_forwarding: bool,
    /// Where connections may lead that we make for the client; empty is anywhere.
    permit_open: Vec<Permit>,
    /// The same for where we listen.
    permit_listen: Vec<Permit>,
    no_agent_forwarding: bool,
    subsystems: Option<Vec<String>>,
    no_fwup: bool,
    no_sftp: bool,
    /// The key signs certificates and does not log in itself.
    authority: bool,
    /// Which principals of its certificates may log in; without it the user's own name.
    principals: Option<Vec<String>>,
    no_touch_required: bool,
}

impl Options {
    /// Reads the options of a line, `NAME` or `NAME="VALUE"` with commas between them.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut options = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find([',', '=']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let name = name_of(word)?;
            let (value, after) = match after.strip_prefix('=') {
                Some(quoted) => {
                    let (value, after) = unquote(quoted).ok_or(LineError::BadOption(name))?;
                    (Some(value), after)
                }
                None => (None, after),
            };
            options.add(name, value)?;
            options.names.push(name);
            rest = match after.strip_prefix(',') {
                Some("") => return Err(LineError::BadOption(name)),
                Some(more) => more,
                None if after.is_empty() => after,
                None => return Err(LineError::BadOption(name)),
            };
        }
        if options.principals.is_some() && !options.authority {
            // Without an authority nobody has principals, and the line means less than it says.
            return Err(LineError::BadOption("principals"));
        }
        Ok(options)
    }

    /// Adds an option of `KNOWN`.
    pub fn add(&mut self, name: &'static str, value: Option<String>) -> Result<(), LineError> {
        let bad = || LineError::BadOption(name);
        match (name, value) {
            // In the order of the line: a later word allows again what an earlier one took.
            ("restrict", None) => {
                (self.no_pty, self.no_port_forwarding, self.no_agent_forwarding) = (true, true, true);
            }
            ("no-pty", None) => self.no_pty = true,
            ("pty", None) => self.no_pty = false,
            ("no-port-forwarding", None) => self.no_port_forwarding = true,
            ("port-forwarding", None) => self.no_port_forwarding = false,
            ("permitopen", Some(value)) => {
                let permit = Permit::try_from(value).ok().filter(Permit::names_a_host);
                self.permit_open.push(permit.ok_or_else(bad)?);
            }
            ("permitlisten", Some(value)) => {
                self.permit_listen.push(Permit::try_from(value).map_err(|_| bad())?);
            }
            ("no-agent-forwarding", None) => self.no_agent_forwarding = true,
            ("agent-forwarding", None) => self.no_agent_forwarding = false,
            ("no-fwup", None) => self.no_fwup = true,
            ("no-sftp", None) => self.no_sftp = true,
            ("no-touch-required", None) => self.no_touch_required = true,
            ("cert-authority", None) => self.authority = true,
            ("principals", Some(value)) if self.principals.is_none() => {
                self.principals = Some(split_commas(&value).map(str::to_owned).collect());
            }
            ("command", Some(value)) if self.command.is_none() => self.command = Some(value),
            ("from", Some(value)) if self.sources.is_none() => {
                self.sources = Some(Sources::parse(&value).ok_or_else(bad)?);
            }
            ("expiry-time", Some(value)) => {
                // Of several the earliest counts.
                let expiry = Expiry::parse(&value).ok_or_else(bad)?;
                self.expiry = Some(self.expiry.map_or(expiry, |before| before.min(expiry)));
            }
            ("subsystems", Some(value)) if self.subsystems.is_none() => {
                self.subsystems = Some(split_commas(&value).map(str::to_owned).collect());
            }
            ("X11-forwarding" | "no-X11-forwarding" | "user-rc" | "no-user-rc", None)
            | ("tunnel", Some(_)) => {}
            ("environment" | "verify-required", _) => return Err(LineError::Option(name)),
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// The names of the options as they stand in the line, for a listing.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Why the key does not count for a client from `peer` now, or nothing.
    pub fn refusal(&self, peer: IpAddr) -> Option<&'static str> {
        if self.sources.as_ref().is_some_and(|sources| !sources.contain(peer)) {
            return Some("the key's option from= does not allow this address");
        }
        if self.expiry.is_some_and(Expiry::is_over) {
            return Some("the key has expired (expiry-time=)");
        }
        None
    }

    /// Makes the key one that signs certificates, for these principals if the line says nothing of them.
    pub fn make_authority(&mut self, principals: &[String]) {
        if !std::mem::replace(&mut self.authority, true) {
            self.names.push("cert-authority");
        }
        // The certificate alone says so.
        self.no_touch_required = true;
        if self.principals.is_none() && !principals.is_empty() {
            self.principals = Some(principals.to_vec());
        }
    }

    /// Whether the key signs certificates and does not log in itself.
    pub fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether a certificate with these principals is one for `user`.
    pub fn allow_principal(&self, user: &str, principals: &[String]) -> bool {
        match &self.principals {
            Some(allowed) => principals.iter().any(|principal| allowed.contains(principal)),
            None => principals.iter().any(|principal| principal == user),
        }
    }

    /// Whether the touch of a security key, which cannot be seen here, does not matter.
    pub fn allow_no_touch(&self) -> bool {
        self.no_touch_required
    }

    /// Takes away from what a certificate allows whatever the `line` of its authority does not allow either. Where
    /// from and until when was asked of both already.
    pub fn narrow(&mut self, line: &Self) -> Result<(), &'static str> {
        // Every field is named, so that a new one is thought of here.
        let Self {
            names: _,
            command,
            sources: _,
            expiry: _,
            no_pty,
            no_port_forwarding,
            permit_open,
            permit_listen,
            no_agent_forwarding,
            subsystems,
            no_fwup,
            no_sftp,
            authority: _,
            principals: _,
            no_touch_required,
        } = line;
        if command.is_some() {
            if self.command.is_some() && self.command != *command {
                return Err("the certificate and the line of its authority have different commands");
            }
            self.command.clone_from(command);
        }
        // Certificates say nothing of these.
        self.subsystems.clone_from(subsystems);
        self.permit_open.clone_from(permit_open);
        self.permit_listen.clone_from(permit_listen);
        self.no_agent_forwarding |= no_agent_forwarding;
        self.no_port_forwarding |= no_port_forwarding;
        self.no_pty |= no_pty;
        self.no_fwup |= no_fwup;
        self.no_sftp |= no_sftp;
        self.no_touch_required &= no_touch_required;
        Ok(())
    }

    /// The command that runs whatever the client asks for.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// Whether shells and commands may run. A key for certain subsystems is for nothing else.
    pub fn allow_programs(&self) -> bool {
        self.subsystems.is_none()
    }

    pub fn allow_pty(&self) -> bool {
        !self.no_pty
    }

    /// Whether connections may be forwarded at all. A key for certain subsystems is for nothing else.
    pub fn allow_port_forwarding(&self) -> bool {
        !self.no_port_forwarding && self.subsystems.is_none()
    }

    /// Where the connections may lead that we make for the client, if the key says so.
    pub fn permit_open(&self) -> Option<&[Permit]> {
        (!self.permit_open.is_empty()).then_some(&self.permit_open)
    }

    /// Where it may have us listen, if the key says so.
    pub fn permit_listen(&self) -> Option<&[Permit]> {
        (!self.permit_listen.is_empty()).then_some(&self.permit_listen)
    }

    /// Whether programs here may use the client's agent.
    pub fn allow_agent_forwarding(&self) -> bool {
        !self.no_agent_forwarding && self.subsystems.is_none()
    }

    /// Whether the subsystem of this name may run. Who may use `fwup` may use its older protocol, and
    /// `myelin-status`, which `myelin upload` asks.
    pub fn allow_subsystem(&self, name: &str) -> bool {
        let part_of_fwup = matches!(name, "nerves_firmware_ssh" | "myelin-status");
        let listed =
            |list: &Vec<String>| list.iter().any(|item| item == name || (item == "fwup" && part_of_fwup));
        let denied = match name {
            "fwup" | "nerves_firmware_ssh" => self.no_fwup,
            "sftp" => self.no_sftp,
            _ => false,
        };
        !denied && self.subsystems.as_ref().is_none_or(listed)
    }
}

/// The option as sshd(8) writes it; names are the same in any case.
fn name_of(word: &str) -> Result<&'static str, LineError> {
    let known = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(word));
    known.copied().ok_or(LineError::UnknownOption)
}

/// The text between the quote that `text` begins with and the next, and what follows that; `\"` is a quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let at = rest.find(['"', '\\'])?;
        let (before, mark) = rest.split_at_checked(at)?;
        value.push_str(before);
        if let Some(after) = mark.strip_prefix("\\\"") {
            value.push('"');
            rest = after;
        } else if let Some(after) = mark.strip_prefix('\\') {
            value.push('\\');
            rest = after;
        } else {
            return Some((value, mark.strip_prefix('"')?));
        }
    }
}

/// The options of sshd(8) and of the specification; their names may be logged, their values may not.
const KNOWN: &[&str] = &[
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "expiry-time",
    "from",
    "no-agent-forwarding",
    "no-fwup",
    "no-port-forwarding",
    "no-pty",
    "no-sftp",
    "no-touch-required",
    "no-user-rc",
    "no-X11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "subsystems",
    "tunnel",
    "user-rc",
    "verify-required",
    "X11-forwarding",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    #[test]
    fn later_words_allow_again() {
        assert!(!parse("restrict").allow_pty());
        assert!(parse("RESTRICT,pty").allow_pty());
        assert!(!parse("pty,no-pty").allow_pty());
        assert!(parse("no-port-forwarding,no-X11-forwarding,permitopen=\"h:1\"").allow_pty());
    }

    #[test]
    fn forwarding_is_narrowed_and_forbidden() {
        assert!(parse("no-pty").allow_port_forwarding() && parse("no-pty").permit_open().is_none());
        assert!(parse("restrict,port-forwarding").allow_port_forwarding());
        for forbidden in ["restrict", "port-forwarding,no-port-forwarding", "subsystems=\"fwup\""] {
            assert!(!parse(forbidden).allow_port_forwarding(), "{forbidden}");
        }
        let options = parse("permitopen=\"localhost:80\",PermitOpen=\"[::1]:*\"");
        assert_eq!(options.permit_open().map(<[Permit]>::len), Some(2));
        assert_eq!(parse("permitlisten=\"8080\"").permit_listen().map(<[Permit]>::len), Some(1));
        assert!(parse("restrict,agent-forwarding").allow_agent_forwarding());
        assert!(!parse("restrict").allow_agent_forwarding() && parse("no-pty").allow_agent_forwarding());
    }

    #[test]
    fn a_command_keeps_its_quotes_and_commas() {
        let options = parse(r#"command="echo \"a, b\" c\\d",no-pty"#);
        assert_eq!(options.command(), Some(r#"echo "a, b" c\\d"#));
        assert_eq!(options.names(), ["command", "no-pty"]);
    }

    #[test]
    fn a_key_for_subsystems_is_for_nothing_else() {
        let options = parse("restrict,subsystems=\"fwup, sftp\"");
        assert!(options.allow_subsystem("fwup") && options.allow_subsystem("sftp"));
        assert!(options.allow_subsystem("myelin-status") && !options.allow_subsystem("other"));
        assert!(!options.allow_programs());
        let options = parse("no-fwup,no-sftp");
        assert!(options.allow_programs() && options.allow_subsystem("myelin-status"));
        for name in ["fwup", "nerves_firmware_ssh", "sftp"] {
            assert!(!options.allow_subsystem(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_obeyed_is_refused() {
        for (text, error) in [
            ("environment=\"A=b\"", LineError::Option("environment")),
            ("cert-authority=\"x\"", LineError::BadOption("cert-authority")),
            ("principals", LineError::BadOption("principals")),
            ("principals=\"a\"", LineError::BadOption("principals")),
            ("principals=\"a\",principals=\"b\"", LineError::BadOption("principals")),
            ("no-such", LineError::UnknownOption),
            ("", LineError::UnknownOption),
            ("pty,,no-pty", LineError::UnknownOption),
            ("pty,", LineError::BadOption("pty")),
            ("pty=\"x\"", LineError::BadOption("pty")),
            ("command", LineError::BadOption("command")),
            ("command=true", LineError::BadOption("command")),
            ("command=\"true", LineError::BadOption("command")),
            ("command=\"a\"b", LineError::BadOption("command")),
            ("command=\"a\",command=\"b\"", LineError::BadOption("command")),
            ("from=\"10.0.0.0/99\"", LineError::BadOption("from")),
            ("permitopen=\"80\"", LineError::BadOption("permitopen")),
            ("permitlisten=\"host\"", LineError::BadOption("permitlisten")),
            ("permitopen=\"host\"", LineError::BadOption("permitopen")),
            ("expiry-time=\"soon\"", LineError::BadOption("expiry-time")),
        ] {
            let parsed = if text.is_empty() { Options::parse(",") } else { Options::parse(text) };
            assert_eq!(parsed.unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn the_earliest_expiry_counts() {
        let peer = "::1".parse().unwrap();
        assert!(parse("expiry-time=\"29990101\"").refusal(peer).is_none());
        let both = parse("expiry-time=\"20200101\",expiry-time=\"29990101\"");
        assert!(both.refusal(peer).is_some_and(|reason| reason.contains("expired")));
    }
}
