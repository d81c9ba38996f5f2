//! What the user has told once is not asked for again: an upload logs in several times.
//!
//! All of it is wiped from memory when it is dropped, and none of it is ever shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::PrivateKey;
use zeroize::Zeroizing;

use super::terminal::Secret;
use crate::files::{FileError, read_limited};

/// Unlocked keys by their files, and passwords by `user@host`.
#[derive(Default)]
pub struct Secrets(Mutex<State>);

#[derive(Default)]
struct State {
    keys: Vec<(PathBuf, Arc<PrivateKey>)>,
    passwords: Vec<(String, Secret)>,
}

impl Secrets {
    pub fn key(&self, path: &Path) -> Option<Arc<PrivateKey>> {
        self.with(|state| {
            let key = state.keys.iter().find(|(known, _)| known == path);
            key.map(|(_, key)| Arc::clone(key))
        })
    }

    pub fn keep_key(&self, path: &Path, key: &Arc<PrivateKey>) {
        self.with(|state| state.keys.push((path.to_owned(), Arc::clone(key))));
    }

    pub fn password(&self, account: &str) -> Option<Secret> {
        self.with(|state| {
            let password = state.passwords.iter().find(|(known, _)| known == account);
            password.map(|(_, password)| password.clone())
        })
    }

    pub fn keep_password(&self, account: &str, password: Secret) {
        self.with(|state| {
            state.passwords.retain(|(known, _)| known != account);
            state.passwords.push((account.to_owned(), password));
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Text of a file, wiped when it is dropped.
pub fn read_secret(path: &Path, limit: u64) -> Result<Secret, FileError> {
    let bytes = Zeroizing::new(read_limited(path, limit)?);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The first line of a file that holds a password or a passphrase.
pub fn read_first_line(path: &Path) -> Result<Secret, FileError> {
    let text = read_secret(path, MAX_LINE)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

const MAX_LINE: u64 = 4096;
