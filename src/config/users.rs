//! `[ssh.users.NAME]`: who may log in with a password.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

/// The longest password that is looked at, in bytes; the work of sha-crypt grows with its square.
pub const MAX_PASSWORD: usize = 512;
/// A board of the smallest kind takes seconds for so many.
const MAX_ROUNDS: u32 = 500_000;

/// One of the two is set; with both, the hash counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// sha512-crypt or sha256-crypt, as `openssl passwd -6` and crypt(5) write it.
    pub password_hash: Option<Secret>,
    /// In clear text.
    pub password: Option<Secret>,
}

/// A text that is never shown: not in a log, not by `config show`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Whether it is a hash that can be checked; an empty text stands for the empty password.
pub fn check_password_hash(hash: &str) -> Result<(), &'static str> {
    if hash.is_empty() {
        return Ok(());
    }
    let rest = hash.strip_prefix("$6$").or_else(|| hash.strip_prefix("$5$"));
    let Some(rest) = rest else {
        return Err("must be sha512-crypt or sha256-crypt ($6$… or $5$…): make one with `openssl passwd -6`");
    };
    let rounds = rest.strip_prefix("rounds=").and_then(|rest| rest.split('$').next());
    if rounds.is_some_and(|text| text.parse::<u32>().map_or(true, |rounds| rounds > MAX_ROUNDS)) {
        return Err("has more than 500000 rounds, which would keep a small board busy at every login");
    }
    Ok(())
}
