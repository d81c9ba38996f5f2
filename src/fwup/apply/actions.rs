//! Doing what an action says, and how much progress it counts for.

use std::io::Read;

use super::ApplyError;
use super::host::{self, HostWriter};
use super::raw::RawWriter;
use super::resource::{Piece, Resource, ResourceError};
use super::target::Target;
use super::uboot::EnvironmentBlock;
use crate::fwup::archive::header::Entry;
use crate::fwup::archive::reader::ArchiveReader;
use crate::fwup::disk::{BLOCK, SEGMENT};
use crate::fwup::language::calls::{Action, FatAction};
use crate::fwup::language::section::Section;
use crate::fwup::language::shown;

/// The resource of an on-resource block, standing at its entry in the archive.
pub struct Source<'a, R> {
    pub archive: &'a mut ArchiveReader<R>,
    pub entry: &'a Entry,
    pub resource: &'a Resource,
}

/// The units of progress of an action, roughly bytes.
pub fn units(action: &Action, resource: Option<&Resource>, configuration: &Section) -> u64 {
    const SMALL: u64 = 512;
    match action {
        Action::RawWrite { .. } | Action::PathWrite { .. } => resource.map_or(0, |one| one.data_size),
        Action::PipeWrite { .. }
        | Action::UbiVolumeWrite { .. }
        | Action::Fat { action: FatAction::Write { .. }, .. } => resource.map_or(0, |one| one.total_size),
        Action::RawMemset { count, .. } => count.saturating_mul(BLOCK as u64),
        Action::Trim { count, .. } => count / 256,
        Action::GptWrite { .. } => 33_792,
        Action::Uboot { environment, .. } => {
            let section = configuration.section("uboot-environment", environment);
            let block = section.and_then(|section| EnvironmentBlock::parse(section).ok());
            block.map_or(0, |block| block.units())
        }
        Action::Error { .. } | Action::Info { .. } => 0,
        Action::MbrWrite { .. }
        | Action::Fat { .. }
        | Action::Execute { .. }
        | Action::RebootParam { .. } => SMALL,
    }
}

/// Does one action. A resource is there in on-resource blocks only.
pub fn perform<R: Read>(
    action: &Action,
    source: Option<&mut Source<R>>,
    configuration: &Section,
    target: &mut Target,
) -> Result<(), ApplyError> {
    if action.needs_unsafe() && !target.options.allow_unsafe {
        return Err(ApplyError::NeedsUnsafe);
    }
    if !matches!(action, Action::Fat { .. }) {
        // Other actions may write where a volume lies.
        target.volumes.flush(&mut target.cache)?;
    }
    if action.consumes_resource() {
        let source = source.ok_or(ApplyError::NoResource)?;
        if source.resource.is_delta(source.entry) {
            return Err(ResourceError::Delta { name: shown(&source.resource.name) }.into());
        }
        return consume(action, source, target);
    }
    match action {
        Action::RawMemset { offset, count, value } => return memset(*offset, *count, *value, target),
        Action::Trim { offset, count } => trim(*offset, *count, target)?,
        Action::MbrWrite { mbr } => super::partitions::write_mbr(configuration, mbr, target)?,
        Action::GptWrite { gpt } => super::partitions::write_gpt(configuration, gpt, target)?,
        Action::Fat { offset, action } => {
            if let FatAction::Mkfs { count } = action {
                trim(*offset, *count, target)?;
            }
            target.volumes.perform(&mut target.cache, *offset, action)?;
        }
        Action::Uboot { environment, action } => {
            let section = configuration.section("uboot-environment", environment);
            let section = section.ok_or_else(|| ApplyError::not_defined("uboot-environment", environment))?;
            EnvironmentBlock::parse(section)?.perform(&mut target.cache, action)?;
        }
        Action::Execute { command } => host::execute(command, &target.variables)?,
        Action::RebootParam { text } => {
            host::reboot_param(target.options.reboot_param_path.as_deref(), text)?
        }
        Action::Info { text } => target.output.info(text),
        Action::Error { text } => return Err(ApplyError::Told { text: shown(text) }),
        // Handled above.
        Action::RawWrite { .. }
        | Action::PathWrite { .. }
        | Action::PipeWrite { .. }
        | Action::UbiVolumeWrite { .. } => {}
    }
    target.progressed(units(action, None, configuration));
    Ok(())
}

fn memset(offset: u64, count: u64, value: u8, target: &mut Target) -> Result<(), ApplyError> {
    let segment = vec![value; SEGMENT];
    let mut done = 0;
    while done < count {
        let blocks = (count - done).min((SEGMENT / BLOCK) as u64);
        let bytes = blocks as usize * BLOCK;
        target.cache.write_blocks(offset.saturating_add(done), &segment[..bytes], true)?;
        target.progressed(bytes as u64);
        done += blocks;
    }
    Ok(())
}

fn trim(offset: u64, count: u64, target: &mut Target) -> Result<(), ApplyError> {
    if let Some(error) = target.cache.trim(offset, count)? {
        target.output.info(format!("cannot discard blocks of the device: {error}"));
    }
    Ok(())
}

/// The actions that take the data of a resource.
fn consume<R: Read>(action: &Action, source: &mut Source<R>, target: &mut Target) -> Result<(), ApplyError> {
    let Source { archive, resource, .. } = source;
    match action {
        Action::RawWrite { options, .. } if !options.is_empty() => Err(ApplyError::Encryption),
        Action::RawWrite { offset, .. } => {
            let mut raw = RawWriter::new(*offset);
            resource.read(archive, |at, piece| {
                match piece {
                    Piece::Data(bytes) => {
                        raw.write(&mut target.cache, at, bytes)?;
                        target.progressed(bytes.len() as u64);
                    }
                    // An image file gets its length by the end of the hole.
                    Piece::Hole { length, last: true } => {
                        let zeros = length.min(BLOCK as u64);
                        raw.write(&mut target.cache, at + length - zeros, &[0; BLOCK][..zeros as usize])?;
                    }
                    Piece::Hole { .. } => {}
                }
                Ok::<_, ApplyError>(())
            })?;
            Ok(raw.flush(&mut target.cache)?)
        }
        Action::Fat { offset, action: FatAction::Write { file } } => {
            let name = file.as_ref().unwrap_or(&resource.name);
            let mut file = target.volumes.create_file(&mut target.cache, *offset, name)?;
            resource.read(archive, |_, piece| match piece {
                Piece::Data(bytes) => {
                    file.write(&mut target.cache, bytes)?;
                    target.progressed(bytes.len() as u64);
                    Ok::<_, ApplyError>(())
                }
                Piece::Hole { length, .. } => {
                    let mut left = length;
                    while left > 0 {
                        let bytes = left.min(ZEROS.len() as u64) as usize;
                        file.write(&mut target.cache, &ZEROS[..bytes])?;
                        target.progressed(bytes as u64);
                        left -= bytes as u64;
                    }
                    Ok(())
                }
            })?;
            Ok(target.volumes.finish_file(&mut target.cache, file)?)
        }
        Action::PathWrite { path } => copy_out(HostWriter::file(path)?, false, source, target),
        Action::PipeWrite { command } => {
            copy_out(HostWriter::pipe(command, &target.variables)?, true, source, target)
        }
        Action::UbiVolumeWrite { device } => {
            copy_out(HostWriter::volume(device, resource.total_size)?, true, source, target)
        }
        _ => Ok(()),
    }
}

/// Hands the data to something outside of the destination.
fn copy_out<R: Read>(
    mut out: HostWriter,
    holes_count: bool,
    source: &mut Source<R>,
    target: &mut Target,
) -> Result<(), ApplyError> {
    let read = source.resource.read(source.archive, |_, piece| {
        out.write(&piece)?;
        target.progressed(match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Hole { length, .. } if holes_count => length,
            Piece::Hole { .. } => 0,
        });
        Ok::<_, ApplyError>(())
    });
    // Whatever happened before, a command that failed is what counts.
    out.finish()?;
    read
}

static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
