//! Adds and removes lines in the text of an authorized_keys file. Every other byte of it stays.
//!
//! Works on bytes in memory; who reads and writes the file is the command's business.

use thiserror::Error;

use crate::ssh::authorized_keys::{Key, LineError, key_in_line, parse_line};

/// What became of a line that was to be added.
#[derive(Debug, PartialEq, Eq)]
pub enum Added {
    Appended(Vec<u8>),
    /// The key has a line already, this one.
    AlreadyThere {
        line: usize,
    },
}

/// Why a line is not added.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum AddError {
    #[error(transparent)]
    Refused(#[from] LineError),
    #[error("a comment or a blank line is no key")]
    NoKey,
    #[error("line {line} of the file holds this key, but {reason}; remove that line first")]
    RefusedBefore { line: usize, reason: LineError },
}

/// Appends a line, unless its key is there.
pub fn add(content: &[u8], line: &str, required_rsa_size: u32) -> Result<Added, AddError> {
    let line = line.trim();
    let key = parse_line(line)?.ok_or(AddError::NoKey)?;
    key.check_size(required_rsa_size)?;
    for (index, text) in lines(content).enumerate() {
        if !key_in_line(&text).is_some_and(|known| known.same(&key)) {
            continue;
        }
        return match parse_line(&text) {
            Ok(_) => Ok(Added::AlreadyThere { line: index + 1 }),
            Err(reason) => Err(AddError::RefusedBefore { line: index + 1, reason }),
        };
    }
    let mut new = content.to_vec();
    if new.last().is_some_and(|byte| *byte != b'\n') {
        new.push(b'\n');
    }
    new.extend(line.bytes());
    new.push(b'\n');
    Ok(Added::Appended(new))
}

/// What a user may say to name a key.
#[derive(Debug)]
pub enum Selector {
    /// `SHA256:…`
    Fingerprint(String),
    /// The base64 of the key.
    Blob(String),
    /// A line with this key; the comment does not count.
    Key(Box<Key>),
    /// A line that holds no key, word for word.
    Text(String),
}

impl Selector {
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(key) = key_in_line(text) {
            return Self::Key(Box::new(key));
        }
        if text.starts_with("SHA256:") {
            return Self::Fingerprint(text.trim_end_matches('=').to_owned());
        }
        if text.starts_with("AAAA") && !text.contains([' ', '\t']) {
            return Self::Blob(text.to_owned());
        }
        Self::Text(text.to_owned())
    }

    pub fn selects(&self, key: &Key) -> bool {
        match self {
            Self::Fingerprint(wanted) => key.fingerprint() == *wanted,
            Self::Blob(wanted) => key.blob() == *wanted,
            Self::Key(wanted) => key.same(wanted),
            Self::Text(_) => false,
        }
    }

    fn selects_line(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => !wanted.is_empty() && text.trim() == wanted,
            _ => key_in_line(text).is_some_and(|key| self.selects(&key)),
        }
    }
}

/// The text without the lines that are selected, and how many those were.
pub fn remove(content: &[u8], selector: &Selector) -> (Vec<u8>, usize) {
    let mut kept = Vec::with_capacity(content.len() + 1);
    let mut removed = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if selector.selects_line(&text_of(line)) {
            removed += 1;
        } else {
            kept.extend_from_slice(line);
        }
    }
    if kept.last().is_some_and(|byte| *byte != b'\n') {
        kept.push(b'\n');
    }
    (kept, removed)
}

fn lines(content: &[u8]) -> impl Iterator<Item = String> {
    content.split(|byte| *byte == b'\n').map(text_of)
}

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_start_matches('\u{feff}').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN+Wjn4+4Fcvl2JlKpggT+wCRxpSvtqqpVrQrKN1/A22";
    const PRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

    fn added(content: &str, line: &str) -> String {
        match add(content.as_bytes(), line, 2048) {
            Ok(Added::Appended(bytes)) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_gets_a_line_of_its_own() {
        assert_eq!(added("", KEY), format!("{KEY}\n"));
        assert_eq!(added("# no newline", &format!(" {KEY} me \n")), format!("# no newline\n{KEY} me\n"));
    }

    #[test]
    fn a_key_is_added_once_whatever_its_comment() {
        let content = format!("# mine\n{KEY} one\n");
        let again = add(content.as_bytes(), &format!("{KEY} two"), 2048);
        assert_eq!(again, Ok(Added::AlreadyThere { line: 2 }));
    }

    #[test]
    fn what_could_not_log_in_is_not_added() {
        assert!(matches!(add(b"", &format!("principals=\"a\" {KEY}"), 2048), Err(AddError::Refused(_))));
        assert!(matches!(add(b"", "# comment", 2048), Err(AddError::NoKey)));
        let restricted = format!("principals=\"a\" {KEY}\n");
        assert!(matches!(
            add(restricted.as_bytes(), KEY, 2048),
            Err(AddError::RefusedBefore { line: 1, reason: LineError::BadOption("principals") })
        ));
    }

    #[test]
    fn removing_keeps_every_other_byte() {
        let mut content = format!("\u{feff}# caf\u{e9}\r\ngarbage \nrestrict {OTHER}\n{KEY} me").into_bytes();
        content.splice(6..6, [0xe9]);
        let (kept, removed) = remove(&content, &Selector::parse(PRINT));
        assert_eq!(removed, 1);
        assert_eq!(kept, content[..content.len() - KEY.len() - 3]);
    }

    #[test]
    fn keys_are_named_by_fingerprint_blob_or_line() {
        let content = format!("{OTHER} o\n{KEY} k\ngarbage line\n");
        let blob = KEY.split(' ').nth(1).unwrap();
        for name in [PRINT, blob, KEY, &format!("{KEY} another comment")] {
            let (kept, removed) = remove(content.as_bytes(), &Selector::parse(name));
            assert_eq!((removed, kept.starts_with(OTHER.as_bytes())), (1, true), "{name}");
        }
        assert_eq!(remove(content.as_bytes(), &Selector::parse("garbage line")).1, 1);
        assert_eq!(remove(content.as_bytes(), &Selector::parse("garbage")).1, 0);
        assert_eq!(remove(content.as_bytes(), &Selector::parse("")).1, 0);
    }
}
