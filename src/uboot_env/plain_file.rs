//! A plain file of `name=value` lines, for boards without an environment block.
//!
//! Comments and the order of lines stay as they are. Values cannot hold line ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::codec::{CodecError, Environment};
use crate::files::{self, FileError};

/// An environment in a plain file.
#[derive(Clone, Debug)]
pub struct PlainFile {
    path: PathBuf,
}

impl PlainFile {
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// A file that does not exist yet is empty; lines that are no variables are passed over.
    pub fn read(&self) -> Result<Environment, PlainFileError> {
        Ok(parse(&self.content()?))
    }

    /// Changes variables and replaces the file, if anything is different then. The caller holds the update lock.
    pub fn update(
        &self,
        change: impl FnOnce(&mut Environment) -> Result<(), CodecError>,
    ) -> Result<(), PlainFileError> {
        let content = self.content()?;
        let before = parse(&content);
        let mut environment = before.clone();
        change(&mut environment)?;
        if environment != before {
            files::write_atomic(&self.path, &rewrite(&content, &environment)?, 0o644)?;
        }
        Ok(())
    }

    fn content(&self) -> Result<Vec<u8>, PlainFileError> {
        match files::read_limited(&self.path, MAX_FILE) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            content => Ok(content?),
        }
    }
}

/// The variable of a line, if it is one.
fn variable(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii();
    let equals = line.iter().position(|&byte| byte == b'=')?;
    let (name, value) = line.split_at(equals);
    let name = name.trim_ascii_end();
    (!name.is_empty() && !name.starts_with(b"#")).then_some((name, value.get(1..)?.trim_ascii_start()))
}

fn parse(content: &[u8]) -> Environment {
    let mut environment = Environment::default();
    for (name, value) in content.split(|&byte| byte == b'\n').filter_map(variable) {
        // A line with a zero byte in it is no variable either.
        let _ = environment.set(name, value);
    }
    environment
}

fn rewrite(content: &[u8], environment: &Environment) -> Result<Vec<u8>, PlainFileError> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut written = BTreeSet::new();
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    for line in content.split(|&byte| byte == b'\n') {
        match variable(line).map(|(name, _)| (name, environment.get_bytes(name))) {
            None => lines.push(line.to_vec()),
            Some((name, Some(value))) if written.insert(name) => lines.push([name, b"=", value].concat()),
            Some(_) => {}
        }
    }
    lines.retain(|line| !line.is_empty());
    let new = environment.iter().filter(|(name, _)| !written.contains(name));
    lines.extend(new.map(|(name, value)| [name, b"=", value].concat()));
    for (name, value) in environment.iter() {
        let plain = |bytes: &[u8]| !bytes.contains(&b'\n') && bytes.trim_ascii() == bytes;
        if !plain(name) || !plain(value) || name.starts_with(b"#") {
            return Err(PlainFileError::Value { name: String::from_utf8_lossy(name).into_owned() });
        }
    }
    let mut bytes = lines.join(&b'\n');
    bytes.push(b'\n');
    Ok(bytes)
}

const MAX_FILE: u64 = 256 << 10;

#[derive(Debug, Error)]
pub enum PlainFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Variable(#[from] CodecError),
    #[error("`{name}` has blanks at an end or several lines, which a file of name=value lines cannot hold")]
    Value { name: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PlainFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firmware.env");
        files::replace(&path, text.as_bytes(), 0o644).unwrap();
        (folder, PlainFile::new(&path))
    }

    #[test]
    fn comments_and_order_survive_a_change() {
        let (_folder, file) = file("# slots\nnerves_fw_active = a\r\nb.x=1\nnonsense\nb.x=2\na.x=y=z");
        let environment = file.read().unwrap();
        assert_eq!(environment.get("nerves_fw_active"), Some("a"));
        assert_eq!((environment.get("b.x"), environment.get("a.x")), (Some("2"), Some("y=z")));
        file.update(|environment| {
            environment.unset("a.x");
            environment.set("new", "")?;
            environment.set("nerves_fw_active", "b")
        })
        .unwrap();
        let text = std::fs::read_to_string(&file.path).unwrap();
        assert_eq!(text, "# slots\nnerves_fw_active=b\nb.x=2\nnonsense\nnew=\n");
    }

    #[test]
    fn a_missing_file_is_empty_and_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = PlainFile::new(&folder.path().join("none"));
        assert_eq!(file.read().unwrap(), Environment::default());
        file.update(|_| Ok(())).unwrap();
        assert!(!file.path.exists());
        file.update(|environment| environment.set("a", "1")).unwrap();
        assert_eq!(file.read().unwrap().get("a"), Some("1"));
    }

    #[test]
    fn values_that_would_come_back_changed_are_refused() {
        let (_folder, file) = file("a=1\n");
        for value in ["two\nlines", " blank"] {
            assert!(file.update(|environment| environment.set("a", value)).is_err());
        }
        assert_eq!(file.read().unwrap().get("a"), Some("1"));
    }
}
