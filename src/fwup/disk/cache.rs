//! The segment cache: all reads and writes of the destination go through it.
//!
//! What is only in the cache can still be thrown away: on an error the medium keeps what it had. Segments
//! leave in the order in which they were last used, so the switch to a new firmware goes last. Copies of an
//! environment are never under way together: a power cut may damage what is.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::blocks::BlockSet;
use super::buffer::Buffer;
use super::medium::Medium;
use super::ranges::Ranges;
use super::writer::Writer;
use super::{BLOCK, DiskError, SEGMENT, SEGMENT_BLOCKS};
use crate::fwup::fat::Blocks;

pub struct Cache {
    writer: Writer,
    segments: Vec<Segment>,
    capacity: usize,
    clock: u64,
    /// Segments whose content on the medium means nothing: they count as zeros until they are written.
    trimmed: Ranges,
    scratch: Option<Buffer>,
}

struct Segment {
    index: u64,
    /// Shared with the writer thread while it is being written.
    buffer: Arc<Buffer>,
    valid: BlockSet,
    dirty: BlockSet,
    /// All its writes were of bulk data.
    streamed: bool,
    /// Leaves alone, see `keep`.
    kept: bool,
    used: u64,
}

impl Cache {
    /// A cache of so many MiB; memory is taken as it is needed.
    pub fn new(medium: Medium, mebibytes: usize) -> Self {
        let capacity = mebibytes.clamp(1, LARGEST) * (1024 * 1024 / SEGMENT);
        Self {
            writer: Writer::new(medium),
            segments: Vec::new(),
            capacity,
            clock: 0,
            trimmed: Ranges::default(),
            scratch: None,
        }
    }

    /// The size of the medium in blocks, if it has one.
    pub fn medium_size(&self) -> Option<u64> {
        self.writer.medium().size()
    }

    pub fn read_blocks(&mut self, block: u64, out: &mut [u8]) -> Result<(), DiskError> {
        for (index, blocks, bytes) in pieces(block, out.len()) {
            let at = self.segment(index)?;
            if !self.segments[at].valid.contains_all(blocks.clone()) {
                self.complete(at)?;
            }
            out[bytes].copy_from_slice(&self.segments[at].buffer[byte_range(&blocks)]);
        }
        Ok(())
    }

    /// Writes whole blocks; `streamed` bulk data goes on to the medium as soon as a segment is full.
    pub fn write_blocks(&mut self, block: u64, data: &[u8], streamed: bool) -> Result<(), DiskError> {
        self.check_range(block, (data.len() / BLOCK) as u64)?;
        for (index, blocks, bytes) in pieces(block, data.len()) {
            let at = self.segment(index)?;
            self.buffer_mut(at)?[byte_range(&blocks)].copy_from_slice(&data[bytes]);
            let length = self.writer.medium().segment_length(index)?;
            let segment = &mut self.segments[at];
            segment.streamed = streamed && (segment.streamed || segment.dirty.is_empty());
            segment.valid.insert(blocks.clone());
            segment.dirty.insert(blocks);
            if segment.streamed && segment.dirty.contains_all(0..length / BLOCK) {
                self.settle_kept()?;
                self.hand_over(at)?;
            }
        }
        Ok(())
    }

    /// Keeps the segments of a range apart from others: they hold one of two copies, of which one must be whole
    /// on the medium at any moment.
    pub fn keep(&mut self, block: u64, count: u64) -> Result<(), DiskError> {
        for (index, ..) in pieces(block, count as usize * BLOCK) {
            let at = self.segment(index)?;
            self.segments[at].kept = true;
        }
        Ok(())
    }

    /// Declares the content of whole segments inside a range irrelevant. The error of telling the device
    /// is handed back beside the result: it stops nothing.
    pub fn trim(&mut self, block: u64, count: u64) -> Result<Option<io::Error>, DiskError> {
        let end = block.saturating_add(count);
        let end = self.writer.medium().hard_limit.map_or(end, |limit| end.min(limit / BLOCK as u64));
        let (first, end) = (block.div_ceil(SEGMENT_BLOCKS), end / SEGMENT_BLOCKS);
        if first >= end {
            return Ok(None);
        }
        self.writer.medium().allow(first * SEGMENT_BLOCKS..end * SEGMENT_BLOCKS)?;
        self.writer.wait_idle()?;
        self.segments.retain(|segment| !(first..end).contains(&segment.index));
        self.trimmed.insert(first..end);
        Ok(self.writer.medium().discard(first, end - first).err())
    }

    /// Writes out everything and waits until it is on the medium. The two segments that were used last go one
    /// after the other when all others are there: they may hold the switch to what these hold, twice.
    pub fn flush(&mut self) -> Result<(), DiskError> {
        let mut dirty: Vec<usize> =
            (0..self.segments.len()).filter(|&at| !self.segments[at].dirty.is_empty()).collect();
        dirty.sort_unstable_by_key(|&at| self.segments[at].used);
        let alone = dirty.len().saturating_sub(2).max(1);
        for (number, at) in dirty.into_iter().enumerate() {
            self.complete(at)?;
            if number >= alone {
                self.writer.wait_idle()?;
                self.writer.medium().sync()?;
            }
            self.hand_over(at)?;
        }
        self.writer.wait_idle()?;
        self.writer.medium().sync()
    }

    /// Forgets everything that is not on the medium yet, and errors of what is under way.
    pub fn forget(&mut self) {
        // The run has failed already; what failed beside it changes nothing.
        let _ = self.writer.wait_idle();
        self.segments.clear();
        self.trimmed = Ranges::default();
    }

    /// Closes the destination; call `flush` before.
    pub fn close(self) -> Result<(), DiskError> {
        self.writer.close()
    }

    fn check_range(&self, block: u64, count: u64) -> Result<(), DiskError> {
        self.writer.medium().refuse_null()?;
        let end = block.checked_add(count).filter(|&end| end <= LAST_BLOCK);
        let end = end.ok_or(DiskError::Absurd { block })?;
        match self.writer.medium().hard_limit.map(|limit| limit / BLOCK as u64) {
            Some(limit) if end > limit => Err(self.writer.medium().beyond(block.max(limit))),
            _ => self.writer.medium().allow(block..end),
        }
    }

    /// The place of a segment in the cache; it is taken in, without reading it, if it is not there.
    fn segment(&mut self, index: u64) -> Result<usize, DiskError> {
        self.clock += 1;
        let used = self.clock;
        if let Some(at) = self.segments.iter().position(|segment| segment.index == index) {
            self.segments[at].used = used;
            return Ok(at);
        }
        self.writer.medium().segment_length(index)?;
        let fresh = |buffer| {
            let (valid, dirty) = (BlockSet::default(), BlockSet::default());
            Segment { index, buffer, valid, dirty, streamed: false, kept: false, used }
        };
        if self.segments.len() < self.capacity {
            self.segments.push(fresh(Arc::new(Buffer::new())));
            return Ok(self.segments.len() - 1);
        }
        let oldest = self.segments.iter().enumerate().min_by_key(|(_, segment)| (segment.kept, segment.used));
        let at = oldest.map(|(at, _)| at).unwrap_or(0);
        if !self.segments[at].dirty.is_empty() {
            self.settle_kept()?;
            self.complete(at)?;
            self.hand_over(at)?;
        }
        let buffer = Arc::clone(&self.segments[at].buffer);
        self.segments[at] = fresh(buffer);
        Ok(at)
    }

    /// Writes the kept segments out, one after the other. Done before bulk data goes to the medium: a task that
    /// says in the environment that a slot is no good any more wants that known before the slot is overwritten.
    fn settle_kept(&mut self) -> Result<(), DiskError> {
        let dirty = |segment: &Segment| segment.kept && !segment.dirty.is_empty();
        while let Some(at) = (0..self.segments.len())
            .filter(|&at| dirty(&self.segments[at]))
            .min_by_key(|&at| self.segments[at].used)
        {
            self.complete(at)?;
            self.hand_over(at)?;
            self.writer.wait_idle()?;
            self.writer.medium().sync()?;
        }
        Ok(())
    }

    /// Makes all blocks of a segment valid, reading those that are not.
    fn complete(&mut self, at: usize) -> Result<(), DiskError> {
        let index = self.segments[at].index;
        let all = 0..SEGMENT_BLOCKS as usize;
        if self.segments[at].valid.contains_all(all.clone()) {
            return Ok(());
        }
        self.writer.wait_idle()?;
        if self.segments[at].valid.is_empty() && !self.trimmed.contains(index) {
            let buffer = exclusive(&self.writer, &mut self.segments[at].buffer)?;
            self.writer.medium().read_segment(index, buffer)?;
        } else {
            let scratch = self.scratch.get_or_insert_with(Buffer::new);
            if self.trimmed.contains(index) {
                scratch.fill(0);
            } else {
                self.writer.medium().read_segment(index, scratch)?;
            }
            let valid = self.segments[at].valid;
            let buffer = exclusive(&self.writer, &mut self.segments[at].buffer)?;
            for block in all.clone().filter(|&block| !valid.contains(block)) {
                let bytes = byte_range(&(block..block + 1));
                buffer[bytes.clone()].copy_from_slice(&scratch[bytes]);
            }
        }
        self.segments[at].valid.insert(all);
        Ok(())
    }

    /// Gives a segment to the writer thread; it stays here as clean.
    fn hand_over(&mut self, at: usize) -> Result<(), DiskError> {
        let segment = &mut self.segments[at];
        segment.dirty = BlockSet::default();
        segment.streamed = false;
        self.trimmed.remove(segment.index);
        self.writer.submit(segment.index, Arc::clone(&segment.buffer))
    }

    fn buffer_mut(&mut self, at: usize) -> Result<&mut Buffer, DiskError> {
        exclusive(&self.writer, &mut self.segments[at].buffer)
    }
}

/// The buffer, once the writer thread is through with it.
fn exclusive<'a>(writer: &Writer, buffer: &'a mut Arc<Buffer>) -> Result<&'a mut Buffer, DiskError> {
    if Arc::get_mut(buffer).is_none() {
        writer.wait_idle()?;
    }
    Arc::get_mut(buffer).ok_or(DiskError::Writer { source: io::ErrorKind::ResourceBusy.into() })
}

impl Blocks for Cache {
    fn read(&mut self, block: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_blocks(block, out).map_err(io::Error::other)
    }

    fn write(&mut self, block: u64, data: &[u8], streamed: bool) -> io::Result<()> {
        self.write_blocks(block, data, streamed).map_err(io::Error::other)
    }
}

/// A range of blocks, cut at segments: the segment, the blocks in it, the bytes of the caller.
fn pieces(block: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let block = block.checked_add((done / BLOCK) as u64)?;
        let left = (length - done) / BLOCK;
        if left == 0 {
            return None;
        }
        let first = (block % SEGMENT_BLOCKS) as usize;
        let count = left.min(SEGMENT_BLOCKS as usize - first);
        let bytes = done..done + count * BLOCK;
        done = bytes.end;
        Some((block / SEGMENT_BLOCKS, first..first + count, bytes))
    })
}

fn byte_range(blocks: &Range<usize>) -> Range<usize> {
    blocks.start * BLOCK..blocks.end * BLOCK
}

/// off_t is signed.
const LAST_BLOCK: u64 = i64::MAX as u64 / BLOCK as u64 - SEGMENT_BLOCKS;
/// In MiB. An archive asks for the size; memory is used only as far as there is something to keep.
const LARGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::medium::Kind;
    use super::*;

    fn cache(file: &std::fs::File, hard_limit: Option<u64>) -> Cache {
        cache_beside(file, hard_limit, None)
    }

    fn cache_beside(
        file: &std::fs::File,
        hard_limit: Option<u64>,
        running_root: Option<Range<u64>>,
    ) -> Cache {
        let medium = Medium {
            file: file.try_clone().unwrap(),
            kind: Kind::Regular,
            hard_limit,
            soft_limit: None,
            running_root,
            verify: true,
            minimize: false,
            discards: false,
        };
        Cache::new(medium, 1)
    }

    /// Small steps of an old generator, so that a failure can be repeated.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }
    }

    #[test]
    fn a_small_cache_keeps_what_was_written_in_any_order() {
        const BLOCKS: usize = 12 * SEGMENT_BLOCKS as usize;
        let file = tempfile::tempfile().unwrap();
        let mut cache = cache(&file, None);
        let mut expected = vec![0_u8; BLOCKS * BLOCK];
        let mut dice = Dice(7);
        for _ in 0..4000 {
            let block = dice.roll(BLOCKS as u64 - 1) as usize;
            let longest = if dice.roll(8) == 0 { 700 } else { 9 };
            let count = (1 + dice.roll(longest) as usize).min(BLOCKS - block);
            let bytes = block * BLOCK..(block + count) * BLOCK;
            match dice.roll(10) {
                0..5 => {
                    let value = dice.roll(255) as u8 + 1;
                    expected[bytes.clone()].fill(value);
                    let streamed = dice.roll(2) == 0;
                    cache.write_blocks(block as u64, &expected[bytes], streamed).unwrap();
                }
                5..9 => {
                    let mut read = vec![0xEE; bytes.len()];
                    cache.read_blocks(block as u64, &mut read).unwrap();
                    assert!(read == expected[bytes], "at block {block}");
                }
                _ => {
                    cache.trim(block as u64, count as u64).unwrap();
                    let segment = SEGMENT_BLOCKS as usize;
                    let whole = block.div_ceil(segment) * SEGMENT..(block + count) / segment * SEGMENT;
                    if whole.start < whole.end {
                        expected[whole].fill(0);
                    }
                }
            }
        }
        cache.flush().unwrap();
        let mut read = vec![0; expected.len()];
        cache.read_blocks(0, &mut read).unwrap();
        assert!(read == expected);
        cache.close().unwrap();
    }

    #[test]
    fn what_is_forgotten_never_reaches_the_medium() {
        let file = tempfile::tempfile().unwrap();
        let mut cache = cache(&file, None);
        cache.write_blocks(5, &[1; BLOCK], false).unwrap();
        cache.flush().unwrap();
        cache.write_blocks(5, &[2; BLOCK], false).unwrap();
        cache.write_blocks(600, &[2; BLOCK], true).unwrap();
        cache.forget();
        let mut block = [9; BLOCK];
        cache.read_blocks(5, &mut block).unwrap();
        assert_eq!(block, [1; BLOCK]);
        cache.flush().unwrap();
        cache.close().unwrap();
        assert_eq!(file.metadata().unwrap().len(), SEGMENT as u64);
    }

    #[test]
    fn nothing_is_written_beyond_the_end() {
        let file = tempfile::tempfile().unwrap();
        let mut cache = cache(&file, Some(3 * BLOCK as u64));
        assert!(matches!(
            cache.write_blocks(2, &[1; 2 * BLOCK], false),
            Err(DiskError::BeyondEnd { block: 3, size: 3 })
        ));
        assert!(matches!(cache.write_blocks(u64::MAX, &[1; BLOCK], false), Err(DiskError::Absurd { .. })));
        assert!(cache.read_blocks(SEGMENT_BLOCKS, &mut [0; BLOCK]).is_err());
        cache.write_blocks(0, &[1; 3 * BLOCK], true).unwrap();
        cache.flush().unwrap();
        cache.close().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 * BLOCK as u64);
    }

    #[test]
    fn nothing_is_written_to_the_running_root() {
        let file = tempfile::tempfile().unwrap();
        let root = 3 * SEGMENT_BLOCKS..5 * SEGMENT_BLOCKS;
        let mut cache = cache_beside(&file, None, Some(root.clone()));
        for block in [root.start - 1, root.start, root.end - 1] {
            let refused = cache.write_blocks(block, &[1; 2 * BLOCK], true);
            let first = block.max(root.start);
            assert!(matches!(refused, Err(DiskError::RunningRoot { block }) if block == first));
        }
        assert!(matches!(cache.trim(0, root.end), Err(DiskError::RunningRoot { .. })));
        cache.write_blocks(root.start - 1, &[1; BLOCK], true).unwrap();
        cache.write_blocks(root.end, &[1; BLOCK], true).unwrap();
        assert!(cache.trim(0, root.start).unwrap().is_none());
        cache.close().unwrap();
    }

    #[test]
    fn an_error_of_the_writer_thread_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-only");
        std::fs::File::create(&path).unwrap();
        let mut cache = cache(&std::fs::File::open(&path).unwrap(), None);
        cache.write_blocks(0, &[1; SEGMENT], true).unwrap();
        assert!(matches!(cache.flush(), Err(DiskError::Write { offset: 0, .. })));
        cache.forget();
        assert!(cache.close().is_ok());
    }
}
