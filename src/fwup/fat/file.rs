//! The contents of files, in runs of clusters as long as the table allows.

use super::dir::{ARCHIVE, FOLDER, Place, READ_ONLY, Record};
use super::table::Link;
use super::volume::Volume;
use super::{Blocks, FatError, SECTOR, STREAMED_FROM};

impl Volume {
    /// Begins to replace the content of a file, or creates it. The old content is freed at once; the new
    /// one belongs to the file when [`FileWriter::finish`] returns.
    pub fn create(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<FileWriter, FatError> {
        let (parent, name) = self.locate(dev, path)?;
        let place = match self.find(dev, parent, &name)? {
            Some(found) if found.record.has(FOLDER) => return Err(FatError::IsFolder(path.to_owned())),
            Some(found) if found.record.has(READ_ONLY) => return Err(FatError::ReadOnly(path.to_owned())),
            Some(found) => {
                let old = found.record.cluster(&self.geo);
                let mut record = found.record.with_times();
                record.0[11] = ARCHIVE;
                record.set_content(0, 0);
                self.store(dev, found.place(), &record)?;
                if old != 0 {
                    self.table.free_chain(&self.geo, dev, old)?;
                }
                found.place()
            }
            None => self.insert(dev, parent, &name, Record::new(ARCHIVE).with_times(), path)?,
        };
        self.flush(dev)?;
        let partial = Partial { bytes: [0; SECTOR], len: 0 };
        Ok(FileWriter { place, first: None, last: None, sector: 0, room: 0, size: 0, partial })
    }

    /// Begins to read a file.
    pub fn read(&mut self, dev: &mut dyn Blocks, path: &str) -> Result<FileReader, FatError> {
        let found = self.look_up(dev, path)?;
        if found.record.has(FOLDER) {
            return Err(FatError::IsFolder(path.to_owned()));
        }
        Ok(FileReader {
            left: found.record.size(),
            next: found.record.cluster(&self.geo),
            sector: 0,
            run: 0,
            followed: 0,
            buffer: [0; SECTOR],
            buffered: 0..0,
        })
    }
}

/// A file that is being written. Without `finish` it stays empty.
#[derive(Debug)]
pub struct FileWriter {
    place: Place,
    first: Option<u32>,
    last: Option<u32>,
    /// The sector to write next, and how many follow it in the clusters taken so far.
    sector: u32,
    room: u32,
    size: u32,
    partial: Partial,
}

/// The bytes at the end that do not fill a sector yet.
#[derive(Debug)]
struct Partial {
    bytes: [u8; SECTOR],
    len: usize,
}

impl FileWriter {
    /// Appends bytes.
    pub fn write(
        &mut self,
        vol: &mut Volume,
        dev: &mut dyn Blocks,
        mut bytes: &[u8],
    ) -> Result<(), FatError> {
        let size = u32::try_from(bytes.len()).ok().and_then(|n| self.size.checked_add(n));
        self.size = size.ok_or(FatError::TooLarge)?;
        if self.partial.len > 0 {
            let n = bytes.len().min(SECTOR - self.partial.len);
            let (head, rest) = bytes.split_at(n);
            self.partial.bytes[self.partial.len..self.partial.len + n].copy_from_slice(head);
            self.partial.len += n;
            bytes = rest;
            if self.partial.len < SECTOR {
                return Ok(());
            }
            let sector = self.partial.bytes;
            self.put(vol, dev, &sector)?;
            self.partial.len = 0;
        }
        let (whole, rest) = bytes.split_at(bytes.len() / SECTOR * SECTOR);
        self.put(vol, dev, whole)?;
        self.partial.bytes[..rest.len()].copy_from_slice(rest);
        self.partial.len = rest.len();
        Ok(())
    }

    /// Writes the last bytes, then the table, then the entry that makes all of it the file's content.
    pub fn finish(mut self, vol: &mut Volume, dev: &mut dyn Blocks) -> Result<(), FatError> {
        if self.partial.len > 0 {
            let mut sector = self.partial.bytes;
            sector[self.partial.len..].fill(0);
            self.put(vol, dev, &sector)?;
        }
        vol.flush(dev)?;
        let mut record = vol.record_at(dev, self.place)?;
        record.set_content(self.first.unwrap_or(0), self.size);
        vol.store(dev, self.place, &record)
    }

    /// Writes whole sectors.
    fn put(&mut self, vol: &mut Volume, dev: &mut dyn Blocks, mut data: &[u8]) -> Result<(), FatError> {
        while !data.is_empty() {
            if self.room == 0 {
                self.extend(vol, dev, data.len())?;
            }
            let n = (data.len() / SECTOR).min(self.room as usize);
            let (now, rest) = data.split_at(n * SECTOR);
            dev.write(vol.geo.block(self.sector), now, self.sector > STREAMED_FROM)?;
            self.sector += n as u32;
            self.room -= n as u32;
            data = rest;
        }
        Ok(())
    }

    /// Takes clusters for `bytes` more bytes, or the part of them that has room in one place.
    fn extend(&mut self, vol: &mut Volume, dev: &mut dyn Blocks, bytes: usize) -> Result<(), FatError> {
        let per_cluster = vol.geo.sectors_per_cluster;
        let want = bytes.div_ceil(per_cluster as usize * SECTOR);
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let (first, count) = vol.table.allocate(&vol.geo, dev, self.last, want)?;
        self.first.get_or_insert(first);
        self.last = Some(first + count - 1);
        self.sector = vol.geo.cluster_start(first);
        self.room = count * per_cluster;
        Ok(())
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct FileReader {
    left: u32,
    /// The cluster that follows the run, not checked yet.
    next: u32,
    sector: u32,
    run: u32,
    /// Clusters seen so far, to notice a chain that bites its tail.
    followed: u32,
    buffer: [u8; SECTOR],
    buffered: std::ops::Range<usize>,
}

impl FileReader {
    /// Fills `buf` as far as possible; 0 at the end of the file.
    pub fn read(
        &mut self,
        vol: &mut Volume,
        dev: &mut dyn Blocks,
        buf: &mut [u8],
    ) -> Result<usize, FatError> {
        let mut done = 0;
        while done < buf.len() && self.left > 0 {
            let want = (buf.len() - done).min(self.left as usize);
            let n = if !self.buffered.is_empty() {
                let n = want.min(self.buffered.len());
                let from = self.buffered.start;
                buf[done..done + n].copy_from_slice(&self.buffer[from..from + n]);
                self.buffered.start += n;
                n
            } else {
                let sectors = self.next_run(vol, dev)?.min(want / SECTOR);
                let block = vol.geo.block(self.sector);
                let n = sectors * SECTOR;
                if n > 0 {
                    dev.read(block, &mut buf[done..done + n])?;
                    self.advance(sectors as u32);
                } else {
                    dev.read(block, &mut self.buffer)?;
                    self.buffered = 0..SECTOR;
                    self.advance(1);
                }
                n
            };
            done += n;
            self.left -= n as u32;
        }
        Ok(done)
    }

    fn advance(&mut self, sectors: u32) {
        self.sector += sectors;
        self.run -= sectors;
    }

    /// Sectors that can be read at once from `sector` on.
    fn next_run(&mut self, vol: &mut Volume, dev: &mut dyn Blocks) -> Result<usize, FatError> {
        if self.run == 0 {
            if !vol.geo.is_cluster(self.next) || self.followed >= vol.geo.clusters {
                return Err(FatError::Damaged("a file ends before its size"));
            }
            let per_cluster = vol.geo.sectors_per_cluster;
            let limit = self.left.div_ceil(SECTOR as u32).div_ceil(per_cluster);
            let (length, link) = vol.table.run(&vol.geo, dev, self.next, limit)?;
            self.sector = vol.geo.cluster_start(self.next);
            self.run = length * per_cluster;
            self.followed += length;
            self.next = match link {
                Link::Next(next) => next,
                Link::Free | Link::End | Link::Bad => 0,
            };
        }
        Ok(self.run as usize)
    }
}
