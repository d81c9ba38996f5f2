//! Creating an empty volume, with the layout that fwup gives it.

use super::boot::Kind;
use super::{Blocks, FatError, SECTOR, STREAMED_FROM, put_u16, put_u32};

/// Creates an empty volume on `count` blocks from block `offset`. The caller has trimmed the range.
///
/// The boot sector comes last: until then whatever was there before does not count as a volume of
/// the new size.
pub fn mkfs(dev: &mut dyn Blocks, offset: u64, count: u64) -> Result<(), FatError> {
    let layout = Layout::choose(count).ok_or(FatError::Size(count))?;
    let end = offset.checked_add(count).ok_or(FatError::Size(count))?;
    dev.write(end - 1, &[0xFF; SECTOR], false)?;

    for table in 0..TABLES {
        let start = layout.reserved + table * layout.table_sectors;
        zero(dev, offset, start, layout.table_sectors)?;
        let mut first = [0; SECTOR];
        let head = layout.table_head();
        first[..head.len()].copy_from_slice(head);
        dev.write(offset + u64::from(start), &first, false)?;
    }
    // The root folder: its own area, or the first cluster of a FAT32 volume.
    zero(dev, offset, layout.root_start(), if layout.kind == Kind::Fat32 { 1 } else { ROOT_SECTORS })?;

    let boot = layout.boot_sector();
    if layout.kind == Kind::Fat32 {
        let info = layout.info_sector();
        for (sector, bytes) in [(BACKUP + 1, &info), (BACKUP, &boot), (1, &info)] {
            dev.write(offset + u64::from(sector), bytes, false)?;
        }
    }
    dev.write(offset, &boot, false)?;
    Ok(())
}

const TABLES: u32 = 2;
const ROOT_ENTRIES: u32 = 512;
const ROOT_SECTORS: u32 = ROOT_ENTRIES / 16;
/// Where FAT32 keeps the second copy of sectors 0 and 1.
const BACKUP: u32 = 6;
/// The smallest and the largest number of blocks for which a layout exists.
const MIN_BLOCKS: u64 = 128;
const MAX_BLOCKS: u64 = 0x0FFF_FFF5;
/// Volumes up to so many blocks are FAT12.
const FAT12_BLOCKS: u32 = 4085;
/// The DOS time stamp of 1980-01-01 00:00:00, from which serial numbers are made.
const SERIAL_BASE: u32 = 0x0021_0000;

/// The sizes of a volume with one sector per cluster and two tables.
struct Layout {
    kind: Kind,
    blocks: u32,
    reserved: u32,
    table_sectors: u32,
    clusters: u32,
}

impl Layout {
    fn choose(count: u64) -> Option<Layout> {
        if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&count) {
            return None;
        }
        let blocks = u32::try_from(count).ok()?;
        let kinds = if blocks <= FAT12_BLOCKS { &[Kind::Fat12][..] } else { &[Kind::Fat16, Kind::Fat32] };
        let layouts = kinds.iter().filter_map(|kind| Layout::new(*kind, blocks));
        // A layout whose number of clusters makes it another kind is none.
        layouts.into_iter().find(|layout| layout.kind == Kind::of(layout.clusters))
    }

    fn new(kind: Kind, blocks: u32) -> Option<Layout> {
        let (reserved, table_bytes, root_sectors) = match kind {
            Kind::Fat12 => (1, (3 * blocks).div_ceil(2) + 3, ROOT_SECTORS),
            Kind::Fat16 => (1, 2 * blocks + 4, ROOT_SECTORS),
            Kind::Fat32 => (32, 4 * blocks + 8, 0),
        };
        let table_sectors = table_bytes.div_ceil(SECTOR as u32);
        let clusters = blocks.checked_sub(reserved + TABLES * table_sectors + root_sectors)?;
        Some(Layout { kind, blocks, reserved, table_sectors, clusters })
    }

    fn root_start(&self) -> u32 {
        self.reserved + TABLES * self.table_sectors
    }

    /// The reserved entries, and on FAT32 the root folder, whose chain is one cluster long.
    fn table_head(&self) -> &'static [u8] {
        match self.kind {
            Kind::Fat12 => &[0xF8, 0xFF, 0xFF],
            Kind::Fat16 => &[0xF8, 0xFF, 0xFF, 0xFF],
            Kind::Fat32 => &[0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        }
    }

    fn boot_sector(&self) -> [u8; SECTOR] {
        let mut b = [0; SECTOR];
        b[..11].copy_from_slice(b"\xEB\xFE\x90MSDOS5.0");
        put_u16(&mut b, 11, SECTOR as u16);
        b[13] = 1;
        put_u16(&mut b, 14, self.reserved as u16);
        b[16] = TABLES as u8;
        match u16::try_from(self.blocks) {
            Ok(blocks) => put_u16(&mut b, 19, blocks),
            Err(_) => put_u32(&mut b, 32, self.blocks),
        }
        b[21] = 0xF8;
        put_u16(&mut b, 24, 63);
        put_u16(&mut b, 26, 255);
        let tail = if self.kind == Kind::Fat32 {
            put_u32(&mut b, 36, self.table_sectors);
            put_u32(&mut b, 44, 2);
            put_u16(&mut b, 48, 1);
            put_u16(&mut b, 50, BACKUP as u16);
            64
        } else {
            put_u16(&mut b, 17, ROOT_ENTRIES as u16);
            put_u16(&mut b, 22, self.table_sectors as u16);
            36
        };
        b[tail] = 0x80;
        b[tail + 2] = 0x29;
        put_u32(&mut b, tail + 3, SERIAL_BASE + self.blocks);
        b[tail + 7..tail + 18].copy_from_slice(b"NO NAME    ");
        b[tail + 18..tail + 26].copy_from_slice(match self.kind {
            Kind::Fat12 => b"FAT12   ",
            Kind::Fat16 => b"FAT16   ",
            Kind::Fat32 => b"FAT32   ",
        });
        b[510..].copy_from_slice(&[0x55, 0xAA]);
        b
    }

    fn info_sector(&self) -> [u8; SECTOR] {
        let mut b = [0; SECTOR];
        b[..4].copy_from_slice(b"RRaA");
        b[484..488].copy_from_slice(b"rrAa");
        put_u32(&mut b, 488, self.clusters - 1);
        put_u32(&mut b, 492, 2);
        b[510..].copy_from_slice(&[0x55, 0xAA]);
        b
    }
}

fn zero(dev: &mut dyn Blocks, offset: u64, start: u32, sectors: u32) -> Result<(), FatError> {
    const CHUNK: u32 = 64;
    let zeros = [0; CHUNK as usize * SECTOR];
    let mut at = start;
    let end = start + sectors;
    while at < end {
        let n = CHUNK.min(end - at);
        dev.write(offset + u64::from(at), &zeros[..n as usize * SECTOR], at > STREAMED_FROM)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_kinds_of_the_specification() {
        let kind = |count| Layout::choose(count).map(|l| l.kind);
        assert_eq!(kind(127), None);
        assert_eq!(kind(128), Some(Kind::Fat12));
        assert_eq!(kind(4085), Some(Kind::Fat12));
        assert_eq!(kind(4086), None);
        assert_eq!(kind(4152), None);
        assert_eq!(kind(4153), Some(Kind::Fat16));
        assert_eq!(kind(66076), Some(Kind::Fat16));
        assert_eq!(kind(66077), None);
        assert_eq!(kind(66599), None);
        assert_eq!(kind(66600), Some(Kind::Fat32));
        assert_eq!(kind(MAX_BLOCKS), Some(Kind::Fat32));
        assert_eq!(kind(MAX_BLOCKS + 1), None);
    }
}
