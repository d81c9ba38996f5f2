//! `.fw` archives: ZIP files that are read and written in one pass, without seeking.

pub mod header;
pub mod reader;
mod record;
mod window;
pub mod writer;

use std::io;

use thiserror::Error;

/// The entries before the resources.
pub const SIGNATURE_NAME: &[u8] = b"meta.conf.ed25519";
pub const META_CONF_NAME: &[u8] = b"meta.conf";

/// The name of the entry that holds a resource.
pub fn entry_name(resource: &[u8]) -> Vec<u8> {
    match resource.strip_prefix(b"/") {
        Some(name) => name.to_vec(),
        None => [DATA_FOLDER, resource].concat(),
    }
}

/// The resource that an entry holds; `None` for the folder entry `data/` of some ZIP tools.
pub fn resource_name(entry: &[u8]) -> Option<Vec<u8>> {
    match entry.strip_prefix(DATA_FOLDER) {
        Some(b"") => None,
        Some(name) => Some(name.to_vec()),
        None => Some([b"/", entry].concat()),
    }
}

/// Path and terminator fit 512 bytes in fwup.
pub const LONGEST_NAME: usize = 511;

const DATA_FOLDER: &[u8] = b"data/";

#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    #[error("the archive ends too early: send or copy it again")]
    Truncated,
    #[error("this is no firmware archive: it does not begin like a ZIP file")]
    NoArchive,
    #[error("entry '{name}' is encrypted, which is not supported")]
    Encrypted { name: String },
    #[error(
        "entry '{name}' is compressed with method {method}: only stored and deflated entries are supported"
    )]
    Method { name: String, method: u16 },
    #[error("entry '{name}' has a name of {length} bytes; {LONGEST_NAME} are the limit")]
    LongName { name: String, length: usize },
    #[error("entry '{name}' is damaged: its compressed data makes no sense")]
    Inflate { name: String },
    #[error("entry '{name}' is damaged: CRC or size do not match its data")]
    Mismatch { name: String },
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Read(error) }
    }
}
