//! One host key file: bytes become a checked key, a new key becomes bytes.
//!
//! Owns the formats and the check that a key really signs. Never opens a file, never logs a key.

use std::panic::{AssertUnwindSafe, catch_unwind};

use russh::keys::key::safe_rng;
use russh::keys::signature::{Signer, Verifier};
use russh::keys::ssh_key::private::RsaKeypair;
use russh::keys::ssh_key::{LineEnding, Signature};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, decode_secret_key};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::HostKeyType;

/// Modulus of the RSA keys that are made.
const RSA_BITS: usize = 3072;

/// Why a file is no host key.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum KeyFileError {
    #[error("is empty")]
    Empty,
    #[error("is too large for a key")]
    TooLarge,
    #[error("is encrypted; host keys have no passphrase (ssh-keygen -p -N '' -f FILE removes it)")]
    Encrypted,
    #[error("holds no private key that can be read")]
    Unreadable,
    #[error("holds a key of type {0}, which does not belong under this name")]
    OtherType(String),
    #[error("holds a key whose public half does not fit the private one")]
    Mismatch,
}

/// Reads OpenSSH's container, PKCS#8, PKCS#1 and SEC1.
pub fn decode(content: &[u8]) -> Result<PrivateKey, KeyFileError> {
    if content.is_empty() {
        return Err(KeyFileError::Empty);
    }
    let text = std::str::from_utf8(content).map_err(|_| KeyFileError::Unreadable)?;
    // A parser that stumbles over what a failing card returns must not keep the device offline.
    catch_unwind(AssertUnwindSafe(|| decode_text(text))).unwrap_or(Err(KeyFileError::Unreadable))
}

fn decode_text(text: &str) -> Result<PrivateKey, KeyFileError> {
    if text.contains("ENCRYPTED") {
        return Err(KeyFileError::Encrypted);
    }
    let key = decode_secret_key(text, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => KeyFileError::Encrypted,
        _ => KeyFileError::Unreadable,
    })?;
    if key.is_encrypted() {
        return Err(KeyFileError::Encrypted);
    }
    if signs(&key) { Ok(key) } else { Err(KeyFileError::Mismatch) }
}

fn signs(key: &PrivateKey) -> bool {
    const MESSAGE: &[u8] = b"myelin checks a host key";
    let signature: Result<Signature, _> = key.try_sign(MESSAGE);
    signature.is_ok_and(|signature| key.public_key().key_data().verify(MESSAGE, &signature).is_ok())
}

/// The kind of a key, as the name of its file says it.
pub fn kind_of(key: &PrivateKey) -> Result<HostKeyType, KeyFileError> {
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(HostKeyType::Ed25519),
        Algorithm::Rsa { .. } => Ok(HostKeyType::Rsa),
        Algorithm::Ecdsa { .. } => Ok(HostKeyType::Ecdsa),
        other => Err(KeyFileError::OtherType(other.to_string())),
    }
}

/// Makes a key. RSA takes tens of seconds on a small board.
pub fn generate(kind: HostKeyType, comment: &str) -> Result<PrivateKey, GenerateError> {
    // The generator below panics when the kernel gives no random numbers; this blocks until the
    // kernel's pool is ready and reports an error instead.
    getrandom::fill(&mut [0; 32]).map_err(GenerateError::Random)?;
    let mut rng = safe_rng();
    let mut key = match kind {
        HostKeyType::Ed25519 => PrivateKey::random(&mut rng, Algorithm::Ed25519)?,
        HostKeyType::Ecdsa => PrivateKey::random(&mut rng, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })?,
        HostKeyType::Rsa => PrivateKey::from(RsaKeypair::random(&mut rng, RSA_BITS)?),
    };
    key.set_comment(comment.as_bytes());
    Ok(key)
}

/// Why no key could be made.
#[derive(Debug, Error)]
pub enum GenerateError {
    #[error("the kernel gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("making a host key failed: {0}")]
    Key(#[from] russh::keys::ssh_key::Error),
}

/// The file's content: OpenSSH's container, unencrypted.
pub fn encode(key: &PrivateKey) -> Result<Zeroizing<String>, russh::keys::ssh_key::Error> {
    key.to_openssh(LineEnding::LF)
}

/// The content of the .pub file.
pub fn encode_public(key: &PrivateKey) -> Result<String, russh::keys::ssh_key::Error> {
    key.public_key().to_openssh().map(|line| line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/hostkeys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn formats_of_openssh_openssl_and_nerves_are_read() {
        for (name, kind) in [
            ("openssh-ed25519", HostKeyType::Ed25519),
            ("nerves-ed25519", HostKeyType::Ed25519),
            ("pkcs1-rsa", HostKeyType::Rsa),
            ("pkcs8-rsa", HostKeyType::Rsa),
            ("openssh-rsa", HostKeyType::Rsa),
            ("sec1-ecdsa", HostKeyType::Ecdsa),
            ("pkcs8-ecdsa", HostKeyType::Ecdsa),
            ("pkcs8-ed25519", HostKeyType::Ed25519),
        ] {
            let key = decode(&sample(name)).unwrap_or_else(|error| panic!("{name} {error}"));
            assert_eq!(kind_of(&key), Ok(kind), "{name}");
        }
    }

    #[test]
    fn damage_is_refused() {
        let good = sample("openssh-ed25519");
        assert_eq!(decode(b"").unwrap_err(), KeyFileError::Empty);
        assert_eq!(decode(&good[..good.len() / 2]).unwrap_err(), KeyFileError::Unreadable);
        assert_eq!(decode(&[0xff; 400]).unwrap_err(), KeyFileError::Unreadable);
        assert_eq!(decode(&sample("encrypted-ed25519")).unwrap_err(), KeyFileError::Encrypted);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            let _ = decode(&bad);
        }
    }

    #[test]
    fn a_public_half_of_another_key_is_refused() {
        use data_encoding::BASE64;
        let key = generate(HostKeyType::Ed25519, "a").unwrap();
        let other = generate(HostKeyType::Ed25519, "b").unwrap();
        let ours = key.key_data().ed25519().unwrap().public.0;
        let theirs = other.key_data().ed25519().unwrap().public.0;
        let text = encode(&key).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let mut bytes = BASE64.decode(body.as_bytes()).unwrap();
        while let Some(at) = bytes.windows(32).position(|window| window == ours) {
            bytes[at..at + 32].copy_from_slice(&theirs);
        }
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            BASE64.encode(&bytes)
        );
        assert!(decode(text.as_bytes()).is_err());
    }

    #[test]
    fn what_is_made_can_be_read_back() {
        for kind in [HostKeyType::Ed25519, HostKeyType::Ecdsa] {
            let key = generate(kind, "myelin@board").unwrap();
            let text = encode(&key).unwrap();
            assert!(text.lines().all(|line| line.len() <= 70));
            let again = decode(text.as_bytes()).unwrap();
            assert_eq!(again.public_key().to_openssh(), key.public_key().to_openssh());
            assert!(encode_public(&key).unwrap().ends_with(" myelin@board\n"));
        }
    }
}
