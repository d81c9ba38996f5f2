//! The blocks that a partition takes, and the checks that both kinds of tables share.

use std::fmt;

use super::PartitionError;

/// Blocks `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub number: u32,
    pub start: u64,
    pub end: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (blocks {} to {})", self.number, self.start, self.end)
    }
}

impl Extent {
    pub fn contains(&self, block: u64) -> bool {
        (self.start..self.end).contains(&block)
    }

    fn overlaps(&self, other: &Extent) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

const OFFSET_LIMIT: i64 = (1 << 32) - 1;
const COUNT_LIMIT: i64 = (1 << 31) - 1;

/// The first block of a partition.
pub(super) fn offset(number: u32, offset: Option<i64>) -> Result<u64, PartitionError> {
    let offset = offset.ok_or(PartitionError::NoOffset(number))?;
    u64::try_from(offset)
        .ok()
        .filter(|_| offset < OFFSET_LIMIT)
        .ok_or(PartitionError::Offset { number, offset })
}

/// The number of blocks of a partition.
pub(super) fn count(number: u32, count: Option<i64>) -> Result<u64, PartitionError> {
    let count = count.ok_or(PartitionError::NoCount(number))?;
    u64::try_from(count).ok().filter(|_| count < COUNT_LIMIT).ok_or(PartitionError::Count { number, count })
}

/// Partition numbers are in range and come once each.
pub(super) fn numbers(numbers: impl Iterator<Item = u32>, last: u32) -> Result<(), PartitionError> {
    let mut seen = Vec::new();
    for number in numbers {
        if number > last {
            return Err(PartitionError::Number { number, last });
        }
        if seen.contains(&number) {
            return Err(PartitionError::Duplicate(number));
        }
        seen.push(number);
    }
    Ok(())
}

pub(super) fn no_overlaps(extents: &[Extent]) -> Result<(), PartitionError> {
    for (i, a) in extents.iter().enumerate() {
        if let Some(b) = extents[i + 1..].iter().find(|b| a.overlaps(b)) {
            return Err(PartitionError::Overlap { a: *a, b: *b });
        }
    }
    Ok(())
}
