//! Partition tables: from the sections of `meta.conf` to blocks on the destination.

use super::ApplyError;
use super::target::Target;
use crate::fwup::language::partitions;
use crate::fwup::language::section::Section;
use crate::fwup::partition::BlockWrite;

pub fn write_mbr(configuration: &Section, name: &[u8], target: &mut Target) -> Result<(), ApplyError> {
    let section = configuration.section("mbr", name).ok_or_else(|| ApplyError::not_defined("mbr", name))?;
    let blocks = partitions::mbr(section)?.blocks(target.cache.medium_size())?;
    write(blocks, target)
}

pub fn write_gpt(configuration: &Section, name: &[u8], target: &mut Target) -> Result<(), ApplyError> {
    let section = configuration.section("gpt", name).ok_or_else(|| ApplyError::not_defined("gpt", name))?;
    let blocks = partitions::gpt(section)?.blocks(target.cache.medium_size())?;
    write(blocks, target)
}

fn write(blocks: Vec<BlockWrite>, target: &mut Target) -> Result<(), ApplyError> {
    for (block, bytes) in blocks {
        target.cache.write_blocks(block, &bytes, false)?;
    }
    Ok(())
}
