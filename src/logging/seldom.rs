//! Lines that somebody outside can cause as often as they like: one a minute, with a count of those that were not said.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Default)]
pub struct Seldom(Mutex<Option<(Instant, u64)>>);

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether to say it now; then how often it was not said since the last time.
    pub fn is_due(&self) -> Option<u64> {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((said, unsaid)) if now.saturating_duration_since(*said) < PAUSE => {
                *unsaid += 1;
                None
            }
            last => Some(last.replace((now, 0)).map_or(0, |(_, unsaid)| unsaid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_with_a_count() {
        let (seldom, now) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.is_due_at(now), Some(0));
        for _ in 0..5 {
            assert_eq!(seldom.is_due_at(now + PAUSE / 2), None);
        }
        assert_eq!(seldom.is_due_at(now + PAUSE), Some(5));
        assert_eq!(seldom.is_due_at(now + PAUSE * 2), Some(0));
    }
}
