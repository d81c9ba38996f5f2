//! The file allocation table: following, extending and freeing chains through one small window.
//!
//! The window is written back when it moves and by [`Table::flush`]; folders are only changed after
//! that, so that a name never points at clusters that the table on the disk still calls free.

use super::boot::{Geometry, Kind};
use super::{Blocks, FatError, SECTOR, put_u16, put_u32, u16_at, u32_at};

/// Sectors in the window. A multiple of three, so that no FAT12 entry crosses its border.
const WINDOW_SECTORS: u32 = 24;

/// What the table says about a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Free,
    Next(u32),
    End,
    /// Not a cluster of this volume, or marked as unusable.
    Bad,
}

#[derive(Debug)]
pub(super) struct Table {
    window: Vec<u8>,
    /// Which window is loaded.
    loaded: Option<u32>,
    /// The sectors of the window that were changed, from the first to behind the last.
    dirty: Option<(u32, u32)>,
    /// The cluster that was given out last; the search for a free one goes on behind it.
    last: u32,
    /// Free clusters, where FSInfo tells.
    free: Option<u32>,
    info_dirty: bool,
}

impl Table {
    pub fn open(geo: &Geometry, dev: &mut dyn Blocks) -> Result<Table, FatError> {
        let window = vec![0; WINDOW_SECTORS.min(geo.table_sectors) as usize * SECTOR];
        let mut table = Table { window, loaded: None, dirty: None, last: 1, free: None, info_dirty: false };
        if let Some(info) = geo.info {
            let mut b = [0; SECTOR];
            dev.read(geo.block(info), &mut b)?;
            if is_info(&b) {
                table.free = Some(u32_at(&b, 488)).filter(|n| *n <= geo.clusters);
                table.last = Some(u32_at(&b, 492)).filter(|n| geo.is_cluster(*n)).unwrap_or(1);
            }
        }
        Ok(table)
    }

    /// What follows `cluster`, which must be one of the volume.
    pub fn link(&mut self, geo: &Geometry, dev: &mut dyn Blocks, cluster: u32) -> Result<Link, FatError> {
        let value = self.get(geo, dev, cluster)?;
        Ok(match value {
            0 => Link::Free,
            v if geo.is_cluster(v) => Link::Next(v),
            v if v >= end_mark(geo.kind) => Link::End,
            _ => Link::Bad,
        })
    }

    /// How many clusters from `first` on follow each other on the disk (at most `limit`), and what
    /// comes after them.
    pub fn run(
        &mut self,
        geo: &Geometry,
        dev: &mut dyn Blocks,
        first: u32,
        limit: u32,
    ) -> Result<(u32, Link), FatError> {
        let mut length = 1;
        loop {
            let link = self.link(geo, dev, first + length - 1)?;
            if length >= limit || link != Link::Next(first + length) {
                return Ok((length, link));
            }
            length += 1;
        }
    }

    /// Takes up to `want` free clusters that follow each other, and appends them to the chain that ends
    /// with `tail`. Returns the first one and their number.
    pub fn allocate(
        &mut self,
        geo: &Geometry,
        dev: &mut dyn Blocks,
        tail: Option<u32>,
        want: u32,
    ) -> Result<(u32, u32), FatError> {
        let first = self.find_free(geo, dev, tail.unwrap_or(self.last))?;
        let mut count = 1;
        while count < want && geo.is_cluster(first + count) && self.get(geo, dev, first + count)? == 0 {
            self.set(geo, dev, first + count - 1, first + count)?;
            count += 1;
        }
        self.last = first + count - 1;
        self.set(geo, dev, self.last, end_mark(geo.kind) | 7)?;
        if let Some(tail) = tail {
            self.set(geo, dev, tail, first)?;
        }
        self.count_free(|free| free.saturating_sub(count));
        Ok((first, count))
    }

    /// Frees the chain that begins with `first`. A damaged chain is freed as far as it goes.
    pub fn free_chain(&mut self, geo: &Geometry, dev: &mut dyn Blocks, first: u32) -> Result<(), FatError> {
        let mut cluster = first;
        // A freed cluster is never followed again, which bounds this by the size of the volume.
        loop {
            if !geo.is_cluster(cluster) {
                return Err(FatError::Damaged("a file begins outside of the volume"));
            }
            let link = self.link(geo, dev, cluster)?;
            if link == Link::Free {
                return Err(FatError::Damaged("a file uses free clusters"));
            }
            self.set(geo, dev, cluster, 0)?;
            self.count_free(|free| free.saturating_add(1));
            match link {
                Link::Next(next) => cluster = next,
                Link::End => return Ok(()),
                Link::Free | Link::Bad => return Err(FatError::Damaged("a file has no end")),
            }
        }
    }

    /// Writes what is only in memory: the window to every copy of the table, and FSInfo.
    pub fn flush(&mut self, geo: &Geometry, dev: &mut dyn Blocks) -> Result<(), FatError> {
        self.write_window(geo, dev)?;
        let (true, Some(info)) = (self.info_dirty, geo.info) else { return Ok(()) };
        let mut b = [0; SECTOR];
        dev.read(geo.block(info), &mut b)?;
        if is_info(&b) {
            put_u32(&mut b, 488, self.free.unwrap_or(u32::MAX));
            put_u32(&mut b, 492, self.last);
            dev.write(geo.block(info), &b, false)?;
        }
        self.info_dirty = false;
        Ok(())
    }

    /// The first free cluster behind `after`, going round once.
    fn find_free(&mut self, geo: &Geometry, dev: &mut dyn Blocks, after: u32) -> Result<u32, FatError> {
        // The free count does not decide: what other systems leave in FSInfo is often out of date.
        let end = geo.clusters + 2;
        let start = if after + 1 < end { after + 1 } else { 2 };
        for cluster in (start..end).chain(2..start) {
            if self.get(geo, dev, cluster)? == 0 {
                return Ok(cluster);
            }
        }
        Err(FatError::Full)
    }

    fn count_free(&mut self, change: impl Fn(u32) -> u32) {
        self.free = self.free.map(change);
        self.info_dirty = true;
    }

    fn get(&mut self, geo: &Geometry, dev: &mut dyn Blocks, cluster: u32) -> Result<u32, FatError> {
        let at = self.load(geo, dev, cluster)?;
        Ok(match geo.kind {
            Kind::Fat12 if cluster % 2 == 1 => u32::from(u16_at(&self.window, at) >> 4),
            Kind::Fat12 => u32::from(u16_at(&self.window, at) & 0xFFF),
            Kind::Fat16 => u32::from(u16_at(&self.window, at)),
            Kind::Fat32 => u32_at(&self.window, at) & FAT32_BITS,
        })
    }

    fn set(
        &mut self,
        geo: &Geometry,
        dev: &mut dyn Blocks,
        cluster: u32,
        value: u32,
    ) -> Result<(), FatError> {
        let at = self.load(geo, dev, cluster)?;
        let (new, size) = match geo.kind {
            Kind::Fat12 => {
                let old = u32::from(u16_at(&self.window, at));
                (if cluster % 2 == 1 { old & 0xF | value << 4 } else { old & 0xF000 | value & 0xFFF }, 2)
            }
            Kind::Fat16 => (value, 2),
            Kind::Fat32 => (u32_at(&self.window, at) & !FAT32_BITS | value & FAT32_BITS, 4),
        };
        if size == 2 {
            put_u16(&mut self.window, at, new as u16);
        } else {
            put_u32(&mut self.window, at, new);
        }
        let (first, last) = ((at / SECTOR) as u32, ((at + size - 1) / SECTOR) as u32);
        let (from, to) = self.dirty.unwrap_or((first, last + 1));
        self.dirty = Some((from.min(first), to.max(last + 1)));
        Ok(())
    }

    /// Brings the window over the entry of `cluster` and returns its place in it.
    fn load(&mut self, geo: &Geometry, dev: &mut dyn Blocks, cluster: u32) -> Result<usize, FatError> {
        let per_window = entries_per_window(geo.kind);
        let window = cluster / per_window;
        if self.loaded != Some(window) {
            self.write_window(geo, dev)?;
            self.loaded = None;
            let (start, bytes) = window_place(geo, window);
            dev.read(geo.block(geo.table_start + start), &mut self.window[..bytes])?;
            self.loaded = Some(window);
        }
        let entry = (cluster % per_window) as usize;
        Ok(match geo.kind {
            Kind::Fat12 => entry + entry / 2,
            Kind::Fat16 => entry * 2,
            Kind::Fat32 => entry * 4,
        })
    }

    fn write_window(&mut self, geo: &Geometry, dev: &mut dyn Blocks) -> Result<(), FatError> {
        let (Some(window), Some((from, to))) = (self.loaded, self.dirty) else { return Ok(()) };
        let (start, _) = window_place(geo, window);
        let bytes = &self.window[from as usize * SECTOR..to as usize * SECTOR];
        for copy in 0..geo.tables {
            let sector = geo.table_start + copy * geo.table_sectors + start + from;
            dev.write(geo.block(sector), bytes, false)?;
        }
        self.dirty = None;
        Ok(())
    }
}

const FAT32_BITS: u32 = 0x0FFF_FFFF;

/// The smallest value that ends a chain.
fn end_mark(kind: Kind) -> u32 {
    match kind {
        Kind::Fat12 => 0xFF8,
        Kind::Fat16 => 0xFFF8,
        Kind::Fat32 => 0x0FFF_FFF8,
    }
}

fn entries_per_window(kind: Kind) -> u32 {
    let bytes = WINDOW_SECTORS * SECTOR as u32;
    match kind {
        Kind::Fat12 => bytes / 3 * 2,
        Kind::Fat16 => bytes / 2,
        Kind::Fat32 => bytes / 4,
    }
}

/// First sector of a window in the table, and its bytes: the last one ends with the table.
fn window_place(geo: &Geometry, window: u32) -> (u32, usize) {
    let start = window * WINDOW_SECTORS;
    (start, WINDOW_SECTORS.min(geo.table_sectors - start) as usize * SECTOR)
}

fn is_info(b: &[u8; SECTOR]) -> bool {
    &b[..4] == b"RRaA" && &b[484..488] == b"rrAa" && b[510..] == [0x55, 0xAA]
}
