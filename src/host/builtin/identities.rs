//! Keys to log in with: those of the agent and those in files, in the order in which ssh tries them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey, decode_secret_key};

use super::agent::{Agent, AgentKey};
use super::locked;
use super::secrets::{Secrets, read_first_line, read_secret};
use super::settings::Settings;
use super::talk::Talk;
use crate::client::Handle;

/// A key that may be tried.
pub enum Identity {
    /// The agent has it and signs.
    Agent(AgentKey),
    File(KeyFile),
}

/// A private key in a file.
pub struct KeyFile {
    path: PathBuf,
    pub public: PublicKey,
    state: State,
}

enum State {
    Open(Arc<PrivateKey>),
    /// It takes a passphrase, which nobody is asked for before the server wants this key.
    Locked(Box<PrivateKey>),
    /// Only the public half is there: for the agent.
    Public,
}

/// A file of a key is shorter.
const MAX_FILE: u64 = 64 * 1024;
/// How often a passphrase is asked for.
const TRIES: usize = 3;

/// Connects to the agent, if there is one.
pub fn agent(settings: &Settings, session: &Handle, talk: &Talk) -> Option<Agent> {
    let path = settings.agent.as_ref()?;
    match Agent::connect(path, session.agent_session_binding()) {
        Ok(agent) => Some(agent),
        Err(error) => {
            talk.warning(format_args!("Warning: the agent at {} does not answer: {error}", path.display()));
            None
        }
    }
}

/// All keys in the order in which they are tried: those of files that the agent has, the other ones of the agent,
/// those that are only in files.
pub fn collect(
    settings: &Settings,
    agent: Option<&mut Agent>,
    secrets: &Secrets,
    talk: &Talk,
) -> Vec<Identity> {
    let mut files: Vec<KeyFile> = settings
        .identities
        .iter()
        .filter_map(|path| KeyFile::load(path, settings.identities_named, secrets, talk))
        .collect();
    let mut rest = match agent {
        Some(agent) => match agent.keys() {
            Ok(keys) => keys,
            Err(_) => {
                talk.warning(format_args!("Warning: the agent does not tell its keys"));
                Vec::new()
            }
        },
        None => Vec::new(),
    };
    let mut identities = Vec::new();
    files.retain(|file| {
        let Some(place) = rest.iter().position(|identity| is_key(identity, &file.public)) else {
            return !matches!(file.state, State::Public);
        };
        identities.push(Identity::Agent(rest.remove(place)));
        false
    });
    if !settings.identities_only {
        identities.extend(rest.into_iter().map(Identity::Agent));
    }
    identities.extend(files.into_iter().map(Identity::File));
    identities
}

fn is_key(identity: &AgentKey, key: &PublicKey) -> bool {
    identity.key.key_data() == key.key_data()
}

impl KeyFile {
    fn load(path: &Path, named: bool, secrets: &Secrets, talk: &Talk) -> Option<Self> {
        let of = |public: PublicKey, state| Some(Self { path: path.to_owned(), public, state });
        if let Some(key) = secrets.key(path) {
            return of(key.public_key().clone(), State::Open(key));
        }
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                // The agent may have a key whose public half alone is here.
                if let Some(public) = public_beside(path) {
                    return of(public, State::Public);
                }
                if named {
                    talk.warning(format_args!(
                        "Warning: identity file {} cannot be read: {error}",
                        path.display()
                    ));
                }
                return None;
            }
        };
        let text = match read_secret(path, MAX_FILE) {
            Ok(text) => text,
            Err(error) => {
                talk.warning(format_args!("Warning: {error}"));
                return None;
            }
        };
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return of(public, State::Public);
        }
        let own = metadata.uid() == nix::unistd::getuid().as_raw();
        if own && metadata.mode() & 0o077 != 0 {
            talk.error(format_args!(
                "Permissions {:04o} for '{}' are too open: others can read this private key. It is not used; chmod 600 it.",
                metadata.mode() & 0o7777,
                path.display()
            ));
            return None;
        }
        if let Some(key) = locked::read(&text) {
            let public = key.public_key().clone();
            if key.is_encrypted() && !locked::is_unlockable(&key) {
                return old(path, talk);
            }
            let state =
                if key.is_encrypted() { State::Locked(Box::new(key)) } else { State::Open(Arc::new(key)) };
            return of(public, state);
        }
        if text.contains("ENCRYPTED") {
            return old(path, talk);
        }
        match decode_secret_key(&text, None) {
            Ok(key) => of(key.public_key().clone(), State::Open(Arc::new(key))),
            Err(_) => {
                talk.warning(format_args!("Warning: {} is no private key in a known format", path.display()));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The private key; asks for its passphrase. `None` if nobody knows it.
    pub fn unlock(&self, settings: &Settings, secrets: &Secrets, talk: &Talk) -> Option<Arc<PrivateKey>> {
        let key = match &self.state {
            State::Open(key) => return Some(Arc::clone(key)),
            State::Public => return None,
            State::Locked(key) => key,
        };
        let name = self.path.display();
        let open = |passphrase: &str| {
            let key = Arc::new(locked::unlock(key, passphrase)?);
            secrets.keep_key(&self.path, &key);
            Some(key)
        };
        if let Some(file) = &settings.passphrase_file {
            let passphrase =
                read_first_line(file).map_err(|error| talk.error(format_args!("{error}"))).ok()?;
            let key = open(&passphrase);
            if key.is_none() {
                talk.error(format_args!("{} does not hold the passphrase of key '{name}'", file.display()));
            }
            return key;
        }
        if !talk.may_ask() {
            talk.error(format_args!("Key '{name}' has a passphrase and nobody may be asked for it: give --passphrase-file, or use ssh-agent"));
            return None;
        }
        let mut question = format!("Enter passphrase for key '{name}': ");
        for _ in 0..TRIES {
            let passphrase = talk.ask(&question, true).filter(|passphrase| !passphrase.is_empty())?;
            if let Some(key) = open(&passphrase) {
                return Some(key);
            }
            question = format!("Bad passphrase, try again for '{name}': ");
        }
        talk.error(format_args!("No passphrase was right: key '{name}' is not used"));
        None
    }
}

/// A key that is locked in a way that is not read here.
fn old(path: &Path, talk: &Talk) -> Option<KeyFile> {
    let name = path.display();
    talk.error(format_args!(
        "Key '{name}' is locked in an old format, which the built-in client does not read: ssh-keygen -p -f '{name}' \
         writes it anew, or give it to ssh-agent."
    ));
    None
}

/// `FILE.pub`, as ssh-keygen writes it.
fn public_beside(path: &Path) -> Option<PublicKey> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let text = read_secret(Path::new(&name), MAX_FILE).ok()?;
    PublicKey::from_openssh(text.trim()).ok()
}
