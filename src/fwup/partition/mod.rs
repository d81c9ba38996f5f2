//! Partition tables as pure functions: settings in, blocks to write out.
//!
//! Owns the checks and the byte layouts of MBR (with logical partitions and the OSIP header) and GPT.
//! Never touches a device: the caller knows the size of the medium and writes the blocks in the order
//! in which they are returned.

mod extent;
mod gpt;
mod guid;
mod mbr;
mod osip;
#[cfg(test)]
mod vector_tests;

pub use extent::Extent;
pub use gpt::{Gpt, GptPartition};
pub use guid::Guid;
pub use mbr::{BootArea, Mbr, MbrPartition};
pub use osip::{Osip, OsipImage};

/// Bytes for the destination, whole blocks from a block number on.
pub type BlockWrite = (u64, Vec<u8>);

const BLOCK: usize = 512;

/// What is wrong with the settings of a partition table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    #[error("partition {number} does not exist: partitions are numbered 0 to {last}")]
    Number { number: u32, last: u32 },
    #[error("partition {0} is defined twice: number them differently")]
    Duplicate(u32),
    #[error("partition {0}'s block-offset is required")]
    NoOffset(u32),
    #[error("partition {number}'s block-offset must be positive and less than 2^32 - 1, it is {offset}")]
    Offset { number: u32, offset: i64 },
    #[error("partition {0}'s block-count is required")]
    NoCount(u32),
    #[error("partition {number}'s block-count must be positive and less than 2^31 - 1, it is {count}")]
    Count { number: u32, count: i64 },
    #[error("partition {0}'s type must be between 0 and 255")]
    Type(u32),
    #[error("partitions {a} and {b} overlap: only the last one on the disk can expand")]
    Overlap { a: Extent, b: Extent },

    #[error(
        "to use more than 4 partitions with MBR, partition 3 must have extended partition type 0xf or 0x5"
    )]
    NoExtended,
    #[error("partition {0} has an extended partition type, only partition 3 can be the extended one")]
    ExtendedType(u32),
    #[error("partition {0} is missing: number logical partitions from 4 on without gaps")]
    Gap(u32),
    #[error("partition {partition} overlaps the EBR at {ebr} for partition {owner}")]
    CoversEbr { partition: Extent, ebr: u64, owner: u32 },
    #[error("partition {logical} must lie inside of the extended partition {extended}, behind its EBRs")]
    OutsideExtended { logical: Extent, extended: Extent },
    #[error("the EBR at {ebr} for partition {owner} must lie inside of the extended partition {extended}")]
    EbrOutside { ebr: u64, owner: u32, extended: Extent },

    #[error("include-osip needs an osii section")]
    NoOsipImage,
    #[error("osii {0} does not exist: they are numbered 0 to 14")]
    OsipNumber(u32),
    #[error("{name} of the OSIP header is {value}, it must be 0 to {most}")]
    OsipValue { name: &'static str, value: i64, most: u32 },

    #[error("a GPT must have a valid disk guid")]
    DiskGuid,
    #[error("the partition table is empty: define at least one partition")]
    Empty,
    #[error("partition {0} must have a valid type guid")]
    TypeGuid(u32),
    #[error("partition {0} must have a valid guid")]
    PartitionGuid(u32),
    #[error("error parsing partition {0}'s flags: an integer is needed")]
    Flags(u32),
    #[error("partition {0} expands, so no partition may have a higher number")]
    ExpandNotLast(u32),
    #[error("partition {0} begins inside of the partition table: begin at block 34 or later")]
    CoversTable(Extent),
    #[error(
        "partition {partition} covers the second partition table, which begins at block {table} \
         of this medium: make it smaller, or use a larger medium"
    )]
    CoversSecondTable { partition: Extent, table: u64 },
    #[error("a medium of {0} blocks is too large or too small for a GPT")]
    MediumSize(u64),
}
