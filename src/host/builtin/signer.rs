//! Signs for the login: the agent with its keys, we with those of files.

use std::io;

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey};
use russh::{SendError, Signer as RusshSigner};
use thiserror::Error;

use super::agent::{Agent, AgentKey, put};
use super::identities::KeyFile;
use super::secrets::Secrets;
use super::settings::Settings;
use super::talk::Talk;

/// Who signs, once the server has said that it takes the key.
pub enum Signer<'a> {
    Agent { agent: &'a mut Agent, key: &'a AgentKey },
    File { file: &'a KeyFile, settings: &'a Settings, secrets: &'a Secrets, talk: &'a Talk },
}

#[derive(Debug, Error)]
pub enum SignError {
    #[error("the connection is gone")]
    Gone,
    #[error(transparent)]
    Agent(#[from] io::Error),
    /// What there is to say has been said.
    #[error("it stays locked")]
    Locked,
    #[error("this key cannot sign here")]
    Key,
}

impl From<SendError> for SignError {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

impl RusshSigner for Signer<'_> {
    type Error = SignError;

    /// Appends the signature to what is signed. russh waits for it and for nothing else.
    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        self.append_signature(hash, data)
    }
}

impl Signer<'_> {
    fn append_signature(&mut self, hash: Option<HashAlg>, mut data: Vec<u8>) -> Result<Vec<u8>, SignError> {
        let signature = match self {
            Self::Agent { agent, key } => agent.sign(key, hash, &data)?,
            Self::File { file, settings, secrets, talk } => {
                let key = file.unlock(settings, secrets, talk).ok_or(SignError::Locked)?;
                sign(&key, hash, &data).ok_or(SignError::Key)?
            }
        };
        put(&mut data, &signature);
        Ok(data)
    }
}

/// The name of the algorithm and the signature, as they go on the wire.
fn sign(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Option<Vec<u8>> {
    let signature = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash).try_sign(data),
        pair => pair.try_sign(data),
    };
    let mut bytes = Vec::new();
    signature.ok()?.encode(&mut bytes).ok()?;
    Some(bytes)
}
