//! Partition tables: from the sections of `meta.conf` to blocks on the destination.

use super::ApplyError;
use super::target::Target;
use crate::fwup::language::section::Section;

pub fn write_mbr(configuration: &Section, name: &[u8], _target: &mut Target) -> Result<(), ApplyError> {
    configuration.section("mbr", name).ok_or_else(|| ApplyError::not_defined("mbr", name))?;
    Ok(())
}

pub fn write_gpt(configuration: &Section, name: &[u8], _target: &mut Target) -> Result<(), ApplyError> {
    configuration.section("gpt", name).ok_or_else(|| ApplyError::not_defined("gpt", name))?;
    Ok(())
}
