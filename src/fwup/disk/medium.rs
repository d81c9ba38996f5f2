//! The opened destination: whole segments in, whole segments out, read back where that is wanted.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::buffer::Buffer;
use super::{BLOCK, DiskError, SEGMENT};
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Device,
    /// `/dev/null`: a place for archives that only do other things.
    Null,
}

pub struct Medium {
    pub(super) file: File,
    pub(super) kind: Kind,
    /// In bytes: nothing lies beyond.
    pub(super) hard_limit: Option<u64>,
    /// In bytes: where an image file ends now.
    pub(super) soft_limit: Option<u64>,
    /// In blocks: the root file system that this system runs from.
    pub(super) running_root: Option<Range<u64>>,
    pub(super) verify: bool,
    pub(super) minimize: bool,
    pub(super) discards: bool,
}

impl Medium {
    /// In blocks, as far as there is a size; for what grows to the end of the medium.
    pub fn size(&self) -> Option<u64> {
        self.hard_limit.or(self.soft_limit).map(|bytes| bytes / BLOCK as u64)
    }

    /// How much of a segment exists: less than all only at a hard limit.
    pub(super) fn segment_length(&self, index: u64) -> Result<usize, DiskError> {
        let offset = segment_offset(index)?;
        let Some(limit) = self.hard_limit else { return Ok(SEGMENT) };
        match limit.checked_sub(offset) {
            None | Some(0) => Err(self.beyond(offset / BLOCK as u64)),
            Some(rest) => Ok(rest.min(SEGMENT as u64) as usize),
        }
    }

    /// Whether these blocks may be given another content.
    pub(super) fn allow(&self, blocks: Range<u64>) -> Result<(), DiskError> {
        match &self.running_root {
            Some(root) if blocks.start < root.end && root.start < blocks.end => {
                Err(DiskError::RunningRoot { block: blocks.start.max(root.start) })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn beyond(&self, block: u64) -> DiskError {
        DiskError::BeyondEnd { block, size: self.size().unwrap_or(0) }
    }

    pub(super) fn refuse_null(&self) -> Result<(), DiskError> {
        if self.kind == Kind::Null { Err(DiskError::NoData) } else { Ok(()) }
    }

    /// Reads a segment; what lies beyond the end is zeros.
    pub(super) fn read_segment(&self, index: u64, buffer: &mut Buffer) -> Result<(), DiskError> {
        self.refuse_null()?;
        let offset = segment_offset(index)?;
        let length = self.segment_length(index)?;
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut buffer[filled..length], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(DiskError::Read { offset, length, source }),
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    /// Writes a segment, unless it is there already and that matters; reads it back if asked to.
    pub(super) fn write_segment(
        &self,
        index: u64,
        buffer: &Buffer,
        scratch: &mut Option<Buffer>,
    ) -> Result<(), DiskError> {
        self.refuse_null()?;
        let offset = segment_offset(index)?;
        let length = self.segment_length(index)?;
        let bytes = &buffer[..length];
        if self.minimize {
            let scratch = scratch.get_or_insert_with(Buffer::new);
            self.read_segment(index, scratch)?;
            // A file that must still grow reads as zeros beyond its end.
            if scratch[..length] == *bytes && self.reaches(offset + length as u64) {
                return Ok(());
            }
        }
        let mut written = 0;
        while written < length {
            let failed = |source| DiskError::Write { offset, length, source };
            match self.file.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if self.verify {
            let scratch = scratch.get_or_insert_with(Buffer::new);
            self.read_segment(index, scratch)?;
            if scratch[..length] != *bytes {
                return Err(DiskError::Verify { offset });
            }
        }
        if self.kind == Kind::Regular {
            // Lets the disk work while the rest is still being unpacked; the sync at the end decides.
            sys::start_writeback(&self.file, offset, length as u64);
        }
        Ok(())
    }

    fn reaches(&self, end: u64) -> bool {
        self.kind != Kind::Regular || self.file.metadata().is_ok_and(|metadata| metadata.len() >= end)
    }

    /// Tells a device that whole segments hold nothing any more; whether that was possible.
    pub(super) fn discard(&self, first: u64, count: u64) -> io::Result<()> {
        if !self.discards {
            return Ok(());
        }
        let segment = SEGMENT as u64;
        sys::discard(&self.file, first.saturating_mul(segment), count.saturating_mul(segment))
    }

    /// Everything written so far is on the medium afterwards.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        sync_where_possible(&self.file).map_err(|source| DiskError::Sync { source })
    }

    /// Closes the destination, with the error that close(2) may still have.
    pub(super) fn close(self) -> Result<(), DiskError> {
        nix::unistd::close(self.file).map_err(|errno| DiskError::Close { source: errno.into() })
    }
}

/// Not every file can be synchronised: character devices and read-only ones say so (fsync(2)).
pub fn sync_where_possible(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => Ok(()),
        result => result,
    }
}

fn segment_offset(index: u64) -> Result<u64, DiskError> {
    let offset = index.checked_mul(SEGMENT as u64);
    // off_t is signed.
    let offset = offset.filter(|&offset| offset <= i64::MAX as u64 - SEGMENT as u64);
    offset.ok_or(DiskError::Absurd { block: index.saturating_mul((SEGMENT / BLOCK) as u64) })
}
