//! A resource: what `meta.conf` promises about it, and reading it from the archive.

use std::io::Read;

use thiserror::Error;

use super::hash::Hash;
use crate::fwup::archive::ArchiveError;
use crate::fwup::archive::header::Entry;
use crate::fwup::archive::reader::ArchiveReader;
use crate::fwup::language::section::Section;
use crate::fwup::language::shown;
use crate::fwup::{hex, number};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: Vec<u8>,
    /// Data and the hole behind it, in turn.
    parts: Vec<(u64, u64)>,
    pub data_size: u64,
    /// With its holes.
    pub total_size: u64,
    hash: Option<[u8; 32]>,
}

/// What is read of a resource.
pub enum Piece<'a> {
    Data(&'a [u8]),
    /// So many bytes are not in the archive; `last` if nothing follows.
    Hole {
        length: u64,
        last: bool,
    },
}

impl Resource {
    pub fn parse(section: &Section) -> Result<Self, ResourceError> {
        let name = || shown(&section.title);
        let lengths = section.list("length");
        if lengths.len() > MOST_LENGTHS {
            return Err(ResourceError::Lengths { name: name() });
        }
        let numbers: Option<Vec<u64>> = lengths.iter().map(|text| number::parse_u64(text)).collect();
        let numbers = numbers.ok_or_else(|| ResourceError::Lengths { name: name() })?;
        let parts = numbers.chunks(2).map(|pair| (pair[0], pair.get(1).copied().unwrap_or(0))).collect();
        let data_size = sum(numbers.iter().step_by(2));
        let total_size = sum(numbers.iter());
        let hash = section.text("blake2b-256").and_then(hex::decode);
        match (data_size, total_size) {
            (Some(data_size), Some(total_size)) => {
                Ok(Self { name: section.title.clone(), parts, data_size, total_size, hash })
            }
            _ => Err(ResourceError::Lengths { name: name() }),
        }
    }

    /// An entry of another size than promised holds a delta, where it can tell its size.
    pub fn is_delta(&self, entry: &Entry) -> bool {
        self.parts.len() <= 1
            && self.total_size == self.data_size
            && entry.known_size().is_some_and(|size| size != self.data_size)
    }

    /// Reads the resource to its end and hands it on in pieces with their places. What it was handed to
    /// must not count as good before this returns without error.
    pub fn read<R: Read, E: From<ResourceError>>(
        &self,
        archive: &mut ArchiveReader<R>,
        mut sink: impl FnMut(u64, Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let name = || shown(&self.name);
        let hash = self.hash.ok_or_else(|| ResourceError::NoHash { name: name() })?;
        let failed = |source| ResourceError::Archive { name: name(), source };
        let mut hasher = Hash::new(self.data_size);
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        for (number, &(data, hole)) in self.parts.iter().enumerate() {
            let mut left = data;
            while left > 0 {
                let wanted = left.min(CHUNK as u64) as usize;
                let length = archive.read(&mut chunk[..wanted]).map_err(failed)?;
                if length > 0 {
                    sink(at, Piece::Data(&chunk[..length]))?;
                }
                if length < wanted {
                    return Err(ResourceError::Short { name: name() }.into());
                }
                chunk = hasher.update(chunk, length);
                at += length as u64;
                left -= length as u64;
            }
            if hole > 0 {
                sink(at, Piece::Hole { length: hole, last: number + 1 == self.parts.len() })?;
                at += hole;
            }
        }
        // The end of the entry is checked by reading it.
        if archive.read(&mut chunk[..1]).map_err(failed)? > 0 {
            return Err(ResourceError::Long { name: name() }.into());
        }
        if hasher.finish() != hash {
            return Err(ResourceError::WrongHash { name: name() }.into());
        }
        Ok(())
    }
}

/// `None` if it is more than any file can have.
fn sum<'a>(mut numbers: impl Iterator<Item = &'a u64>) -> Option<u64> {
    numbers.try_fold(0_u64, |sum, &number| sum.checked_add(number).filter(|&sum| sum <= LARGEST))
}

/// Progress moves, and a segment fits.
pub const CHUNK: usize = 128 * 1024;
const MOST_LENGTHS: usize = 256;
/// Offsets of files are signed.
const LARGEST: u64 = i64::MAX as u64;

#[derive(Debug, Error)]
pub enum ResourceError {
    #[error("'{name}': {source}")]
    Archive { name: String, source: ArchiveError },
    #[error("meta.conf gives no usable length for '{name}'")]
    Lengths { name: String },
    #[error("meta.conf has no usable blake2b-256 for '{name}': the archive cannot be trusted")]
    NoHash { name: String },
    #[error("'{name}' has fewer bytes than meta.conf promises, or was used already")]
    Short { name: String },
    #[error("'{name}' has more bytes than meta.conf promises")]
    Long { name: String },
    #[error("'{name}' does not match its blake2b-256: it was damaged or exchanged")]
    WrongHash { name: String },
    #[error("'{name}' is a delta, which this program cannot apply yet: send the full firmware")]
    Delta { name: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fwup::language::parser::read_meta_conf;
    use crate::fwup::language::variables::Variables;

    fn parse(settings: &str) -> Result<Resource, ResourceError> {
        let text = format!("file-resource a {{ {settings} }}");
        let top = read_meta_conf(text.into(), &mut Variables::default()).unwrap();
        Resource::parse(&top.sections("file-resource")[0])
    }

    #[test]
    fn lengths_add_up_or_are_refused() {
        let resource = parse("length={10,20,30}").unwrap();
        assert_eq!((resource.data_size, resource.total_size), (40, 60));
        assert_eq!(parse("").unwrap().total_size, 0);
        assert!(parse("length={9223372036854775807,1}").is_err());
        assert!(parse("length=-1").is_err());
        assert!(parse(&format!("length={{{}1}}", "1,".repeat(256))).is_err());
    }
}
