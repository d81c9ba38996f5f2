//! Signs for the login: the agent with its keys, we with those of files.

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey};
use russh::{SendError, Signer as RusshSigner};
use thiserror::Error;

use super::identities::{Agent, KeyFile};
use super::secrets::Secrets;
use super::settings::Settings;
use super::talk::Talk;

/// Who signs, once the server has said that it takes the key.
pub enum Signer<'a> {
    Agent(&'a mut Agent),
    File { file: &'a KeyFile, settings: &'a Settings, secrets: &'a Secrets, talk: &'a Talk },
}

#[derive(Debug, Error)]
pub enum SignError {
    #[error("the connection is gone")]
    Gone,
    #[error("agent refused operation: {0}")]
    Agent(russh::keys::Error),
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

    /// Appends the signature to what is signed.
    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        match self {
            // No time limit: a security key waits for a touch, and an agent may ask its user.
            Self::Agent(agent) => agent.sign_request(key, hash, data).await.map_err(SignError::Agent),
            Self::File { file, settings, secrets, talk } => {
                let key = file.unlock(settings, secrets, talk).ok_or(SignError::Locked)?;
                let signature = sign(&key, hash, &data).ok_or(SignError::Key)?;
                signature.encode(&mut data).map_err(|_| SignError::Key)?;
                Ok(data)
            }
        }
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
