//! Ed25519 keys of archives: reading them, making a pair, signing and checking `meta.conf`.
//!
//! A key is 32 (public) or 64 (private: seed, then public key) bytes, raw or in base64.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64_NOPAD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

pub const SIGNATURE_LEN: usize = 64;

#[derive(Clone)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key file; what stands behind the key in it is ignored.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        Self::from_text(&read_start(path, 44)?)
    }

    pub fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        let bytes = decode::<32>(text).ok_or(KeyError::NoPublicKey)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| KeyError::NoPublicKey)
    }

    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

pub struct PrivateKey(SigningKey);

impl PrivateKey {
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        Self::from_text(&read_start(path, 88)?)
    }

    pub fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(decode::<64>(text).ok_or(KeyError::NoPrivateKey)?);
        let seed = bytes.first_chunk::<32>().ok_or(KeyError::NoPrivateKey)?;
        Ok(Self(SigningKey::from_bytes(seed)))
    }

    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }
}

/// Makes PREFIX.pub and PREFIX.priv, never replacing a file; returns what to tell the user.
pub fn generate(prefix: &Path) -> Result<String, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| KeyError::Random { reason: error.to_string() })?;
    let pair = SigningKey::from_bytes(&seed);
    let secret = Zeroizing::new(BASE64.encode(&Zeroizing::new(pair.to_keypair_bytes())[..]));
    write_new(&with_ending(prefix, ".pub"), &BASE64.encode(pair.verifying_key().as_bytes()))?;
    write_new(&with_ending(prefix, ".priv"), &secret)?;
    let name: String =
        prefix.file_name().unwrap_or_default().to_string_lossy().chars().take(LONGEST_SHOWN_NAME).collect();
    Ok(format!(
        "Firmware signing keys saved to '{name}.pub' and '{name}.priv'\n\n\
         Distribute '{name}.pub' with your system so that it can check firmware updates.\n\
         Keep '{name}.priv' where only you can read it.\n"
    ))
}

/// Exactly N raw bytes, or base64 of N bytes up to the first character that is not base64.
fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if let Ok(raw) = text.try_into() {
        return Some(raw);
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let length = text.iter().take_while(|byte| is_base64(byte)).count();
    BASE64_NOPAD.decode(text.get(..length)?).ok()?.try_into().ok()
}

fn read_start(path: &Path, length: u64) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize));
    File::open(path)
        .and_then(|file| file.take(length).read_to_end(&mut bytes))
        .map_err(|source| KeyError::Read { path: path.into(), source })?;
    Ok(bytes)
}

fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| KeyError::Write { path: path.into(), source })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| KeyError::Write { path: path.into(), source })
}

fn with_ending(prefix: &Path, ending: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

const LONGEST_SHOWN_NAME: usize = 32;

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("cannot read the key {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("this is no public key: give 32 bytes, or base64 of them, as in a .pub file of `-g`")]
    NoPublicKey,
    #[error("this is no private key: give 64 bytes, or base64 of them, as in a .priv file of `-g`")]
    NoPrivateKey,
    #[error("the system gives no random bytes: {reason}")]
    Random { reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_raw_and_in_every_base64_form() {
        let raw = [7; 32];
        let text = BASE64.encode(&raw);
        for form in [raw.to_vec(), text.clone().into_bytes(), text[..43].into(), format!("{text}\n").into()] {
            assert_eq!(decode::<32>(&form), Some(raw));
        }
        for wrong in [&text[..42], &text[4..], "", "!", &format!("{}{text}", &text[..4])] {
            assert_eq!(decode::<32>(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
