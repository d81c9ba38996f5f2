//! Who may log in with a password: the users of the configuration, and those that `myelin users` added.
//!
//! The latter are two files, which each login reads: one in runtime_dir, which outlives the worker and not the reboot,
//! and one in state_dir, which lasts. With `auth_command` a program knows the passwords, and nobody else does.

pub mod command;
mod hash;
mod program;
pub mod shadow;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Once;

use tracing::warn;

pub use hash::Check;
pub use program::{Answer, ask};

use super::of_this_boot;
use crate::config::{Config, Secret, User, UserMode, check_password_hash};

/// That the file cannot be used.
static SAID: Once = Once::new();

/// The users of this moment.
#[derive(Clone, Debug)]
pub struct Users {
    all: BTreeMap<String, User>,
    permit_empty: bool,
    /// `auth_command` knows them.
    elsewhere: bool,
    /// The system has a password of theirs that cannot be checked here.
    unknown_hash: Vec<String>,
}

impl Users {
    pub fn collect(config: &Config) -> Self {
        let permit_empty = config.ssh.permit_empty_passwords;
        if !config.ssh.auth_command.is_empty() {
            return Self { all: BTreeMap::new(), permit_empty, elsewhere: true, unknown_hash: Vec::new() };
        }
        let mut all = config.ssh.users.clone();
        for path in [lasting_file(config), file(config)] {
            all.extend(added(&path));
        }
        all.retain(|_, user| permit_empty || !hash::is_empty(user));
        let mut users = Self { all, permit_empty, elsewhere: false, unknown_hash: Vec::new() };
        if config.ssh.shadow_passwords && config.ssh.user_mode == UserMode::System {
            users.add_those_of_the_system();
        }
        users
    }

    /// What we know of a user counts more. An empty password of the system is none.
    fn add_those_of_the_system(&mut self) {
        for (name, hash) in shadow::read() {
            if self.all.contains_key(&name) || !hash.expose().starts_with('$') {
                continue;
            }
            if check_password_hash(hash.expose()).is_ok() {
                self.all.insert(name, User { password_hash: Some(hash), password: None });
            } else {
                self.unknown_hash.push(name);
            }
        }
    }

    /// Why a password of this user is wrong whatever it is, if that is so.
    pub fn obstacle(&self, name: &str) -> Option<&'static str> {
        self.unknown_hash.iter().any(|unknown| unknown == name).then_some(
            "the hash in /etc/shadow is of a kind that cannot be checked here: only sha512-crypt and sha256-crypt can",
        )
    }

    /// Whether one of the users with a password is such; `auth_command` may know anybody.
    pub fn any(&self, mut is_such: impl FnMut(&str) -> bool) -> bool {
        self.elsewhere || self.all.keys().any(|name| is_such(name))
    }

    /// Whether a password can let anybody in, so that it is worth asking for one.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && !self.elsewhere
    }

    pub fn contains(&self, name: &str) -> bool {
        self.all.contains_key(name) || self.elsewhere
    }

    /// What is to be known for a check of this user's password. An unknown name costs as much time.
    pub fn entry(&self, name: &str) -> Check {
        Check::new(self.all.get(name).cloned())
    }

    /// Whether this user needs none at all.
    pub fn has_empty_password(&self, name: &str) -> bool {
        self.permit_empty && self.all.get(name).is_some_and(hash::is_empty)
    }
}

/// Where users that were added until the reboot stand: `NAME = "HASH"`.
pub fn file(config: &Config) -> PathBuf {
    of_this_boot::path(config, "users.toml")
}

/// Where users stand that were added to stay.
pub fn lasting_file(config: &Config) -> PathBuf {
    config.state_dir.join("ssh/users.toml")
}

/// The users of a file. One that cannot be used has none. That is said once a worker: strangers make us read it.
fn added(path: &Path) -> BTreeMap<String, User> {
    let bytes = match of_this_boot::read(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return BTreeMap::new(),
        Err(error) => {
            SAID.call_once(|| warn!(%error, "users added at run time cannot log in"));
            return BTreeMap::new();
        }
    };
    let Some(users) = parse(&String::from_utf8_lossy(&bytes)) else {
        SAID.call_once(|| {
            warn!(path = %path.display(), "the file of users is broken: remove it, then `myelin users add` them again");
        });
        return BTreeMap::new();
    };
    let user = |hash| User { password_hash: Some(Secret::new(hash)), password: None };
    users.into_iter().map(|(name, hash)| (name, user(hash))).collect()
}

/// Names and hashes of the file; `None` when it is broken.
fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let table = toml::de::DeTable::parse(text).ok()?.into_inner();
    table
        .into_iter()
        .map(|(name, hash)| Some((name.into_inner().into_owned(), hash.get_ref().as_str()?.to_owned())))
        .collect()
}
