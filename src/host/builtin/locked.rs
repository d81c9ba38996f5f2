//! Private keys in the format of ssh-keygen (OpenSSH's PROTOCOL.key), locked with a passphrase or not.
//!
//! Only what ssh-keygen locks keys with since 2017 is unlocked, bcrypt and aes256-ctr, which the SSH server needs as well.
//! The library's own function brings every cipher that a key could have, and the program may not grow by so much.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use data_encoding::BASE64;
use russh::keys::ssh_key::Cipher;
use russh::keys::{PrivateKey, PublicKeyBase64};
use zeroize::Zeroizing;

use super::agent::put;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";

/// Reads a key of this format. Of one that is locked the public half is there to be read.
pub fn read(text: &str) -> Option<PrivateKey> {
    let body = text.split_once(BEGIN)?.1.split_once(END)?.0;
    let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
    base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let bytes = Zeroizing::new(BASE64.decode(&base64).ok()?);
    PrivateKey::from_bytes(&bytes).ok()
}

/// Whether a locked key is of the kind that [`unlock`] can unlock.
pub fn is_unlockable(key: &PrivateKey) -> bool {
    key.cipher() == Cipher::Aes256Ctr
}

/// `None` for a wrong passphrase.
pub fn unlock(key: &PrivateKey, passphrase: &str) -> Option<PrivateKey> {
    let locked = key.key_data().encrypted().filter(|_| is_unlockable(key))?;
    let (secret, iv) = key.kdf().derive_key_and_iv(key.cipher(), passphrase).ok()?;
    let mut bytes = Zeroizing::new(locked.to_vec());
    apply_keystream(&secret, &iv, &mut bytes)?;
    // Now it is one that never was locked, and is read as such: that finds two equal numbers at its beginning, which a
    // wrong passphrase does not give, and compares its public half.
    let mut open = Zeroizing::new(Vec::with_capacity(bytes.len() + 4096));
    open.extend_from_slice(MAGIC);
    for field in [&b"none"[..], b"none", b""] {
        put(&mut open, field);
    }
    // One key.
    open.extend(1_u32.to_be_bytes());
    put(&mut open, &key.public_key_bytes());
    put(&mut open, &bytes);
    PrivateKey::from_bytes(&open).ok()
}

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// AES in counter mode. Keys are short: a block at a time is fast enough.
fn apply_keystream(key: &[u8], iv: &[u8], bytes: &mut [u8]) -> Option<()> {
    let cipher = Aes256::new_from_slice(key).ok()?;
    let mut counter = u128::from_be_bytes(iv.try_into().ok()?);
    for piece in bytes.chunks_mut(16) {
        let mut block = Array::from(counter.to_be_bytes());
        cipher.encrypt_block(&mut block);
        piece.iter_mut().zip(&block).for_each(|(byte, mask)| *byte ^= mask);
        counter = counter.wrapping_add(1);
    }
    Some(())
}
