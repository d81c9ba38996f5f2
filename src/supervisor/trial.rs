//! The end of a trial: when to start `myelin firmware end-trial`, and what to do when that fails. Pure.

use std::time::{Duration, Instant};

/// How long ending it may take: it may wait for an update to end, and init for its services.
const END_LIMIT: Duration = Duration::from_secs(300);
/// From its failure to the reboot without anybody's help.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// Armed -> Ending -> Failed -> (reboot) -> Failed …
///    \________\__________ Over
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// As far as we know the firmware is on trial, until then.
    Armed { until: Instant },
    /// The program runs, and has so long.
    Ending { until: Instant },
    /// It has failed; the machine is rebooted then.
    Failed { until: Instant },
    /// There is no trial (any more).
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has gone by.
    Time,
    /// The agent says that nothing is on trial.
    Valid,
    /// The program has ended, or could not be started.
    Ended { well: bool },
}

/// What the caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Start,
    /// The program hangs.
    Kill,
    Reboot,
}

impl TrialEnd {
    pub fn step(self, event: Event, now: Instant) -> (Self, Action) {
        match (self, event) {
            (Self::Armed { until }, Event::Time) if until <= now => {
                (Self::Ending { until: now + END_LIMIT }, Action::Start)
            }
            (Self::Armed { .. }, Event::Valid) => (Self::Over, Action::Nothing),
            (Self::Ending { until }, Event::Time) if until <= now => {
                (Self::Failed { until: now + LAST_RESORT }, Action::Kill)
            }
            (Self::Ending { .. }, Event::Ended { well: true }) => (Self::Over, Action::Nothing),
            (Self::Ending { .. }, Event::Ended { well: false }) => {
                (Self::Failed { until: now + LAST_RESORT }, Action::Nothing)
            }
            (Self::Failed { until }, Event::Time) if until <= now => {
                (Self::Failed { until: now + LAST_RESORT }, Action::Reboot)
            }
            // Somebody has validated by hand meanwhile, and the agent has noticed.
            (Self::Failed { .. }, Event::Valid) => (Self::Over, Action::Nothing),
            (state, _) => (state, Action::Nothing),
        }
    }

    /// When time matters next.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Armed { until } | Self::Ending { until } | Self::Failed { until } => Some(until),
            Self::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn armed() -> (TrialEnd, Instant) {
        let now = Instant::now();
        (TrialEnd::Armed { until: now + 10 * SECOND }, now)
    }

    #[test]
    fn a_valid_firmware_is_left_alone() {
        let (trial, now) = armed();
        assert_eq!(trial.step(Event::Time, now + 9 * SECOND), (trial, Action::Nothing));
        let (over, action) = trial.step(Event::Valid, now);
        assert_eq!((over, action, over.deadline()), (TrialEnd::Over, Action::Nothing, None));
        assert_eq!(over.step(Event::Time, now + 100 * SECOND).1, Action::Nothing);
    }

    #[test]
    fn nobody_said_valid() {
        let (trial, now) = armed();
        let now = now + 10 * SECOND;
        let (ending, action) = trial.step(Event::Time, now);
        assert_eq!(action, Action::Start);
        // It is started once.
        assert_eq!(ending.step(Event::Time, now + SECOND).1, Action::Nothing);
        assert_eq!(ending.step(Event::Ended { well: true }, now), (TrialEnd::Over, Action::Nothing));
    }

    #[test]
    fn a_failure_ends_in_a_reboot_after_a_minute() {
        let (trial, now) = armed();
        let now = now + 10 * SECOND;
        let (ending, _) = trial.step(Event::Time, now);
        let (failed, action) = ending.step(Event::Ended { well: false }, now);
        assert_eq!((failed.deadline(), action), (Some(now + LAST_RESORT), Action::Nothing));
        assert_eq!(failed.step(Event::Time, now + LAST_RESORT - SECOND).1, Action::Nothing);
        let (again, action) = failed.step(Event::Time, now + LAST_RESORT);
        assert_eq!(action, Action::Reboot);
        // The kernel may refuse: it is asked again.
        assert_eq!(again.step(Event::Time, now + 2 * LAST_RESORT).1, Action::Reboot);
    }

    #[test]
    fn a_program_that_hangs_has_failed() {
        let (trial, now) = armed();
        let now = now + 10 * SECOND;
        let (ending, _) = trial.step(Event::Time, now);
        let (failed, action) = ending.step(Event::Time, now + END_LIMIT);
        assert_eq!(action, Action::Kill);
        // That it ends then, as it was told to, is no news.
        assert_eq!(failed.step(Event::Ended { well: false }, now + END_LIMIT), (failed, Action::Nothing));
    }
}
