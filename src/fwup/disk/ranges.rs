//! Sets of whole numbers as sorted ranges: which segments were trimmed.

use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Sorted, not empty, not touching.
    ranges: Vec<Range<u64>>,
}

impl Ranges {
    pub fn contains(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= number);
        self.ranges.get(after).is_some_and(|range| range.contains(&number))
    }

    pub fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|range| range.end < new.start);
        let last = self.ranges.partition_point(|range| range.start <= new.end);
        let merged = self.ranges[first..last]
            .iter()
            .fold(new, |merged, range| merged.start.min(range.start)..merged.end.max(range.end));
        self.ranges.splice(first..last, [merged]);
    }

    pub fn remove(&mut self, number: u64) {
        let at = self.ranges.partition_point(|range| range.end <= number);
        let Some(range) = self.ranges.get(at).filter(|range| range.contains(&number)).cloned() else {
            return;
        };
        let parts = [range.start..number, number + 1..range.end];
        self.ranges.splice(at..=at, parts.into_iter().filter(|part| !part.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::default();
        for range in [10..20, 30..40, 20..25, 0..0, 5..6] {
            ranges.insert(range);
        }
        assert_eq!(ranges.ranges, [5..6, 10..25, 30..40]);
        ranges.remove(5);
        ranges.remove(12);
        ranges.remove(30);
        ranges.remove(99);
        assert_eq!(ranges.ranges, [10..12, 13..25, 31..40]);
        ranges.insert(11..32);
        assert_eq!((ranges.ranges.len(), ranges.ranges[0].clone()), (1, 10..40));
        assert!(ranges.contains(10) && ranges.contains(39) && !ranges.contains(40) && !ranges.contains(9));
    }
}
