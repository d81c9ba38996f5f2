//! Environment variables: those a client may set, and those every session gets.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::config::{Source, pattern_matches};
use crate::ssh::account::Account;
use crate::ssh::connection::Connection;

/// What one session may set in all.
const MAX_VARIABLES: usize = 32;
const MAX_BYTES: usize = 4 << 10;
/// Never from a client, whatever `accept_env` says: they make programs run other code.
const NEVER: &[&str] =
    &["LD_*", "PATH", "IFS", "BASH_ENV", "ENV", "SSH_*", "SHELL", "HOME", "USER", "MYELIN_CONFIG"];
/// Where programs are looked for, as the images of Buildroot and Yocto have them.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that the client asked for and may have.
#[derive(Debug, Default)]
pub struct Requested {
    variables: Vec<(String, String)>,
    bytes: usize,
    /// What the client asked for when its key has another command (sshd(8), `command=`).
    pub original_command: Option<Vec<u8>>,
    /// The socket behind which the client's agent is.
    pub agent: Option<PathBuf>,
}

impl Requested {
    /// Takes a variable if the configuration and the limits allow it, and says whether it did.
    pub fn accept(&mut self, patterns: &[String], name: &str, value: &str) -> bool {
        let bytes = self.bytes + name.len() + value.len();
        let well_formed = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        let allowed = patterns.iter().any(|pattern| pattern_matches(pattern, name))
            && !NEVER.iter().any(|n| pattern_matches(n, name));
        if !well_formed || !allowed || self.variables.len() >= MAX_VARIABLES || bytes > MAX_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.variables.push((name.into(), value.into()));
        true
    }
}

/// What a session's programs find in their environment.
pub fn build(
    account: &Account,
    shell: &str,
    connection: &Connection,
    source: &Source,
    requested: &Requested,
) -> Vec<(OsString, OsString)> {
    let (peer, local) = (connection.peer, connection.local);
    let mut variables: Vec<(OsString, OsString)> =
        requested.variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut set = |name: &str, value: OsString| variables.push((name.into(), value));
    if let Some(zone) = std::env::var_os("TZ") {
        set("TZ", zone);
    }
    set("USER", account.name.clone().into());
    set("LOGNAME", account.name.clone().into());
    set("HOME", account.home.clone());
    set("SHELL", shell.into());
    set("PATH", PATH.into());
    set("SSH_CLIENT", format!("{} {} {}", peer.ip(), peer.port(), local.port()).into());
    set("SSH_CONNECTION", format!("{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port()).into());
    if let Some(command) = &requested.original_command {
        set("SSH_ORIGINAL_COMMAND", OsString::from_vec(command.clone()));
    }
    if let Some(socket) = &requested.agent {
        set("SSH_AUTH_SOCK", socket.into());
    }
    if let Source::File(path) = source {
        set("MYELIN_CONFIG", path.into());
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_and_endless_environments_are_refused() {
        let patterns = ["*".to_string()];
        let mut requested = Requested::default();
        for name in ["LD_PRELOAD", "PATH", "MYELIN_CONFIG", "A=B", ""] {
            assert!(!requested.accept(&patterns, name, "x"), "{name}");
        }
        assert!(!requested.accept(&patterns, "A", &"x".repeat(MAX_BYTES)));
        for n in 0..MAX_VARIABLES {
            assert!(requested.accept(&patterns, &format!("V{n}"), "x"));
        }
        assert!(!requested.accept(&patterns, "ONE_MORE", "x"));
        assert!(!Requested::default().accept(&[], "LANG", "C"));
    }
}
