//! A set of the blocks of one segment.

use std::ops::Range;

use super::SEGMENT_BLOCKS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    words: [u64; SEGMENT_BLOCKS as usize / 64],
}

impl BlockSet {
    pub fn insert(&mut self, blocks: Range<usize>) {
        for (word, mask) in Self::masks(blocks) {
            self.words[word] |= mask;
        }
    }

    pub fn contains_all(&self, blocks: Range<usize>) -> bool {
        Self::masks(blocks).all(|(word, mask)| self.words[word] & mask == mask)
    }

    pub fn contains(&self, block: usize) -> bool {
        self.contains_all(block..block + 1)
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The words that a range touches, with the bits that are in it.
    fn masks(blocks: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
        let end = blocks.end.min(SEGMENT_BLOCKS as usize);
        let start = blocks.start.min(end);
        let words = if start < end { start / 64..end.div_ceil(64) } else { 0..0 };
        words.map(move |word| {
            let from = start.max(word * 64) - word * 64;
            let to = end.min(word * 64 + 64) - word * 64;
            (word, (u64::MAX >> (64 - (to - from))) << from)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cross_words() {
        let mut set = BlockSet::default();
        set.insert(60..130);
        assert!(set.contains_all(60..130) && set.contains(64) && !set.contains(59) && !set.contains(130));
        assert!(!set.contains_all(0..256) && set.contains_all(7..7));
        set.insert(0..256);
        assert!(set.contains_all(0..256));
    }
}
