//! Writes an archive in one pass: local header, data, descriptor, and at the end the central directory.
//!
//! The uncompressed size stands in the local header already, as older versions of fwup wrote it: by it a
//! delta that is put in later is recognised.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::header::Method;
use super::record::{Record, end_of_archive};
use super::{ArchiveError, LONGEST_NAME};

pub struct ArchiveWriter<W> {
    out: Counted<W>,
    level: u32,
    directory: Vec<Record>,
}

/// An entry that is being written.
pub struct EntryWriter<'a, W> {
    archive: &'a mut ArchiveWriter<W>,
    entry: Record,
    crc: Crc,
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
        if name.len() > LONGEST_NAME {
            return Err(ArchiveError::LongName {
                name: String::from_utf8_lossy(name).into_owned(),
                length: name.len(),
            });
        }
        let deflate =
            (method == Method::Deflated).then(|| Compress::new(Compression::new(self.level), false));
        let entry = Record {
            name: name.to_vec(),
            method,
            modified,
            crc: 0,
            compressed: 0,
            size,
            offset: self.out.count,
        };
        self.out.write_all(&entry.local_header()?).map_err(ArchiveError::Write)?;
        Ok(EntryWriter { archive: self, entry, crc: Crc::new(), deflate, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Writes the central directory and hands back the stream.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let start = self.out.count;
        for entry in &self.directory {
            let record = entry.directory_record()?;
            self.out.write_all(&record).map_err(ArchiveError::Write)?;
        }
        let end = end_of_archive(self.directory.len() as u64, self.out.count - start, start);
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
        self.entry.crc = self.crc.sum();
        self.archive.out.write_all(&self.entry.descriptor()).map_err(ArchiveError::Write)?;
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
