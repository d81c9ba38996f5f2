//! Reads an archive strictly from front to back. The central directory is never looked at.

use std::io::Read;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::header::{Entry, Fixed, Method};
use super::window::Window;
use super::{ArchiveError, LONGEST_NAME};

/// Before -> (next_entry) -> InEntry -> (read to its end) -> Between -> … -> Ended
pub struct ArchiveReader<R> {
    window: Window<R>,
    inflate: Decompress,
    state: State,
}

enum State {
    /// Nothing was read yet.
    Before,
    /// Behind the data (and the descriptor) of an entry.
    Between,
    InEntry(Open),
    Ended,
}

/// An entry whose data is being read.
struct Open {
    entry: Entry,
    data: Data,
    crc: Crc,
    read: u64,
    compressed: u64,
}

enum Data {
    Deflated,
    /// Stored, so many bytes are left.
    Stored(u64),
    /// Stored, and only a matching descriptor says where it ends.
    Unsized,
}

impl<R: Read> ArchiveReader<R> {
    pub fn new(stream: R) -> Self {
        Self { window: Window::new(stream), inflate: Decompress::new(false), state: State::Before }
    }

    /// Goes to the next entry, over what was not read of this one. `None` at the central directory.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        match self.state {
            State::Before => {
                let start = self.window.look(4)?;
                if start.len() < 4 {
                    return Err(ArchiveError::Truncated);
                }
                if ![ENTRY, END, DESCRIPTOR, SPANNED].iter().any(|begin| start.starts_with(begin)) {
                    return Err(ArchiveError::NoArchive);
                }
            }
            State::InEntry(_) => self.skip()?,
            State::Between => {}
            State::Ended => return Ok(None),
        }
        if !self.find_header()? {
            self.state = State::Ended;
            return Ok(None);
        }
        let fixed = Fixed::parse(&self.window.array()?);
        let (name_length, extra_length) = (fixed.name_length, fixed.extra_length);
        let name = self.window.vec(name_length)?;
        let extra = self.window.vec(extra_length)?;
        let entry = fixed.with(name, &extra)?;
        if name_length > LONGEST_NAME {
            return Err(ArchiveError::LongName { name: entry.shown_name(), length: name_length });
        }
        let data = match entry.method {
            Method::Deflated => {
                self.inflate.reset(false);
                Data::Deflated
            }
            Method::Stored if entry.has_descriptor && entry.known_size().is_none() => Data::Unsized,
            Method::Stored => Data::Stored(entry.size),
        };
        let open = Open { entry: entry.clone(), data, crc: Crc::new(), read: 0, compressed: 0 };
        self.state = State::InEntry(open);
        Ok(Some(entry))
    }

    /// Fills the buffer with data of the entry; fewer bytes mean that it has ended and was right.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let State::InEntry(open) = &mut self.state else { break };
            let rest = &mut buffer[filled..];
            let length = match &mut open.data {
                Data::Deflated => {
                    inflate(&mut self.window, &mut self.inflate, &open.entry, &mut open.compressed, rest)?
                }
                Data::Stored(left) => {
                    let length = copy(&mut self.window, rest, *left)?;
                    *left -= length as u64;
                    Some(length).filter(|&length| length > 0)
                }
                Data::Unsized => self.copy_unsized(rest)?,
            };
            let State::InEntry(open) = &mut self.state else { break };
            match length {
                Some(length) => {
                    open.crc.update(&buffer[filled..filled + length]);
                    open.read += length as u64;
                    filled += length;
                }
                None => self.end_entry()?,
            }
        }
        Ok(filled)
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        let mut scratch = vec![0; SCRATCH];
        while self.read(&mut scratch)? == scratch.len() {}
        Ok(())
    }

    /// Stands behind `PK\3\4` afterwards; false if the entries have ended.
    fn find_header(&mut self) -> Result<bool, ArchiveError> {
        loop {
            let bytes = self.window.look(4)?;
            if bytes.len() < 4 {
                return Err(ArchiveError::Truncated);
            }
            if bytes.starts_with(ENTRY) {
                self.window.take(4);
                return Ok(true);
            }
            if [DIRECTORY, END, END64].iter().any(|begin| bytes.starts_with(begin)) {
                return Ok(false);
            }
            let next = bytes.iter().skip(1).position(|&byte| byte == b'P');
            let step = next.map_or(bytes.len(), |at| at + 1);
            self.window.take(step);
        }
    }

    /// Data up to what may be a descriptor; `None` where it is one.
    fn copy_unsized(&mut self, out: &mut [u8]) -> Result<Option<usize>, ArchiveError> {
        let State::InEntry(open) = &mut self.state else { return Ok(None) };
        let bytes = self.window.look(DESCRIPTOR_AHEAD)?;
        if bytes.is_empty() {
            return Err(ArchiveError::Truncated);
        }
        let crc = open.crc.sum();
        if bytes.starts_with(DESCRIPTOR) && descriptor_length(bytes, crc, open.read, open.read).is_some() {
            open.compressed = open.read;
            return Ok(None);
        }
        let length = bytes.iter().skip(1).position(|&byte| byte == b'P').map_or(bytes.len(), |at| at + 1);
        Ok(Some(copy(&mut self.window, out, length as u64)?))
    }

    /// Checks CRC and sizes, wherever they stand.
    fn end_entry(&mut self) -> Result<(), ArchiveError> {
        let State::InEntry(open) = std::mem::replace(&mut self.state, State::Between) else { return Ok(()) };
        let crc = open.crc.sum();
        let compressed = if open.entry.method == Method::Stored { open.read } else { open.compressed };
        if open.entry.has_descriptor {
            let ahead = self.window.look(DESCRIPTOR_AHEAD)?;
            let cut = ahead.len() < DESCRIPTOR_SHORTEST;
            match descriptor_length(ahead, crc, compressed, open.read) {
                Some(length) => self.window.take(length),
                None if cut => return Err(ArchiveError::Truncated),
                None => return Err(ArchiveError::Mismatch { name: open.entry.shown_name() }),
            }
        } else if (open.entry.crc, open.entry.compressed_size, open.entry.size)
            != (crc, compressed, open.read)
        {
            return Err(ArchiveError::Mismatch { name: open.entry.shown_name() });
        }
        Ok(())
    }
}

/// Some bytes of a deflate stream; `None` at its end.
fn inflate<R: Read>(
    window: &mut Window<R>,
    inflate: &mut Decompress,
    entry: &Entry,
    compressed: &mut u64,
    out: &mut [u8],
) -> Result<Option<usize>, ArchiveError> {
    loop {
        let bytes = window.look(1)?;
        let ended = bytes.is_empty();
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(bytes, out, FlushDecompress::None)
            .map_err(|_| ArchiveError::Inflate { name: entry.shown_name() })?;
        let taken = inflate.total_in() - before_in;
        let length = (inflate.total_out() - before_out) as usize;
        window.take(taken as usize);
        *compressed += taken;
        if length > 0 {
            return Ok(Some(length));
        }
        match status {
            Status::StreamEnd => return Ok(None),
            _ if ended => return Err(ArchiveError::Truncated),
            // No progress although there was input and room: the decoder is stuck.
            _ if taken == 0 => return Err(ArchiveError::Inflate { name: entry.shown_name() }),
            _ => {}
        }
    }
}

/// At most `most` bytes as they are; 0 only when nothing more is wanted.
fn copy<R: Read>(window: &mut Window<R>, out: &mut [u8], most: u64) -> Result<usize, ArchiveError> {
    let wanted = usize::try_from(most).unwrap_or(usize::MAX).min(out.len());
    if wanted == 0 {
        return Ok(0);
    }
    let bytes = window.look(1)?;
    if bytes.is_empty() {
        return Err(ArchiveError::Truncated);
    }
    let length = wanted.min(bytes.len());
    out[..length].copy_from_slice(&bytes[..length]);
    window.take(length);
    Ok(length)
}

/// How long the data descriptor at the start of `ahead` is: with or without its signature, with sizes
/// of 4 or of 8 bytes. `None` if in no form all fields match.
fn descriptor_length(ahead: &[u8], crc: u32, compressed: u64, size: u64) -> Option<usize> {
    let crc = crc.to_le_bytes();
    let narrow = [compressed.to_le_bytes()[..4].to_vec(), size.to_le_bytes()[..4].to_vec()].concat();
    let wide = [compressed.to_le_bytes(), size.to_le_bytes()].concat();
    for signature in [DESCRIPTOR, b"".as_slice()] {
        for sizes in [&wide, &narrow] {
            let form = [signature, &crc, sizes].concat();
            if ahead.starts_with(&form) {
                return Some(form.len());
            }
        }
    }
    None
}

const ENTRY: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
const SPANNED: &[u8] = b"PK00";

const DESCRIPTOR_AHEAD: usize = 24;
const DESCRIPTOR_SHORTEST: usize = 12;
const SCRATCH: usize = 32 * 1024;
