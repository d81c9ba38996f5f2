//! The MBR: four entries, and a chain of EBRs for logical partitions.

use super::extent::{self, Extent};
use super::{BLOCK, BlockWrite, Osip, PartitionError};

/// The settings of an `mbr` section.
#[derive(Debug, Clone)]
pub struct Mbr {
    pub boot: BootArea,
    pub signature: u32,
    pub partitions: Vec<MbrPartition>,
}

/// What stands before the signature.
#[derive(Debug, Clone)]
pub enum BootArea {
    Zeros,
    Code(Box<[u8; 440]>),
    Osip(Osip),
}

/// A `partition` section. `None`: the setting is missing.
#[derive(Debug, Clone)]
pub struct MbrPartition {
    pub number: u32,
    pub offset: Option<i64>,
    pub count: Option<i64>,
    pub kind: Option<i64>,
    pub boot: bool,
    pub expand: bool,
}

/// Partition 3 may be the extended one; those behind it are logical.
const EXTENDED: u32 = 3;
const LAST_PARTITION: u32 = 11;
const EXTENDED_TYPES: [u8; 2] = [0x0F, 0x05];
/// The type by which one EBR points at the next.
const EBR_TYPE: u8 = 0x0F;

impl Mbr {
    /// The checks that need no medium.
    pub fn check(&self) -> Result<(), PartitionError> {
        self.blocks(None).map(|_| ())
    }

    /// The EBRs and, last, block 0, for a medium of so many blocks (if that is known).
    pub fn blocks(&self, medium: Option<u64>) -> Result<Vec<BlockWrite>, PartitionError> {
        let layout = Layout::new(&self.partitions, medium.unwrap_or(0))?;
        layout.check()?;
        let mut writes = layout.ebrs();
        writes.push((0, self.first_block(&layout)?));
        Ok(writes)
    }

    fn first_block(&self, layout: &Layout) -> Result<Vec<u8>, PartitionError> {
        let mut block = vec![0; BLOCK];
        match &self.boot {
            BootArea::Zeros => {}
            BootArea::Code(code) => block[..code.len()].copy_from_slice(&code[..]),
            BootArea::Osip(osip) => {
                let header = osip.bytes()?;
                block[..header.len()].copy_from_slice(&header);
            }
        }
        block[440..444].copy_from_slice(&self.signature.to_le_bytes());
        for p in layout.primary() {
            put_entry(&mut block, p.extent.number as usize, p.boot, p.kind, p.extent.start, p.count());
        }
        block[510..].copy_from_slice(&[0x55, 0xAA]);
        Ok(block)
    }
}

/// The partitions in the order of their numbers, with the sizes they get on this medium.
struct Layout(Vec<Placed>);

struct Placed {
    extent: Extent,
    kind: u8,
    boot: bool,
}

impl Placed {
    fn is_extended(&self) -> bool {
        EXTENDED_TYPES.contains(&self.kind)
    }

    fn takes_room(&self) -> bool {
        self.kind != 0 && self.extent.end > self.extent.start
    }

    fn count(&self) -> u64 {
        self.extent.end - self.extent.start
    }
}

impl Layout {
    fn new(partitions: &[MbrPartition], medium: u64) -> Result<Layout, PartitionError> {
        extent::numbers(partitions.iter().map(|p| p.number), LAST_PARTITION)?;
        let mut placed = Vec::new();
        let mut growing = Vec::new();
        for p in partitions {
            let number = p.number;
            let start = extent::offset(number, p.offset)?;
            let kind = p.kind.and_then(|kind| u8::try_from(kind).ok()).ok_or(PartitionError::Type(number))?;
            let extended = EXTENDED_TYPES.contains(&kind);
            let count = match p.count {
                None if extended && number == EXTENDED => 0,
                count => extent::count(number, count)?,
            };
            if p.expand || extended {
                growing.push(number);
            }
            placed.push(Placed { extent: Extent { number, start, end: start + count }, kind, boot: p.boot });
        }
        placed.sort_unstable_by_key(|p| p.extent.number);
        let end = placed.iter().map(|p| p.extent.end).fold(medium, u64::max);
        for p in placed.iter_mut().filter(|p| growing.contains(&p.extent.number)) {
            // An entry cannot tell of more blocks.
            p.extent.end = end.min(p.extent.start + u64::from(u32::MAX));
        }
        Ok(Layout(placed))
    }

    fn primary(&self) -> impl Iterator<Item = &Placed> {
        self.0.iter().filter(|p| p.extent.number <= EXTENDED)
    }

    fn logical(&self) -> impl Iterator<Item = &Placed> {
        self.0.iter().filter(|p| p.extent.number > EXTENDED)
    }

    fn extended(&self) -> Option<&Placed> {
        self.0.iter().find(|p| p.extent.number == EXTENDED && p.is_extended())
    }

    fn check(&self) -> Result<(), PartitionError> {
        if let Some(p) = self.0.iter().find(|p| p.is_extended() && p.extent.number != EXTENDED) {
            return Err(PartitionError::ExtendedType(p.extent.number));
        }
        let extents = |p: &Placed| p.takes_room().then_some(p.extent);
        extent::no_overlaps(&self.primary().filter_map(extents).collect::<Vec<_>>())?;
        let logical: Vec<Extent> = self.logical().map(|p| p.extent).collect();
        if logical.is_empty() {
            return Ok(());
        }
        let extended = self.extended().ok_or(PartitionError::NoExtended)?.extent;
        for (number, p) in (EXTENDED + 1..).zip(&logical) {
            if p.number != number {
                return Err(PartitionError::Gap(number));
            }
        }
        for (ebr, owner) in (extended.start..).zip(&logical) {
            let owner = owner.number;
            if let Some(p) = self.logical().filter(|p| p.takes_room()).find(|p| p.extent.contains(ebr)) {
                return Err(PartitionError::CoversEbr { partition: p.extent, ebr, owner });
            }
            if !extended.contains(ebr) {
                return Err(PartitionError::EbrOutside { ebr, owner, extended });
            }
        }
        let first = extended.start + logical.len() as u64;
        if let Some(p) = logical.iter().find(|p| p.start < first || p.end > extended.end) {
            return Err(PartitionError::OutsideExtended { logical: *p, extended });
        }
        extent::no_overlaps(&self.logical().filter_map(extents).collect::<Vec<_>>())
    }

    fn ebrs(&self) -> Vec<BlockWrite> {
        let Some(extended) = self.extended() else { return Vec::new() };
        let count = self.logical().count();
        let ebr = |(i, p): (usize, &Placed)| {
            let at = extended.extent.start + i as u64;
            let mut block = vec![0; BLOCK];
            // `check` has seen that every logical partition begins behind all EBRs.
            put_entry(&mut block, 0, false, p.kind, p.extent.start - at, p.count());
            if i + 1 < count {
                put_entry(&mut block, 1, false, EBR_TYPE, i as u64 + 1, 1);
            }
            block[510..].copy_from_slice(&[0x55, 0xAA]);
            (at, block)
        };
        self.logical().enumerate().map(ebr).collect()
    }
}

/// Writes one of the four entries of an MBR or EBR. Both numbers fit 32 bits.
fn put_entry(block: &mut [u8], index: usize, boot: bool, kind: u8, start: u64, count: u64) {
    let at = 446 + index * 16;
    let entry = &mut block[at..at + 16];
    if kind != 0 {
        entry[0] = if boot { 0x80 } else { 0 };
        entry[1..4].copy_from_slice(&cylinder_head_sector(Some(start)));
        entry[4] = kind;
        entry[5..8].copy_from_slice(&cylinder_head_sector((start + count).checked_sub(1)));
    }
    entry[8..12].copy_from_slice(&(start as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&(count as u32).to_le_bytes());
}

/// The address of a block in the terms of old disks, with 255 heads and 63 sectors; zeros where they
/// cannot express it.
fn cylinder_head_sector(block: Option<u64>) -> [u8; 3] {
    const LAST: u64 = 16_434_495;
    let Some(block) = block.filter(|block| *block <= LAST) else { return [0; 3] };
    let (cylinder, head, sector) = (block / 16065, block / 63 % 255, block % 63 + 1);
    [head as u8, ((cylinder >> 8) << 6 | sector) as u8, cylinder as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, offset: i64, count: i64, kind: i64) -> MbrPartition {
        let count = (count > 0).then_some(count);
        MbrPartition { number, offset: Some(offset), count, kind: Some(kind), boot: false, expand: false }
    }

    fn mbr(partitions: &[MbrPartition]) -> Mbr {
        Mbr { boot: BootArea::Zeros, signature: 0, partitions: partitions.to_vec() }
    }

    fn message(partitions: &[MbrPartition]) -> String {
        mbr(partitions).check().map_or_else(|e| e.to_string(), |()| String::from("good"))
    }

    #[test]
    fn scripts_find_the_messages_they_look_for() {
        let extended = partition(3, 133_120, 0, 0x0F);
        assert!(message(&[partition(4, 10, 10, 1)]).contains("partition 3 must have extended"));
        let covered =
            [extended.clone(), partition(4, 133_121, 2_097_152, 1), partition(5, 2_230_528, 2_097_152, 1)];
        assert!(
            message(&covered).contains(
                "partition 4 (blocks 133121 to 2230273) overlaps the EBR at 133121 for partition 5"
            )
        );
        let overlapping =
            [extended, partition(4, 133_376, 2_197_152, 1), partition(5, 2_230_528, 2_097_152, 1)];
        assert!(
            message(&overlapping).contains(
                "partitions 4 (blocks 133376 to 2330528) and 5 (blocks 2230528 to 4327680) overlap"
            )
        );
    }

    #[test]
    fn bad_settings_are_refused() {
        let good = partition(0, 1, 10, 1);
        let without = |change: fn(&mut MbrPartition)| {
            let mut p = good.clone();
            change(&mut p);
            mbr(&[p]).check()
        };
        assert_eq!(mbr(std::slice::from_ref(&good)).check(), Ok(()));
        assert_eq!(without(|p| p.offset = None), Err(PartitionError::NoOffset(0)));
        assert_eq!(without(|p| p.count = None), Err(PartitionError::NoCount(0)));
        assert_eq!(without(|p| p.kind = None), Err(PartitionError::Type(0)));
        assert_eq!(without(|p| p.kind = Some(256)), Err(PartitionError::Type(0)));
        assert_eq!(without(|p| p.kind = Some(0x0F)), Err(PartitionError::ExtendedType(0)));
        assert!(matches!(without(|p| p.offset = Some(4_300_000_000)), Err(PartitionError::Offset { .. })));
        assert!(matches!(without(|p| p.count = Some((1 << 31) - 1)), Err(PartitionError::Count { .. })));
        assert!(matches!(without(|p| p.number = 12), Err(PartitionError::Number { .. })));
        assert_eq!(mbr(&[good.clone(), good.clone()]).check(), Err(PartitionError::Duplicate(0)));
        let mut middle = [good.clone(), partition(1, 20, 10, 1)];
        middle[0].expand = true;
        assert!(matches!(mbr(&middle).check(), Err(PartitionError::Overlap { .. })));
        let gap = [partition(3, 100, 0, 5), partition(4, 110, 5, 1), partition(6, 120, 5, 1)];
        assert_eq!(mbr(&gap).check(), Err(PartitionError::Gap(5)));
        let outside = [partition(3, 100, 0, 5), partition(4, 50, 5, 1), partition(5, 120, 5, 1)];
        assert!(matches!(mbr(&outside).check(), Err(PartitionError::OutsideExtended { .. })));
    }

    #[test]
    fn a_partition_larger_than_the_table_can_tell_is_cut() {
        let mut p = partition(0, 1, 10, 1);
        p.expand = true;
        let writes = mbr(&[p]).blocks(Some(1 << 40)).expect("a good table");
        assert_eq!(writes[0].1[458..462], [0xFF; 4]);
    }
}
