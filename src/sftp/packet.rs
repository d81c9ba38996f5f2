//! Packets: what a request holds, and how an answer is put together.
//!
//! All numbers are big-endian; a string is its length in four bytes and that many bytes. File names are bytes.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::refusal::{self, Refusal};

/// The longest packet, without its length: what OpenSSH's server takes.
pub const MAX_PACKET: usize = 256 << 10;
/// The most that one READ brings or one WRITE may hold.
pub const MAX_DATA: usize = MAX_PACKET - (1 << 10);
/// PATH_MAX of Linux.
const MAX_PATH: usize = 4096;

/// What is left to be read of a request.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.take(N)?.try_into().map_err(|_| Refusal::Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A path without zero bytes that the kernel can take.
    pub fn path(&mut self) -> Result<&'a Path, Refusal> {
        let bytes = self.string()?;
        if bytes.contains(&0) {
            return Err(Refusal::Malformed);
        }
        if bytes.len() >= MAX_PATH {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG).into());
        }
        Ok(Path::new(OsStr::from_bytes(bytes)))
    }
}

/// Kinds of answers (draft-ietf-secsh-filexfer-02 section 3, OpenSSH's PROTOCOL).
pub const VERSION: u8 = 2;
const STATUS: u8 = 101;
pub const HANDLE: u8 = 102;
const DATA: u8 = 103;
pub const NAME: u8 = 104;
pub const ATTRS: u8 = 105;
pub const EXTENDED_REPLY: u8 = 201;

/// Answers that wait to be written.
#[derive(Default)]
pub struct Answers {
    pub bytes: Vec<u8>,
    /// What a file is read into.
    block: Vec<u8>,
}

impl Answers {
    /// Adds a whole answer: its kind, the number of its request, and what `fill` appends.
    pub fn add(&mut self, kind: u8, id: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(kind);
        put_u32(&mut self.bytes, id);
        fill(&mut self.bytes);
        self.set_length(start);
    }

    pub fn status(&mut self, id: u32, result: Result<(), Refusal>) {
        let (code, text) = match result {
            Ok(()) => (refusal::OK, "success".to_owned()),
            Err(refusal) => (refusal.code(), refusal.to_string()),
        };
        self.add(STATUS, id, |bytes| {
            put_u32(bytes, code);
            put_string(bytes, text.as_bytes());
            put_string(bytes, b"en");
        });
    }

    /// A DATA answer with up to `length` bytes that `read` gives; none if it gives none.
    pub fn data(
        &mut self,
        id: u32,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Made once: filling room with zeros for each answer costs as much as reading a file.
        if self.block.is_empty() {
            self.block = vec![0; MAX_DATA];
        }
        let done = read(self.block.get_mut(..length).unwrap_or_default())?;
        if done > 0 || length == 0 {
            let block = std::mem::take(&mut self.block);
            self.add(DATA, id, |bytes| put_string(bytes, block.get(..done).unwrap_or_default()));
            self.block = block;
        }
        Ok(done)
    }

    fn set_length(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start - 4).unwrap_or(0).to_be_bytes();
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length);
        }
    }
}

pub fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

pub fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

pub fn put_string(bytes: &mut Vec<u8>, text: &[u8]) {
    put_u32(bytes, u32::try_from(text.len()).unwrap_or(0));
    bytes.extend_from_slice(text.get(..u32::MAX as usize).unwrap_or(text));
}
