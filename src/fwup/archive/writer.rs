//! Writes an archive in one pass: local header, data, descriptor, and at the end the central directory.
//!
//! The uncompressed size stands in the local header already, as older versions of fwup wrote it: by it a
//! delta that is put in later is recognised.

use std::io::{self, Write};

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::ArchiveError;
use super::header::{EXTRA_TIME, EXTRA_ZIP64, FLAG_DESCRIPTOR, Method};

pub struct ArchiveWriter<W> {
    out: Counted<W>,
    level: u32,
    directory: Vec<Written>,
}

/// What the central directory says about an entry.
struct Written {
    name: Vec<u8>,
    method: Method,
    /// Seconds since 1970, for the one entry that has a time.
    modified: Option<i64>,
    crc: u32,
    compressed: u64,
    size: u64,
    offset: u64,
    zip64: bool,
}

/// An entry that is being written.
pub struct EntryWriter<'a, W> {
    archive: &'a mut ArchiveWriter<W>,
    entry: Written,
    crc: Hasher,
    deflate: Option<Compress>,
    buffer: Vec<u8>,
}

impl<W: Write> ArchiveWriter<W> {
    pub fn new(out: W, level: u32) -> Self {
        Self { out: Counted { out, count: 0 }, level, directory: Vec::new() }
    }

    /// Begins an entry of so many bytes.
    pub fn entry(
        &mut self,
        name: &[u8],
        method: Method,
        size: u64,
        modified: Option<i64>,
    ) -> Result<EntryWriter<'_, W>, ArchiveError> {
        let deflate =
            (method == Method::Deflated).then(|| Compress::new(Compression::new(self.level), false));
        let entry = Written {
            name: name.to_vec(),
            method,
            modified,
            crc: 0,
            compressed: 0,
            size,
            offset: self.out.count,
            // Deflated data may be a little longer than what it is made from.
            zip64: size >= ZIP64_FROM,
        };
        let mut extra = Vec::new();
        if entry.zip64 {
            let compressed = if method == Method::Stored { size } else { 0 };
            extra.extend(field(EXTRA_ZIP64, &[size.to_le_bytes(), compressed.to_le_bytes()].concat()));
        }
        extra.extend(entry.time_field());
        let compressed = if entry.zip64 {
            u64::from(u32::MAX)
        } else if method == Method::Stored {
            size
        } else {
            0
        };
        let header = [
            b"PK\x03\x04".as_slice(),
            &entry.common(0, compressed as u32),
            &half(extra.len())?,
            name,
            &extra,
        ];
        self.out.write_all(&header.concat()).map_err(ArchiveError::Write)?;
        Ok(EntryWriter {
            archive: self,
            entry,
            crc: Hasher::new(),
            deflate,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Writes the central directory and hands back the stream.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let start = self.out.count;
        for entry in &self.directory {
            let record = entry.directory_record()?;
            self.out.write_all(&record).map_err(ArchiveError::Write)?;
        }
        let length = self.out.count - start;
        let count = self.directory.len() as u64;
        let mut end = Vec::new();
        if count >= 0xFFFF || length >= ZIP64_FROM || start >= ZIP64_FROM {
            let record_offset = self.out.count;
            end.extend(b"PK\x06\x06");
            end.extend(44_u64.to_le_bytes());
            end.extend([45, 3, 45, 0]);
            end.extend([0; 8]);
            for number in [count, count, length, start] {
                end.extend(number.to_le_bytes());
            }
            end.extend(b"PK\x06\x07\0\0\0\0");
            end.extend(record_offset.to_le_bytes());
            end.extend(1_u32.to_le_bytes());
        }
        end.extend(b"PK\x05\x06\0\0\0\0");
        let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        end.extend([count, count].concat());
        end.extend(narrow(length));
        end.extend(narrow(start));
        end.extend([0, 0]);
        self.out.write_all(&end).and_then(|()| self.out.flush()).map_err(ArchiveError::Write)?;
        Ok(self.out.out)
    }
}

impl<W: Write> EntryWriter<'_, W> {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.crc.update(bytes);
        if self.deflate.is_some() {
            return self.compress(bytes, FlushCompress::None);
        }
        self.entry.compressed += bytes.len() as u64;
        self.archive.out.write_all(bytes).map_err(ArchiveError::Write)
    }

    /// Ends the entry with its descriptor.
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        if self.deflate.is_some() {
            self.compress(&[], FlushCompress::Finish)?;
        }
        self.entry.crc = self.crc.finalize();
        let Written { crc, compressed, size, zip64, .. } = self.entry;
        let mut descriptor = [b"PK\x07\x08".as_slice(), &crc.to_le_bytes()].concat();
        for number in [compressed, size] {
            descriptor.extend_from_slice(&number.to_le_bytes()[..if zip64 { 8 } else { 4 }]);
        }
        self.archive.out.write_all(&descriptor).map_err(ArchiveError::Write)?;
        self.archive.directory.push(self.entry);
        Ok(())
    }

    fn compress(&mut self, mut bytes: &[u8], flush: FlushCompress) -> Result<(), ArchiveError> {
        let Some(deflate) = &mut self.deflate else { return Ok(()) };
        loop {
            self.buffer.clear();
            let before = deflate.total_in();
            let status = deflate
                .compress_vec(bytes, &mut self.buffer, flush)
                .map_err(|error| ArchiveError::Write(io::Error::other(error)))?;
            bytes = &bytes[(deflate.total_in() - before) as usize..];
            self.entry.compressed += self.buffer.len() as u64;
            self.archive.out.write_all(&self.buffer).map_err(ArchiveError::Write)?;
            let done = if flush == FlushCompress::Finish {
                status == Status::StreamEnd
            } else {
                bytes.is_empty() && self.buffer.len() < self.buffer.capacity()
            };
            if done {
                return Ok(());
            }
        }
    }
}

impl Written {
    /// What local header and directory record share: version needed … length of the name.
    fn common(&self, crc: u32, compressed: u32) -> Vec<u8> {
        let (version, method) = match self.method {
            _ if self.zip64 => (45, if self.method == Method::Stored { 0 } else { 8 }),
            Method::Stored => (10_u16, 0_u16),
            Method::Deflated => (20, 8),
        };
        let (time, date) = self.modified.map_or(EPOCH_OF_DOS, dos_time);
        let size = if self.zip64 { u32::MAX } else { self.size as u32 };
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

    fn directory_record(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut wide = Vec::new();
        if self.zip64 {
            wide.extend([self.size.to_le_bytes(), self.compressed.to_le_bytes()].concat());
        }
        if self.offset >= ZIP64_FROM {
            wide.extend(self.offset.to_le_bytes());
        }
        let mut extra = if wide.is_empty() { Vec::new() } else { field(EXTRA_ZIP64, &wide) };
        extra.extend(self.time_field());
        let compressed = if self.zip64 { u32::MAX } else { self.compressed as u32 };
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

    fn time_field(&self) -> Vec<u8> {
        let Some(seconds) = self.modified else { return Vec::new() };
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX).to_le_bytes();
        field(EXTRA_TIME, &[[1].as_slice(), &seconds].concat())
    }
}

struct Counted<W> {
    out: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.count += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn field(id: u16, bytes: &[u8]) -> Vec<u8> {
    [id.to_le_bytes().as_slice(), &(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

fn half(length: usize) -> Result<[u8; 2], ArchiveError> {
    let length = u16::try_from(length).map_err(|error| ArchiveError::Write(io::Error::other(error)))?;
    Ok(length.to_le_bytes())
}

fn narrow(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// Time and date of MS-DOS, in UTC: the time zone of a build machine must not change an archive.
fn dos_time(seconds: i64) -> (u16, u16) {
    let date = crate::fwup::time::Date::from_unix(seconds);
    if !(1980..=2107).contains(&date.year) {
        return EPOCH_OF_DOS;
    }
    let time = date.hour << 11 | date.minute << 5 | (date.second / 2);
    let day = (date.year - 1980) << 9 | i64::from(date.month) << 5 | i64::from(date.day);
    (time, day as u16)
}

const EPOCH_OF_DOS: (u16, u16) = (0, 0x0021);
const ZIP64_FROM: u64 = 0xFFFF_0000;
const MADE_BY_UNIX: &[u8] = &[20, 3];
const MODE_OF_FILES: u32 = 0o100644;
const BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::reader::ArchiveReader;
    use super::*;

    fn archive(parts: &[(&str, Method, &[u8])]) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new(), 6);
        for (name, method, bytes) in parts {
            let mut entry =
                writer.entry(name.as_bytes(), *method, bytes.len() as u64, Some(1_700_000_000)).unwrap();
            entry.write(bytes).unwrap();
            entry.finish().unwrap();
        }
        writer.finish().unwrap()
    }

    type Read = (Vec<u8>, Vec<u8>);

    fn read_all(bytes: &[u8]) -> Result<Vec<Read>, ArchiveError> {
        let mut reader = ArchiveReader::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut data = vec![0; 100_000];
            let length = reader.read(&mut data)?;
            data.truncate(length);
            all.push((entry.name, data));
        }
        Ok(all)
    }

    /// Bytes with `PK\7\8` in them, so that a descriptor inside of stored data is met.
    fn tricky() -> Vec<u8> {
        (0..20_000_u32).flat_map(|n| if n % 100 == 0 { *b"PK\x07\x08" } else { n.to_le_bytes() }).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let data = tricky();
        let parts = [
            ("a", Method::Stored, &data[..64]),
            ("b/c", Method::Deflated, &data),
            ("d", Method::Deflated, b""),
        ];
        let bytes = archive(&parts);
        let expected: Vec<_> = parts.iter().map(|(n, _, d)| (n.as_bytes().to_vec(), d.to_vec())).collect();
        assert_eq!(read_all(&bytes).unwrap(), expected);
    }

    #[test]
    fn stored_data_without_a_size_ends_at_the_matching_descriptor() {
        let data = tricky();
        let mut bytes = archive(&[("a", Method::Stored, &data), ("b", Method::Stored, b"x")]);
        bytes[18..26].fill(0);
        assert_eq!(read_all(&bytes).unwrap()[0].1, data);
        assert_eq!(read_all(&bytes).unwrap()[1].1, b"x");
    }

    #[test]
    fn no_truncation_and_no_flipped_byte_goes_unnoticed() {
        let data = tricky();
        let bytes = archive(&[("a", Method::Deflated, &data[..3000])]);
        let directory = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
        for cut in 0..directory {
            assert!(read_all(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 31..directory {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            // Padding bits and times do not matter; wrong data must never come out.
            if let Ok(all) = read_all(&wrong) {
                assert_eq!(all[0].1, data[..3000], "flipped at {at}");
            }
        }
    }

    #[test]
    fn absurd_lengths_in_a_header_end_in_an_error() {
        let mut bytes = archive(&[("a", Method::Stored, b"data")]);
        bytes[26..30].fill(0xFF);
        assert!(matches!(read_all(&bytes), Err(ArchiveError::Truncated)));
    }
}
