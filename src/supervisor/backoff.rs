//! How long to wait before a worker is started again. Pure: the caller has the clock and the dice.

use std::time::Duration;

/// The first wait; it doubles with each worker that dies without having been of use.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait: a device must answer again soon after its trouble is over.
const LONGEST: Duration = Duration::from_secs(30);
/// A worker that lived so long was of use, whether or not somebody logged in.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// Waits between the starts of one worker: none after a useful life, else 0, 0.5 s, 1 s, … 30 s, for ever.
#[derive(Debug, Default)]
pub struct Backoff {
    useless: u32,
}

impl Backoff {
    /// A worker has died: `lived` after its start, and `served` says whether it did its work once.
    /// `dice` from 0 to 1 spreads the waits by a quarter, so that boards do not march in step.
    pub fn after(&mut self, lived: Duration, served: bool, dice: f64) -> Duration {
        if served || lived >= LONG_ENOUGH {
            self.useless = 0;
            return Duration::ZERO;
        }
        let doublings = self.useless;
        self.useless = self.useless.saturating_add(1);
        match doublings {
            0 => Duration::ZERO,
            n => FIRST
                .saturating_mul(1 << (n - 1).min(16))
                .min(LONGEST)
                .mul_f64(1.0 - dice.clamp(0.0, 1.0) / 4.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_useful_worker_is_replaced_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            assert_eq!(backoff.after(Duration::from_millis(20), true, 0.0), Duration::ZERO);
        }
        assert_eq!(backoff.after(Duration::from_secs(61), false, 0.0), Duration::ZERO);
    }

    #[test]
    fn useless_workers_wait_longer_but_never_for_ever() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..100).map(|_| backoff.after(Duration::ZERO, false, 0.0)).collect();
        assert_eq!(waits[..4], [0, 500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(waits[99], LONGEST);
        assert_eq!(backoff.after(Duration::ZERO, true, 0.0), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO, false, 0.0), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO, false, 1.0), Duration::from_millis(375));
    }
}
