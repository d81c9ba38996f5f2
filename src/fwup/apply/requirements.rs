//! Whether a requirement of a task holds on this device, now.

use std::ffi::OsStr;
use std::fs::{read_dir, read_to_string};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::ApplyError;
use super::host;
use super::target::Target;
use super::uboot::EnvironmentBlock;
use crate::fwup::disk::BLOCK;
use crate::fwup::language::calls::Requirement;
use crate::fwup::language::section::Section;

pub fn holds(
    requirement: &Requirement,
    configuration: &Section,
    target: &mut Target,
) -> Result<bool, ApplyError> {
    let cache = &mut target.cache;
    match requirement {
        Requirement::PartitionOffset { partition, offset } => {
            let mut block = [0; BLOCK];
            cache.read_blocks(0, &mut block)?;
            Ok(partition_offset(&block, *partition) == Some(*offset))
        }
        Requirement::UbootVariable { environment, name, value } => {
            let Some(section) = configuration.section("uboot-environment", environment) else {
                return Ok(false);
            };
            Ok(EnvironmentBlock::parse(section)?.variable(cache, name)?.as_ref() == Some(value))
        }
        Requirement::FatFileExists { offset, file } => Ok(target.volumes.has_file(cache, *offset, file)?),
        Requirement::FatFileMatch { text, .. } if text.len() >= LONGEST_MATCH => Ok(false),
        Requirement::FatFileMatch { offset, file, text } => {
            Ok(target.volumes.file_contains(cache, *offset, file, text)?)
        }
        Requirement::PathOnDevice { path, device } => {
            let (Ok(on), Ok(device)) = (as_path(path).metadata(), as_path(device).metadata()) else {
                return Ok(false);
            };
            Ok(lies_on(on.dev(), device.rdev(), LEVELS))
        }
        Requirement::PathAtOffset { path, offset } => {
            let Ok(on) = as_path(path).metadata() else { return Ok(false) };
            let start = read_to_string(sysfs(on.dev()) + "/start").ok();
            Ok(start.and_then(|text| text.trim().parse::<u64>().ok()) == Some(*offset))
        }
        Requirement::Execute { command } => {
            if !target.options.allow_unsafe || command.is_empty() {
                return Ok(false);
            }
            Ok(host::shell(command, &target.variables).status().is_ok_and(|status| status.success()))
        }
    }
}

/// The first block of a primary partition, if the block is a master boot record.
fn partition_offset(block: &[u8; BLOCK], partition: u64) -> Option<u64> {
    if block[510..] != [0x55, 0xAA] {
        return None;
    }
    let entry = 446 + usize::try_from(partition).ok()?.checked_mul(16)?;
    let start = block.get(entry + 8..entry + 12)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*start).into())
}

/// A device is another one, or made from it: device mapper and RAID devices have slaves.
fn lies_on(device: u64, wanted: u64, levels: u8) -> bool {
    if device == wanted {
        return true;
    }
    if levels == 0 {
        return false;
    }
    let Ok(slaves) = read_dir(sysfs(device) + "/slaves") else { return false };
    slaves.flatten().take(MOST_SLAVES).any(|slave| {
        let number = read_to_string(slave.path().join("dev")).ok().and_then(|text| parse_device(&text));
        number.is_some_and(|slave| lies_on(slave, wanted, levels - 1))
    })
}

fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn sysfs(device: u64) -> String {
    format!("/sys/dev/block/{}:{}", major(device), minor(device))
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Texts of this length never match in fwup.
const LONGEST_MATCH: usize = 4096;
const LEVELS: u8 = 3;
const MOST_SLAVES: usize = 64;
