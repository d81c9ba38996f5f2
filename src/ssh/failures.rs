//! Which refused logins stand in the log: one a second for each source, so that nobody fills a card with them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::connection::admission::Source;

/// How often a source is named.
const PAUSE: Duration = Duration::from_secs(1);
/// Sources that are remembered; beyond that the one that was quiet longest is forgotten.
const MAX_SOURCES: usize = 256;

/// The sources that were refused of late.
#[derive(Default)]
pub struct Failures {
    sources: HashMap<Source, Seen>,
}

struct Seen {
    named: Instant,
    unnamed: u64,
}

impl Failures {
    /// Somebody was refused. When that is to be logged, says how many were not since the last that was.
    pub fn count(&mut self, source: Source, now: Instant) -> Option<u64> {
        if let Some(seen) = self.sources.get_mut(&source) {
            if now.saturating_duration_since(seen.named) < PAUSE {
                seen.unnamed += 1;
                return None;
            }
            seen.named = now;
            return Some(std::mem::take(&mut seen.unnamed));
        }
        if self.sources.len() >= MAX_SOURCES
            && let Some(oldest) =
                self.sources.iter().min_by_key(|(_, seen)| seen.named).map(|(&source, _)| source)
        {
            self.sources.remove(&oldest);
        }
        self.sources.insert(source, Seen { named: now, unnamed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_named_once_a_second_with_a_count() {
        let (now, mut failures) = (Instant::now(), Failures::default());
        let [one, other] = [1, 2].map(|last| Source::of([127, 0, 0, last].into()));
        assert_eq!(failures.count(one, now), Some(0));
        assert_eq!(failures.count(other, now), Some(0));
        for _ in 0..20 {
            assert_eq!(failures.count(one, now + PAUSE / 2), None);
        }
        assert_eq!(failures.count(one, now + PAUSE), Some(20));
        for n in 0..10_000_u32 {
            failures.count(Source::of(n.to_be_bytes().into()), now);
        }
        assert!(failures.sources.len() <= MAX_SOURCES);
    }
}
