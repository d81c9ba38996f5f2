//! Keys to log in with: those of the agent and those in files, in the order in which ssh tries them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PublicKey, decode_secret_key};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::secrets::{Secrets, read_first_line, read_secret};
use super::settings::Settings;
use super::talk::Talk;
use super::terminal::Secret;
use crate::client::Handle;

pub type Agent = AgentClient<UnixStream>;

/// A key that may be tried.
pub enum Identity {
    /// The agent has it and signs.
    Agent(Box<AgentIdentity>),
    File(KeyFile),
}

/// A private key in a file.
pub struct KeyFile {
    path: PathBuf,
    /// Known without the passphrase, in most formats.
    pub public: Option<PublicKey>,
    state: State,
}

enum State {
    Open(Arc<PrivateKey>),
    /// It takes a passphrase, which nobody is asked for before the server wants this key.
    Locked(Secret),
    /// Only the public half is there: for the agent.
    Public,
}

/// A file of a key is shorter.
const MAX_FILE: u64 = 64 * 1024;
/// How long an agent may take to answer what it can answer at once.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// How often a passphrase is asked for.
const TRIES: usize = 3;

/// Connects to the agent, if there is one.
pub async fn agent(settings: &Settings, session: &Handle, talk: &Talk) -> Option<Agent> {
    let path = settings.agent.as_ref()?;
    let connect = async {
        let mut agent = AgentClient::connect(UnixStream::connect(path).await?);
        if let Some(binding) = session.agent_session_binding() {
            // Agents that know no such thing refuse it; their keys are for every host.
            let _ = agent.bind_session(binding, false).await;
        }
        Ok::<_, std::io::Error>(agent)
    };
    match timeout(AGENT_PATIENCE, connect).await {
        Ok(Ok(agent)) => Some(agent),
        Ok(Err(error)) => {
            talk.warning(&format!("Warning: the agent at {} does not answer: {error}", path.display()));
            None
        }
        Err(_) => {
            talk.warning(&format!("Warning: the agent at {} does not answer", path.display()));
            None
        }
    }
}

/// All keys in the order in which they are tried: those of files that the agent has, the other ones of the agent,
/// those that are only in files.
pub async fn collect(
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
        Some(agent) => match timeout(AGENT_PATIENCE, agent.request_identities()).await {
            Ok(Ok(identities)) => identities,
            _ => {
                talk.warning("Warning: the agent does not tell its keys");
                Vec::new()
            }
        },
        None => Vec::new(),
    };
    let mut identities = Vec::new();
    files.retain(|file| {
        let Some(place) = rest.iter().position(|identity| is_key(identity, file.public.as_ref())) else {
            return !matches!(file.state, State::Public);
        };
        identities.push(Identity::Agent(Box::new(rest.remove(place))));
        false
    });
    if !settings.identities_only {
        identities.extend(rest.into_iter().map(Box::new).map(Identity::Agent));
    }
    identities.extend(files.into_iter().map(Identity::File));
    identities
}

fn is_key(identity: &AgentIdentity, key: Option<&PublicKey>) -> bool {
    match (identity, key) {
        (AgentIdentity::PublicKey { key: agents, .. }, Some(key)) => agents.key_data() == key.key_data(),
        _ => false,
    }
}

impl KeyFile {
    fn load(path: &Path, named: bool, secrets: &Secrets, talk: &Talk) -> Option<Self> {
        let of = |public: Option<PublicKey>, state| Some(Self { path: path.to_owned(), public, state });
        if let Some(key) = secrets.key(path) {
            return of(Some(key.public_key().clone()), State::Open(key));
        }
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                // The agent may have a key whose public half alone is here.
                let public = public_beside(path);
                if public.is_some() {
                    return of(public, State::Public);
                }
                if named {
                    talk.warning(&format!(
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
                talk.warning(&format!("Warning: {error}"));
                return None;
            }
        };
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return of(Some(public), State::Public);
        }
        let own = metadata.uid() == nix::unistd::getuid().as_raw();
        if own && metadata.mode() & 0o077 != 0 {
            talk.error(&format!(
                "Permissions {:04o} for '{}' are too open: others can read this private key. It is not used; chmod 600 it.",
                metadata.mode() & 0o7777,
                path.display()
            ));
            return None;
        }
        // Only this format shows its public half, and that it is locked.
        if let Ok(key) = PrivateKey::from_openssh(text.as_bytes()) {
            let public = key.public_key().clone();
            let state = if key.is_encrypted() { State::Locked(text) } else { State::Open(Arc::new(key)) };
            return of(Some(public), state);
        }
        if text.contains("ENCRYPTED") {
            return of(public_beside(path), State::Locked(text));
        }
        match decode_secret_key(&text, None) {
            Ok(key) => of(Some(key.public_key().clone()), State::Open(Arc::new(key))),
            Err(_) => {
                talk.warning(&format!("Warning: {} is no private key in a known format", path.display()));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The private key; asks for its passphrase. `None` if nobody knows it.
    pub fn unlock(&self, settings: &Settings, secrets: &Secrets, talk: &Talk) -> Option<Arc<PrivateKey>> {
        let text = match &self.state {
            State::Open(key) => return Some(Arc::clone(key)),
            State::Public => return None,
            State::Locked(text) => text,
        };
        // Asked for before, when its public half was not known yet.
        if let Some(key) = secrets.key(&self.path) {
            return Some(key);
        }
        let name = self.path.display();
        let open = |passphrase: &Secret| {
            let key = Arc::new(decode_secret_key(text, Some(passphrase)).ok()?);
            secrets.keep_key(&self.path, &key);
            Some(key)
        };
        if let Some(file) = &settings.passphrase_file {
            let passphrase = read_first_line(file).map_err(|error| talk.error(&error.to_string())).ok()?;
            let key = open(&passphrase);
            if key.is_none() {
                talk.error(&format!("{} does not hold the passphrase of key '{name}'", file.display()));
            }
            return key;
        }
        if !talk.may_ask() {
            talk.error(&format!("Key '{name}' has a passphrase and nobody may be asked for it: give --passphrase-file, or use ssh-agent"));
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
        talk.error(&format!("No passphrase was right: key '{name}' is not used"));
        None
    }
}

/// `FILE.pub`, as ssh-keygen writes it.
fn public_beside(path: &Path) -> Option<PublicKey> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let text = read_secret(Path::new(&name), MAX_FILE).ok()?;
    PublicKey::from_openssh(text.trim()).ok()
}
