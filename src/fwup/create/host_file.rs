//! What goes into a resource: its text, or files of this machine, perhaps without their holes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use blake2::Blake2b256;
use blake2::digest::Digest;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use thiserror::Error;

use super::CreateError;
use crate::fwup::hex;
use crate::fwup::language::section::Section;
use crate::fwup::language::shown;

pub enum Content {
    Text(Vec<u8>),
    Files(Vec<HostFile>),
}

pub struct HostFile {
    path: PathBuf,
    /// Data and the hole behind it, in turn.
    parts: Vec<(u64, u64)>,
}

impl Content {
    /// What a `file-resource` section says, and the sizes of its files as they are now.
    pub fn of(section: &Section) -> Result<Self, HostFileError> {
        let Some(paths) = section.text("host-path") else {
            return Ok(Self::Text(section.text_or_default("contents").to_vec()));
        };
        let files = paths.split(|&byte| byte == b';').filter(|path| !path.is_empty());
        let files = files.map(|path| {
            let path = section.host_folder.join(OsStr::from_bytes(path));
            let parts = measure(&path, section.flag("skip-holes"))
                .map_err(|source| HostFileError::Read { path: path.clone(), source })?;
            Ok(HostFile { path, parts })
        });
        Ok(Self::Files(files.collect::<Result<_, _>>()?))
    }

    /// Bytes in the archive.
    pub fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Files(files) => files.iter().flat_map(|file| &file.parts).map(|(data, _)| data).sum(),
        }
    }

    /// Sets length and hash of the section; checks the sizes that are asserted.
    pub fn measure(&self, section: &mut Section) -> Result<(), CreateError> {
        let mut lengths = self.lengths();
        let total: u64 = lengths.iter().sum();
        let limit = |name| u64::try_from(section.int(name)).ok().map(|blocks| blocks.saturating_mul(512));
        let checked = matches!(self, Self::Files(_));
        let too_large = limit("assert-size-lte").is_some_and(|limit| total > limit);
        let too_small = limit("assert-size-gte").is_some_and(|limit| total < limit);
        if checked && (too_large || too_small) {
            return Err(HostFileError::Asserted { name: shown(&section.title), size: total }.into());
        }
        let mut hash = Blake2b256::new();
        self.read(|bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        if lengths == [0] {
            lengths.clear();
        }
        section.set_list("length", lengths.iter().map(|length| length.to_string().into_bytes()).collect());
        section.set_text("blake2b-256", hex::encode(&hash.finalize()).into_bytes());
        Ok(())
    }

    /// Reads the data, without holes.
    pub fn read(&self, mut sink: impl FnMut(&[u8]) -> Result<(), CreateError>) -> Result<(), CreateError> {
        let files = match self {
            Self::Text(text) => return sink(text),
            Self::Files(files) => files,
        };
        let mut chunk = vec![0; CHUNK];
        for file in files {
            let failed = |source| HostFileError::Read { path: file.path.clone(), source };
            let mut opened = File::open(&file.path).map_err(failed)?;
            for &(data, hole) in &file.parts {
                let mut left = data;
                while left > 0 {
                    let part = left.min(CHUNK as u64) as usize;
                    // A file that became shorter since it was measured is an error.
                    opened.read_exact(&mut chunk[..part]).map_err(failed)?;
                    sink(&chunk[..part])?;
                    left -= part as u64;
                }
                let hole = i64::try_from(hole).map_err(|error| failed(io::Error::other(error)))?;
                opened.seek(SeekFrom::Current(hole)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The value of `length`: data, hole, data, … with equal neighbours merged.
    fn lengths(&self) -> Vec<u64> {
        let files = match self {
            Self::Text(text) => return vec![text.len() as u64],
            Self::Files(files) => files,
        };
        let mut lengths = vec![0];
        for &(data, hole) in files.iter().flat_map(|file| &file.parts) {
            for (is_hole, length) in [(false, data), (true, hole)] {
                if length == 0 {
                    continue;
                }
                if (lengths.len() % 2 == 0) == is_hole {
                    if let Some(last) = lengths.last_mut() {
                        *last += length;
                    }
                } else {
                    lengths.push(length);
                }
            }
        }
        lengths
    }
}

/// The parts of a file; one without holes, if they are not wanted or the file system does not tell.
fn measure(path: &PathBuf, skip_holes: bool) -> io::Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut parts = Vec::new();
    let mut at = 0;
    while skip_holes && at < size {
        let seek = |to: u64, whence| {
            let to = libc::off_t::try_from(to).map_err(|_| Errno::EOVERFLOW)?;
            lseek(&file, to, whence)
        };
        let hole = match seek(at, Whence::SeekHole) {
            Ok(hole) if parts.len() < MOST_PARTS => (hole as u64).clamp(at, size),
            // Too many holes, or a file system that knows none: the rest is data.
            _ => size,
        };
        let data = match seek(hole, Whence::SeekData) {
            Ok(data) => (data as u64).clamp(hole, size),
            Err(Errno::ENXIO) => size,
            Err(_) => hole,
        };
        parts.push((hole - at, data - hole));
        if data == at {
            break;
        }
        at = data;
    }
    if !skip_holes || at < size {
        parts.push((size - at, 0));
    }
    Ok(parts)
}

const CHUNK: usize = 128 * 1024;
/// `length` has at most 256 values.
const MOST_PARTS: usize = 127;

#[derive(Debug, Error)]
pub enum HostFileError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("file-resource '{name}' has {size} bytes, which its assert-size settings forbid")]
    Asserted { name: String, size: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_joined_part_by_part() {
        let file = |parts: &[(u64, u64)]| HostFile { path: PathBuf::new(), parts: parts.to_vec() };
        let lengths = |files| Content::Files(files).lengths();
        assert_eq!(lengths(vec![file(&[(10, 0)]), file(&[(5, 3)]), file(&[(0, 4), (2, 0)])]), [15, 7, 2]);
        assert_eq!(lengths(vec![file(&[(0, 8)])]), [0, 8]);
        assert_eq!(lengths(vec![file(&[])]), [0]);
    }
}
