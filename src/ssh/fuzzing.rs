//! What strangers, clients and files say to the SSH daemon.

mod connection;

pub use connection::connection;

use super::authorized_keys::{key_in_line, parse_line};
use super::connection::observer::Observer;
use super::host_keys::key_file;
use super::moduli::Wanted;
use super::subsystem::legacy;

/// A line of authorized_keys, with its options.
pub fn authorized_keys(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(Some(key)) = parse_line(&text) {
        assert!(
            key_in_line(&text).is_some_and(|found| found.same(&key)),
            "a key that is not in its own line"
        );
        let _ = (key.kind(), key.comment().len(), key.fingerprint(), key.bits());
        let peer = [127, 0, 0, 1].into();
        let _ = (key.options().refusal(peer), key.options().allow_subsystem("sftp"));
    }
}

/// A connection before it is encrypted; however it is cut into pieces, the same is seen.
pub fn before_encryption(data: &[u8]) {
    let (mut whole, mut pieces) = (Observer::default(), Observer::default());
    let at_once = whole.see(data);
    let by_three = data.chunks(3).try_for_each(|piece| pieces.see(piece));
    assert_eq!(at_once.is_ok(), by_three.is_ok());
    assert_eq!(whole.progress(), pieces.progress());
}

/// The header of the legacy protocol.
pub fn legacy_header(data: &[u8]) {
    let _ = legacy::parse(data);
}

/// A file of groups; a group that is found has the size that was asked for.
pub fn moduli(data: &[u8]) {
    let wanted = Wanted { size: 3072, limits: 2048..=8192 };
    for random in 0..2 {
        if let Some(group) = wanted.find_in(data, random).0 {
            assert!(
                wanted.limits.contains(&group.bit_size())
                    && group.prime.last().is_some_and(|last| last % 2 == 1)
            );
        }
    }
}

/// A host key in any of its formats.
pub fn host_key(data: &[u8]) {
    if let Ok(key) = key_file::decode(data) {
        let _ = (key_file::kind_of(&key), key_file::encode_public(&key));
    }
}
