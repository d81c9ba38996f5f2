//! FAT12, FAT16 and FAT32 volumes on the destination, as the `fat_` actions of an archive use them.
//!
//! Owns the on-disk format: the boot sector, the allocation table, folders and their names. Works on
//! blocks that the caller hands in and keeps no copy of file data; what it holds of a volume is one
//! small window of the table. It never opens a device, and it trusts nothing it reads: every chain is
//! followed for a bounded number of steps and every number from the disk is checked before its use.
//!
//! All time stamps are 1980-01-01 00:00:00, so that equal input gives equal volumes.

mod boot;
mod dir;
mod file;
mod mkfs;
mod name;
mod table;
mod volume;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;

use std::io;

pub use file::FileWriter;
pub use mkfs::mkfs;
pub use volume::Volume;

/// Whole 512-byte blocks of the destination.
pub trait Blocks {
    /// Reads `out.len() / 512` blocks; the length is a multiple of 512.
    fn read(&mut self, block: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data.len() / 512` blocks. `streamed` marks bulk data that nobody will touch again soon,
    /// so that a cache may pass it on at once.
    fn write(&mut self, block: u64, data: &[u8], streamed: bool) -> io::Result<()>;
}

/// Why an operation on a volume failed. The caller adds which action it was.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "there is no FAT volume at block {offset} ({reason}): check the offset, or create one with fat_mkfs"
    )]
    NotFat { offset: u64, reason: &'static str },
    #[error("the FAT volume is damaged ({0}): repair it, or create it again with fat_mkfs")]
    Damaged(&'static str),
    #[error("no FAT volume can have {0} blocks: use 128 to 4085, 4153 to 66076, or 66600 and more")]
    Size(u64),
    #[error("'{0}' does not exist on the FAT volume")]
    NotFound(String),
    #[error("the folder of '{0}' does not exist on the FAT volume: create it with fat_mkdir first")]
    NoFolder(String),
    #[error("'{0}' exists already: remove it first")]
    Exists(String),
    #[error("'{0}' is a folder, a file is needed")]
    IsFolder(String),
    #[error("'{0}' is read-only: clear that with fat_attrib first")]
    ReadOnly(String),
    #[error("the folder '{0}' is not empty: remove what is in it first")]
    NotEmpty(String),
    #[error("the folder '{0}' cannot be moved into itself")]
    IntoItself(String),
    #[error("the FAT volume is full: make it larger, or write less to it")]
    Full,
    #[error("the folder of '{0}' has no room for another name")]
    FolderFull(String),
    #[error("a file on a FAT volume cannot have 4 GiB or more")]
    TooLarge,
    #[error("'{0}' is no name for a file on a FAT volume")]
    Name(String),
    #[error("'{0}' is no volume label: use at most 11 characters, without \" * + , . : ; < = > ? [ ] |")]
    Label(String),
}

/// Bytes in a block of the destination and in a sector of every volume we use.
const SECTOR: usize = 512;

/// File data beyond this sector of a volume is handed on as streamed; before it lie the tables, which
/// are written again and again.
const STREAMED_FROM: u32 = 2048;

/// 1980-01-01 as FAT stores a date; the time 00:00:00 is zero.
const DATE_1980: u16 = 0x0021;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut n = [0; 2];
    n.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(n)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(n)
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
