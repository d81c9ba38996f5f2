//! The GUID partition table: protective MBR, two headers, two tables.

use super::extent::{self, Extent};
use super::{BLOCK, BlockWrite, Guid, PartitionError};
use crate::uboot_env::codec::crc32;

/// The settings of a `gpt` section. `None`: missing or malformed.
#[derive(Debug, Clone)]
pub struct Gpt {
    pub guid: Option<Guid>,
    pub partitions: Vec<GptPartition>,
}

/// A `partition` section.
#[derive(Debug, Clone)]
pub struct GptPartition {
    pub number: u32,
    pub offset: Option<i64>,
    pub count: Option<i64>,
    pub kind: Option<Guid>,
    pub guid: Option<Guid>,
    pub name: Vec<u8>,
    /// Attribute bits, with bit 2 set for `boot`.
    pub flags: Option<u64>,
    pub expand: bool,
}

const LAST_PARTITION: u32 = 15;
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const NAME_UNITS: usize = 36;
/// Blocks of one table.
const TABLE_BLOCKS: u64 = (ENTRIES * ENTRY / BLOCK) as u64;
/// The first block behind protective MBR, header and table.
const FIRST_USABLE: u64 = 2 + TABLE_BLOCKS;
/// Blocks at the end of the medium: second table and second header.
const TAIL: u64 = TABLE_BLOCKS + 1;

impl Gpt {
    /// The checks that need no medium.
    pub fn check(&self) -> Result<(), PartitionError> {
        self.blocks(None).map(|_| ())
    }

    /// The second table and header and, last, the blocks from 0 on, for a medium of so many blocks; if
    /// that is not known, the table is made for the smallest one that has room for the partitions.
    pub fn blocks(&self, medium: Option<u64>) -> Result<Vec<BlockWrite>, PartitionError> {
        let disk = self.guid.ok_or(PartitionError::DiskGuid)?;
        let mut extents = self.extents()?;
        let end = extents.iter().map(|e| e.end).max().ok_or(PartitionError::Empty)?;
        let blocks = medium.unwrap_or(end + TAIL + 1);
        if !(FIRST_USABLE + TAIL..=i64::MAX as u64).contains(&blocks) {
            return Err(PartitionError::MediumSize(blocks));
        }
        for (p, extent) in self.partitions.iter().zip(&mut extents) {
            if p.expand && blocks > extent.end + TAIL {
                // One block of the usable area stays free, as fwup has it.
                extent.end = blocks - TAIL - 1;
            }
        }
        let mut in_order = extents.clone();
        in_order.retain(|e| e.end > e.start);
        in_order.sort_unstable_by_key(|e| e.number);
        extent::no_overlaps(&in_order)?;
        if let Some(partition) = extents.iter().find(|e| e.end > blocks - TAIL) {
            return Err(PartitionError::CoversSecondTable { partition: *partition, table: blocks - TAIL });
        }

        let table = self.table(&extents)?;
        let header = |own, other, table_at| header(&disk, own, other, table_at, blocks, &table);
        let mut first = protective_mbr(blocks);
        first.extend(header(1, blocks - 1, 2));
        first.extend(&table);
        let second_header = header(blocks - 1, 1, blocks - TAIL);
        let mut second = table;
        second.extend(second_header);
        Ok(vec![(blocks - TAIL, second), (0, first)])
    }

    /// Where the partitions are before they expand, in the order of the settings.
    fn extents(&self) -> Result<Vec<Extent>, PartitionError> {
        extent::numbers(self.partitions.iter().map(|p| p.number), LAST_PARTITION)?;
        let last = self.partitions.iter().map(|p| p.number).max();
        if let Some(p) = self.partitions.iter().find(|p| p.expand && Some(p.number) != last) {
            return Err(PartitionError::ExpandNotLast(p.number));
        }
        let extent = |p: &GptPartition| {
            let number = p.number;
            let start = extent::offset(number, p.offset)?;
            let extent = Extent { number, start, end: start + extent::count(number, p.count)? };
            if start < FIRST_USABLE {
                return Err(PartitionError::CoversTable(extent));
            }
            Ok(extent)
        };
        self.partitions.iter().map(extent).collect()
    }

    fn table(&self, extents: &[Extent]) -> Result<Vec<u8>, PartitionError> {
        let mut table = vec![0; ENTRIES * ENTRY];
        for (p, extent) in self.partitions.iter().zip(extents) {
            let kind = p.kind.ok_or(PartitionError::TypeGuid(p.number))?;
            let guid = p.guid.ok_or(PartitionError::PartitionGuid(p.number))?;
            let flags = p.flags.ok_or(PartitionError::Flags(p.number))?;
            let at = p.number as usize * ENTRY;
            let entry = &mut table[at..at + ENTRY];
            entry[..16].copy_from_slice(&kind.0);
            entry[16..32].copy_from_slice(&guid.0);
            entry[32..40].copy_from_slice(&extent.start.to_le_bytes());
            entry[40..48].copy_from_slice(&(extent.end - 1).to_le_bytes());
            entry[48..56].copy_from_slice(&flags.to_le_bytes());
            for (unit, byte) in entry[56..].chunks_exact_mut(2).zip(p.name.iter().take(NAME_UNITS)) {
                unit[0] = *byte;
            }
        }
        Ok(table)
    }
}

/// Tells programs that know no GPT that all of the medium is in use.
fn protective_mbr(blocks: u64) -> Vec<u8> {
    let mut mbr = vec![0; BLOCK];
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    let count = u32::try_from(blocks - 1).unwrap_or(u32::MAX);
    mbr[458..462].copy_from_slice(&count.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xAA]);
    mbr
}

fn header(disk: &Guid, own: u64, other: u64, table_at: u64, blocks: u64, table: &[u8]) -> Vec<u8> {
    const SIZE: u32 = 92;
    let mut header = b"EFI PART".to_vec();
    header.extend(0x0001_0000u32.to_le_bytes());
    header.extend(SIZE.to_le_bytes());
    header.extend([0; 8]);
    for block in [own, other, FIRST_USABLE, blocks - TAIL - 1] {
        header.extend(block.to_le_bytes());
    }
    header.extend(disk.0);
    header.extend(table_at.to_le_bytes());
    for number in [ENTRIES as u32, ENTRY as u32, crc32(table)] {
        header.extend(number.to_le_bytes());
    }
    let checksum = crc32(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header.resize(BLOCK, 0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, offset: i64, count: i64) -> GptPartition {
        GptPartition {
            number,
            offset: Some(offset),
            count: Some(count),
            kind: Some(Guid([1; 16])),
            guid: Some(Guid([2; 16])),
            name: Vec::new(),
            flags: Some(0),
            expand: false,
        }
    }

    fn gpt(partitions: &[GptPartition]) -> Gpt {
        Gpt { guid: Some(Guid([3; 16])), partitions: partitions.to_vec() }
    }

    #[test]
    fn bad_settings_are_refused() {
        let without = |change: fn(&mut GptPartition)| {
            let mut p = partition(0, 100, 10);
            change(&mut p);
            gpt(&[p]).check()
        };
        assert_eq!(without(|_| ()), Ok(()));
        assert_eq!(Gpt { guid: None, partitions: Vec::new() }.check(), Err(PartitionError::DiskGuid));
        assert_eq!(gpt(&[]).check(), Err(PartitionError::Empty));
        assert_eq!(without(|p| p.kind = None), Err(PartitionError::TypeGuid(0)));
        assert_eq!(without(|p| p.guid = None), Err(PartitionError::PartitionGuid(0)));
        assert_eq!(without(|p| p.flags = None), Err(PartitionError::Flags(0)));
        assert_eq!(without(|p| p.offset = None), Err(PartitionError::NoOffset(0)));
        assert!(matches!(without(|p| p.number = 16), Err(PartitionError::Number { .. })));
        let overlap = gpt(&[partition(0, 100, 10), partition(1, 109, 10)]);
        assert!(matches!(overlap.check(), Err(PartitionError::Overlap { .. })));
        let mut expand = gpt(&[partition(0, 100, 10), partition(1, 200, 10)]);
        expand.partitions[0].expand = true;
        assert_eq!(expand.check(), Err(PartitionError::ExpandNotLast(0)));
    }

    #[test]
    fn the_tables_never_cover_a_partition() {
        assert!(matches!(gpt(&[partition(0, 33, 10)]).check(), Err(PartitionError::CoversTable(_))));
        let table = gpt(&[partition(0, 34, 100)]);
        assert!(table.blocks(Some(167)).is_ok());
        assert!(matches!(table.blocks(Some(166)), Err(PartitionError::CoversSecondTable { .. })));
        assert_eq!(table.blocks(Some(66)), Err(PartitionError::MediumSize(66)));
    }

    #[test]
    fn expanding_must_not_run_over_a_partition_behind() {
        let mut table = gpt(&[partition(0, 1000, 10), partition(1, 100, 10)]);
        table.partitions[1].expand = true;
        assert!(matches!(table.blocks(Some(5000)), Err(PartitionError::Overlap { .. })));
    }
}
