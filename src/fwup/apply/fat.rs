//! The FAT volumes that a task uses, and the actions on them.

use thiserror::Error;

use crate::fwup::disk::cache::Cache;
use crate::fwup::disk::{BLOCK, DiskError};
use crate::fwup::fat::{FatError, FileWriter, Volume, mkfs};
use crate::fwup::language::calls::FatAction;
use crate::fwup::language::shown;

/// Volumes that are open, by their first block.
#[derive(Default)]
pub struct Volumes {
    open: Vec<(u64, Volume)>,
}

/// A file that is being written to a volume.
pub struct FatFile {
    volume: Volume,
    offset: u64,
    file: FileWriter,
}

impl Volumes {
    /// Everything but writing a file.
    pub fn perform(&mut self, cache: &mut Cache, offset: u64, action: &FatAction) -> Result<(), FatFailure> {
        match action {
            FatAction::Mkfs { count } => {
                self.close(offset);
                // What is beyond the end must fail here, not in the middle of the file system.
                let last = offset.checked_add(count - 1).ok_or(DiskError::Absurd { block: offset })?;
                cache.write_blocks(last, &[0xFF; BLOCK], false)?;
                return Ok(mkfs(cache, offset, *count)?);
            }
            FatAction::Copy { from, to_offset, to } => {
                return self.copy(cache, (offset, &text(from)?), (*to_offset, &text(to)?));
            }
            _ => {}
        }
        let mut volume = self.take(cache, offset)?;
        match action {
            FatAction::SetLabel { label } => volume.set_label(cache, &text(label)?)?,
            FatAction::Mkdir { folder } => volume.mkdir(cache, &text(folder)?)?,
            FatAction::Touch { file } => volume.touch(cache, &text(file)?)?,
            FatAction::Move { from, to, replace } => {
                volume.rename(cache, &text(from)?, &text(to)?, *replace)?;
            }
            FatAction::Remove { file, must_exist } => volume.remove(cache, &text(file)?, *must_exist)?,
            FatAction::Attributes { file, read_only, hidden, system } => {
                volume.attrib(cache, &text(file)?, *read_only, *hidden, *system)?;
            }
            FatAction::Mkfs { .. } | FatAction::Copy { .. } | FatAction::Write { .. } => {}
        }
        self.open.push((offset, volume));
        Ok(())
    }

    /// Begins to write a file; `finish_file` must follow.
    pub fn create_file(
        &mut self,
        cache: &mut Cache,
        offset: u64,
        file: &[u8],
    ) -> Result<FatFile, FatFailure> {
        let mut volume = self.take(cache, offset)?;
        let file = volume.create(cache, &text(file)?)?;
        Ok(FatFile { volume, offset, file })
    }

    pub fn finish_file(&mut self, cache: &mut Cache, file: FatFile) -> Result<(), FatFailure> {
        let FatFile { mut volume, offset, file } = file;
        file.finish(&mut volume, cache)?;
        self.open.push((offset, volume));
        Ok(())
    }

    pub fn has_file(&mut self, cache: &mut Cache, offset: u64, file: &[u8]) -> Result<bool, FatFailure> {
        let mut volume = self.take(cache, offset)?;
        let has = volume.is_file(cache, &text(file)?)?;
        self.open.push((offset, volume));
        Ok(has)
    }

    /// Whether a file contains a text, wherever it lies.
    pub fn file_contains(
        &mut self,
        cache: &mut Cache,
        offset: u64,
        file: &[u8],
        wanted: &[u8],
    ) -> Result<bool, FatFailure> {
        let mut volume = self.take(cache, offset)?;
        let mut reader = volume.read(cache, &text(file)?)?;
        // What may be the beginning of the text stays in front of what is read next.
        let keep = wanted.len().saturating_sub(1);
        let mut window = vec![0; keep + WINDOW];
        let mut filled = 0;
        let found = loop {
            let length = reader.read(&mut volume, cache, &mut window[filled..])?;
            filled += length;
            if wanted.is_empty() || window[..filled].windows(wanted.len()).any(|part| part == wanted) {
                break true;
            }
            if length == 0 {
                break false;
            }
            let start = filled.saturating_sub(keep);
            window.copy_within(start..filled, 0);
            filled -= start;
        };
        self.open.push((offset, volume));
        Ok(found)
    }

    /// Finishes every volume: other actions may write where they lie.
    pub fn flush(&mut self, cache: &mut Cache) -> Result<(), FatFailure> {
        for (_, mut volume) in self.open.drain(..) {
            volume.flush(cache)?;
        }
        Ok(())
    }

    /// Forgets what the volumes still hold.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    fn copy(&mut self, cache: &mut Cache, from: (u64, &str), to: (u64, &str)) -> Result<(), FatFailure> {
        let mut source = self.take(cache, from.0)?;
        let mut reader = source.read(cache, from.1)?;
        let mut chunk = vec![0; WINDOW];
        if from.0 == to.0 {
            if from.1.eq_ignore_ascii_case(to.1) {
                return Err(FatFailure::OntoItself { file: from.1.into() });
            }
            let mut writer = source.create(cache, to.1)?;
            loop {
                match reader.read(&mut source, cache, &mut chunk)? {
                    0 => break,
                    length => writer.write(&mut source, cache, &chunk[..length])?,
                }
            }
            writer.finish(&mut source, cache)?;
        } else {
            let mut file = self.create_file(cache, to.0, to.1.as_bytes())?;
            loop {
                match reader.read(&mut source, cache, &mut chunk)? {
                    0 => break,
                    length => file.write(cache, &chunk[..length])?,
                }
            }
            self.finish_file(cache, file)?;
        }
        self.open.push((from.0, source));
        Ok(())
    }

    /// The volume at a place, opened if need be; put it back after use.
    fn take(&mut self, cache: &mut Cache, offset: u64) -> Result<Volume, FatFailure> {
        match self.open.iter().position(|(place, _)| *place == offset) {
            Some(at) => Ok(self.open.swap_remove(at).1),
            None => Ok(Volume::open(cache, offset)?),
        }
    }

    fn close(&mut self, offset: u64) {
        self.open.retain(|(place, _)| *place != offset);
    }
}

impl FatFile {
    pub fn write(&mut self, cache: &mut Cache, bytes: &[u8]) -> Result<(), FatFailure> {
        Ok(self.file.write(&mut self.volume, cache, bytes)?)
    }
}

/// Names on FAT volumes are text; archives in use have ASCII only.
fn text(bytes: &[u8]) -> Result<String, FatFailure> {
    String::from_utf8(bytes.to_vec()).map_err(|_| FatFailure::Name { name: shown(bytes) })
}

const WINDOW: usize = 32 * 1024;

#[derive(Debug, Error)]
pub enum FatFailure {
    #[error(transparent)]
    Fat(#[from] FatError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("'{name}' is no name: write it in UTF-8")]
    Name { name: String },
    #[error("'{file}' cannot be copied onto itself")]
    OntoItself { file: String },
}
