//! The keys of which one must have signed a firmware: read, or every update is refused.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use thiserror::Error;

use crate::files::{self, FileError};

/// Reads the entries of `firmware.public_keys`, as base64 for fwup's `--public-key`.
///
/// All or nothing: with a key missing, fwup would take firmware that its owner did not mean to allow, and
/// with none left it would take anything.
pub fn read(entries: &[String]) -> Result<Vec<String>, PublicKeyError> {
    if entries.len() > MAX_KEYS {
        return Err(PublicKeyError::TooMany { count: entries.len() });
    }
    entries.iter().map(|entry| read_one(entry)).collect()
}

fn read_one(entry: &str) -> Result<String, PublicKeyError> {
    let path = Path::new(entry);
    // Of all keys one in 64 begins with a slash in base64.
    match decode(entry.as_bytes()) {
        Some(key) if !path.exists() => return Ok(key),
        None if !entry.starts_with('/') => return Err(PublicKeyError::Text { entry: entry.into() }),
        _ => {}
    }
    let bytes = files::read_limited(path, MAX_FILE)?;
    let raw = <&[u8; KEY_LEN]>::try_from(bytes.as_slice()).ok().map(|key| BASE64.encode(key));
    raw.or_else(|| decode(&bytes)).ok_or_else(|| PublicKeyError::File { path: path.into() })
}

/// Base64 of 32 bytes, with or without padding and a line end.
fn decode(text: &[u8]) -> Option<String> {
    let mut text = text.trim_ascii().to_vec();
    if text.len() == KEY_TEXT - 1 {
        text.push(b'=');
    }
    let key = BASE64.decode(&text).ok()?;
    (key.len() == KEY_LEN).then(|| BASE64.encode(&key))
}

const KEY_LEN: usize = 32;
const KEY_TEXT: usize = 44;
const MAX_FILE: u64 = 4096;
/// fwup looks at no more than these.
const MAX_KEYS: usize = 10;

/// Why updates are refused until the configuration is mended.
#[derive(Debug, Error)]
pub enum PublicKeyError {
    #[error("`{entry}` in firmware.public_keys is neither base64 of 32 bytes nor an absolute path: mend it")]
    Text { entry: String },
    #[error("{path}, named in firmware.public_keys, does not hold base64 of 32 bytes: replace it", path = path.display())]
    File { path: PathBuf },
    #[error("a file named in firmware.public_keys: {0}")]
    Read(#[from] FileError),
    #[error("{count} entries in firmware.public_keys: fwup looks at {MAX_KEYS} only, remove some")]
    TooMany { count: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "hvXL86eD2BzCsJ9F0mFFbZhUBHLCzTUhAkEZ0a2kJpE=";

    #[test]
    fn keys_are_text_or_files_of_text_or_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (text, raw) = (folder.path().join("fwup-key.pub"), folder.path().join("raw.pub"));
        files::replace(&text, format!("{KEY}\n").as_bytes(), 0o644).unwrap();
        files::replace(&raw, &[7; 32], 0o644).unwrap();
        let entries =
            [KEY, KEY.trim_end_matches('='), text.to_str().unwrap(), raw.to_str().unwrap()].map(String::from);
        let keys = read(&entries).unwrap();
        assert_eq!(keys, [KEY, KEY, KEY, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_key_may_look_like_a_path() {
        let key = "/whOhu9+RUXloBuDOVpXipl5BVbWb2QalkVDExVFDGE=";
        assert_eq!(read(&[key.into()]).unwrap(), [key]);
    }

    #[test]
    fn one_entry_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        files::replace(&path, b"no key", 0o644).unwrap();
        for wrong in ["", "AAAA", "relative/key.pub", path.to_str().unwrap(), "/nonexistent/key"] {
            assert!(read(&[KEY.into(), wrong.into()]).is_err(), "{wrong}");
        }
        assert!(read(&vec![KEY.to_owned(); 11]).is_err());
    }
}
