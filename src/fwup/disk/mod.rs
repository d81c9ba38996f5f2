//! The destination: a device or an image file, and everything between an action and its blocks.

mod blocks;
mod buffer;
pub mod cache;
pub mod destination;
pub mod media;
mod medium;
mod mounts;
mod ranges;
mod running_root;
mod writer;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use medium::{Medium, sync_where_possible};

/// Bytes in a block; all offsets of configurations are in blocks.
pub const BLOCK: usize = 512;

/// Everything is read and written in aligned segments of this size: it suits O_DIRECT and flash memory.
pub const SEGMENT: usize = 128 * 1024;

/// Blocks in a segment.
const SEGMENT_BLOCKS: u64 = (SEGMENT / BLOCK) as u64;

#[derive(Debug, Error)]
pub enum DiskError {
    #[error("cannot open the destination {path}: {source}; check the path and its permissions", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the destination {path} is read-only: chmod it first", path = path.display())]
    ReadOnly { path: PathBuf },
    #[error("{path} could not be unmounted: stop what uses it, or give --no-unmount", path = path.display())]
    Unmount { path: PathBuf },
    #[error("cannot read the list of mounts: {source}")]
    Mounts { source: io::Error },
    #[error("cannot read {length} bytes at offset {offset} of the destination: {source}")]
    Read { offset: u64, length: usize, source: io::Error },
    #[error(
        "cannot write {length} bytes at offset {offset} of the destination: {source}; what was there may be damaged"
    )]
    Write { offset: u64, length: usize, source: io::Error },
    #[error("read back other bytes than written at offset {offset}: the medium is failing, replace it")]
    Verify { offset: u64 },
    #[error("block {block} lies beyond the end of the destination, which has {size} blocks")]
    BeyondEnd { block: u64, size: u64 },
    #[error("block {block} is beyond what any destination can have")]
    Absurd { block: u64 },
    #[error(
        "block {block} is part of the root file system that this system runs from: the firmware is too large for its \
         slot, or made for another layout"
    )]
    RunningRoot { block: u64 },
    #[error("the destination takes no data: choose a device or a file with -d")]
    NoData,
    #[error("cannot bring what was written to the medium: {source}")]
    Sync { source: io::Error },
    #[error("cannot close the destination: {source}")]
    Close { source: io::Error },
    #[error("the thread that writes has ended: {source}")]
    Writer { source: io::Error },
    #[error("no removable medium found: insert one, or choose with -d")]
    NoMedium,
    #[error("several removable media found: choose one with -d")]
    SeveralMedia,
    #[error("choose the destination with -d: stdin is the archive and cannot answer a question")]
    CannotAsk,
    #[error("stopped: {path} was not confirmed", path = path.display())]
    NotConfirmed { path: PathBuf },
}
