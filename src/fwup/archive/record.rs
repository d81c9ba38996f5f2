//! The records of an archive as bytes: local header, descriptor, central directory.

use std::io;

use super::ArchiveError;
use super::header::{EXTRA_TIME, EXTRA_ZIP64, FLAG_DESCRIPTOR, Method};
use crate::fwup::time::Date;

/// What the archive says about an entry.
pub struct Record {
    pub name: Vec<u8>,
    pub method: Method,
    /// Seconds since 1970, for the one entry that has a time.
    pub modified: Option<i64>,
    pub crc: u32,
    pub compressed: u64,
    pub size: u64,
    /// Where the entry begins.
    pub offset: u64,
}

impl Record {
    /// In front of the data. CRC and compressed size follow behind it, the size stands here already.
    pub fn local_header(&self) -> Result<Vec<u8>, ArchiveError> {
        let compressed = if self.method == Method::Stored { self.size } else { 0 };
        let wide = if self.is_wide() { vec![self.size, compressed] } else { Vec::new() };
        let extra = self.extra(&wide);
        let compressed = if self.is_wide() { u32::MAX } else { compressed as u32 };
        let fixed = self.common(0, compressed);
        Ok([b"PK\x03\x04".as_slice(), &fixed, &half(extra.len())?, &self.name, &extra].concat())
    }

    /// Behind the data.
    pub fn descriptor(&self) -> Vec<u8> {
        let width = if self.is_wide() { 8 } else { 4 };
        let mut bytes = [b"PK\x07\x08".as_slice(), &self.crc.to_le_bytes()].concat();
        for number in [self.compressed, self.size] {
            bytes.extend_from_slice(&number.to_le_bytes()[..width]);
        }
        bytes
    }

    /// In the central directory.
    pub fn directory_record(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut wide = if self.is_wide() { vec![self.size, self.compressed] } else { Vec::new() };
        if self.offset >= WIDE_FROM {
            wide.push(self.offset);
        }
        let extra = self.extra(&wide);
        let compressed = if self.is_wide() { u32::MAX } else { self.compressed as u32 };
        Ok([
            b"PK\x01\x02".as_slice(),
            MADE_BY_UNIX,
            &self.common(self.crc, compressed),
            &half(extra.len())?,
            // No comment, first disk, no internal attributes.
            &[0; 6],
            &(MODE_OF_FILES << 16).to_le_bytes(),
            &narrow(self.offset),
            &self.name,
            &extra,
        ]
        .concat())
    }

    /// Its sizes take 64 bits. Deflated data may be a little longer than what it is made from.
    fn is_wide(&self) -> bool {
        self.size >= WIDE_FROM
    }

    /// What local header and directory record share: version needed … length of the name.
    fn common(&self, crc: u32, compressed: u32) -> Vec<u8> {
        let (version, method): (u16, u16) = match self.method {
            Method::Stored => (10, 0),
            Method::Deflated => (20, 8),
        };
        let version = if self.is_wide() { VERSION_WIDE } else { version };
        let (time, date) = self.modified.map_or(EPOCH_OF_DOS, dos_time);
        let size = if self.is_wide() { u32::MAX } else { self.size as u32 };
        [
            version.to_le_bytes().as_slice(),
            &FLAG_DESCRIPTOR.to_le_bytes(),
            &method.to_le_bytes(),
            &time.to_le_bytes(),
            &date.to_le_bytes(),
            &crc.to_le_bytes(),
            &compressed.to_le_bytes(),
            &size.to_le_bytes(),
            &(self.name.len() as u16).to_le_bytes(),
        ]
        .concat()
    }

    fn extra(&self, wide: &[u64]) -> Vec<u8> {
        let mut extra = Vec::new();
        if !wide.is_empty() {
            let numbers: Vec<_> = wide.iter().flat_map(|number| number.to_le_bytes()).collect();
            extra.extend(field(EXTRA_ZIP64, &numbers));
        }
        if let Some(seconds) = self.modified {
            let seconds = i32::try_from(seconds).unwrap_or(i32::MAX).to_le_bytes();
            extra.extend(field(EXTRA_TIME, &[[1].as_slice(), &seconds].concat()));
        }
        extra
    }
}

/// Behind the central directory, which has so many records and bytes and begins at `start`.
pub fn end_of_archive(count: u64, length: u64, start: u64) -> Vec<u8> {
    let mut end = Vec::new();
    if count >= u16::MAX.into() || length >= WIDE_FROM || start >= WIDE_FROM {
        end.extend(b"PK\x06\x06");
        end.extend(44_u64.to_le_bytes());
        end.extend([VERSION_WIDE.to_le_bytes(); 2].concat());
        end.extend([0; 8]);
        for number in [count, count, length, start] {
            end.extend(number.to_le_bytes());
        }
        end.extend(b"PK\x06\x07\0\0\0\0");
        end.extend((start + length).to_le_bytes());
        end.extend(1_u32.to_le_bytes());
    }
    end.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
    end.extend([count, count].concat());
    end.extend(narrow(length));
    end.extend(narrow(start));
    end.extend([0, 0]);
    end
}

fn field(id: u16, bytes: &[u8]) -> Vec<u8> {
    [id.to_le_bytes().as_slice(), &(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

fn half(length: usize) -> Result<[u8; 2], ArchiveError> {
    let length = u16::try_from(length).map_err(|error| ArchiveError::Write(io::Error::other(error)))?;
    Ok(length.to_le_bytes())
}

/// What does not fit stands in the wide fields.
fn narrow(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// Time and date of MS-DOS, in UTC: the time zone of a build machine must not change an archive.
fn dos_time(seconds: i64) -> (u16, u16) {
    let date = Date::from_unix(seconds);
    if !(1980..=2107).contains(&date.year) {
        return EPOCH_OF_DOS;
    }
    let time = date.hour << 11 | date.minute << 5 | (date.second / 2);
    let day = (date.year - 1980) << 9 | i64::from(date.month) << 5 | i64::from(date.day);
    (time, day as u16)
}

const EPOCH_OF_DOS: (u16, u16) = (0, 0x0021);
const WIDE_FROM: u64 = 0xFFFF_0000;
const VERSION_WIDE: u16 = 45;
const MADE_BY_UNIX: &[u8] = &[20, 3];
const MODE_OF_FILES: u32 = 0o100_644;
