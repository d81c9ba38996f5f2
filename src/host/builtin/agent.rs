//! ssh-agent (draft-ietf-sshm-ssh-agent): which keys it has, and signatures of them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use russh::keys::agent::AgentSessionBinding;
use russh::keys::key::parse_public_key;
use russh::keys::{HashAlg, PublicKey};

use crate::host::status::printable;

/// A connection to the agent.
pub struct Agent(UnixStream);

/// A key that the agent has.
pub struct AgentKey {
    pub key: PublicKey,
    pub comment: String,
    /// The key as the agent knows it.
    blob: Vec<u8>,
}

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
/// Flags of a signature by an RSA key.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// No message of an agent is longer.
const MAX_MESSAGE: usize = 256 * 1024;
/// How long it may take to answer what it can answer at once.
const PATIENCE: Duration = Duration::from_secs(10);

impl Agent {
    /// Tells the agent of the server, for keys that are only for some.
    pub fn connect(path: &Path, binding: Option<&AgentSessionBinding>) -> io::Result<Self> {
        let mut agent = Self(UnixStream::connect(path)?);
        agent.0.set_write_timeout(Some(PATIENCE))?;
        agent.0.set_read_timeout(Some(PATIENCE))?;
        if let Some(binding) = binding {
            let mut request = vec![EXTENSION];
            for part in
                [b"session-bind@openssh.com", binding.host_key(), binding.session_id(), binding.signature()]
            {
                put(&mut request, part);
            }
            request.push(0);
            // Those that know no such thing refuse it; their keys are for every host.
            agent.ask(&request)?;
        }
        Ok(agent)
    }

    /// Its keys. Certificates are passed over: their keys are there as well.
    pub fn keys(&mut self) -> io::Result<Vec<AgentKey>> {
        let answer = self.ask(&[REQUEST_IDENTITIES])?;
        let mut keys = Vec::new();
        let mut rest =
            answer.strip_prefix(&[IDENTITIES_ANSWER]).and_then(|rest| rest.get(4..)).unwrap_or_default();
        // The number of keys is as many as there are.
        while let (Some(blob), Some(comment)) = (take(&mut rest), take(&mut rest)) {
            if let Ok(key) = parse_public_key(blob) {
                let comment = printable(&String::from_utf8_lossy(comment));
                keys.push(AgentKey { key, comment, blob: blob.to_vec() });
            }
        }
        Ok(keys)
    }

    /// The signature as it goes on the wire. It has all the time: a security key waits for a touch, and an agent may
    /// ask its user.
    pub fn sign(&mut self, key: &AgentKey, hash: Option<HashAlg>, data: &[u8]) -> io::Result<Vec<u8>> {
        self.0.set_read_timeout(None)?;
        let flags = match hash {
            Some(HashAlg::Sha512) => RSA_SHA2_512,
            Some(_) => RSA_SHA2_256,
            None => 0,
        };
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, &key.blob);
        put(&mut request, data);
        request.extend(flags.to_be_bytes());
        let answer = self.ask(&request)?;
        let mut rest = answer.strip_prefix(&[SIGN_RESPONSE]).unwrap_or_default();
        take(&mut rest).map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("agent refused operation"))
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        put(&mut message, request);
        self.0.write_all(&message)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// Appends a `string` (RFC 4251 section 5).
pub fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(bytes);
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_hold_nothing() {
        for bytes in [&b""[..], &[0, 0, 0], &[0, 0, 0, 1], &[0xff, 0xff, 0xff, 0xff, 0]] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:?}");
        }
        let mut message = Vec::new();
        put(&mut message, b"one");
        put(&mut message, b"");
        let mut rest = &message[..];
        assert_eq!(
            (take(&mut rest), take(&mut rest), take(&mut rest)),
            (Some(&b"one"[..]), Some(&b""[..]), None)
        );
    }
}
