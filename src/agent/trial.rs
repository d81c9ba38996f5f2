//! What to do next in a trial. Pure: the caller has the clock, looks at the store and tries the gates.

use std::time::{Duration, Instant};

/// Between two attempts; the first comes at once, since a slot that is not valid yet is in danger.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause, which is reached when nothing changes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A store that says nothing for so long is not going to: what is not known counts as valid.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(60);

/// Waiting -> Looking -> (gates) -> (validate) -> Over
///    \______________________/  not yet
#[derive(Debug, PartialEq, Eq)]
pub struct Trial {
    state: State,
    began: Instant,
    pause: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Looking,
    Trying,
    Validating,
    Over,
}

/// What has happened since the last step.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The wait is over.
    Time,
    Seen {
        on_trial: bool,
    },
    /// The store cannot be read.
    Unknown,
    /// All gates hold.
    Open,
    /// One does not, or the validation failed.
    Closed,
    Validated,
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Wait(Instant),
    /// Whether the firmware is still on trial: somebody else may have ended it.
    Look,
    TryGates,
    Validate,
    End,
}

impl Trial {
    pub fn begin(now: Instant) -> Self {
        Self { state: State::Waiting, began: now, pause: PAUSE }
    }

    pub fn step(self, event: Event, now: Instant) -> (Self, Action) {
        match (&self.state, event) {
            (State::Waiting, Event::Time) => (Self { state: State::Looking, ..self }, Action::Look),
            (State::Looking, Event::Seen { on_trial: true }) => {
                (Self { state: State::Trying, ..self }, Action::TryGates)
            }
            (State::Looking, Event::Unknown) if now.duration_since(self.began) < UNKNOWN_LIMIT => {
                self.wait(now)
            }
            (State::Trying, Event::Open) => (Self { state: State::Validating, ..self }, Action::Validate),
            (State::Trying | State::Validating, Event::Closed) => self.wait(now),
            (State::Looking, Event::Seen { on_trial: false } | Event::Unknown)
            | (State::Validating, Event::Validated)
            | (State::Over, _) => (Self { state: State::Over, ..self }, Action::End),
            // An event that does not belong here: look again.
            _ => self.wait(now),
        }
    }

    fn wait(self, now: Instant) -> (Self, Action) {
        let until = now + self.pause;
        let pause = (self.pause + self.pause / 4).min(LONGEST_PAUSE);
        (Self { state: State::Waiting, pause, ..self }, Action::Wait(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs events through a trial, one second each, and gives the actions.
    fn actions(events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut now = Instant::now();
        let mut trial = Trial::begin(now);
        let mut actions = Vec::new();
        for event in events {
            let (next, action) = trial.step(event, now);
            trial = next;
            if let Action::Wait(until) = action {
                now = until;
            }
            actions.push(action);
        }
        actions
    }

    #[test]
    fn a_firmware_that_proves_itself_is_validated_once() {
        let events = [Event::Time, Event::Seen { on_trial: true }, Event::Open, Event::Validated];
        assert_eq!(actions(events), [Action::Look, Action::TryGates, Action::Validate, Action::End]);
    }

    #[test]
    fn a_closed_gate_or_a_failed_validation_is_tried_again_ever_more_rarely() {
        let round = || [Event::Time, Event::Seen { on_trial: true }, Event::Open, Event::Closed];
        let waits: Vec<Instant> = actions((0..40).flat_map(|_| round()))
            .into_iter()
            .filter_map(|action| if let Action::Wait(until) = action { Some(until) } else { None })
            .collect();
        assert_eq!(waits.len(), 40);
        let pauses: Vec<Duration> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted() && pauses[0] > PAUSE);
        assert_eq!(*pauses.last().unwrap(), LONGEST_PAUSE);
    }

    #[test]
    fn what_somebody_else_has_validated_is_left_alone() {
        assert_eq!(actions([Event::Time, Event::Seen { on_trial: false }]), [Action::Look, Action::End]);
    }

    #[test]
    fn a_store_that_says_nothing_is_asked_for_a_while() {
        let last = actions((0..100).flat_map(|_| [Event::Time, Event::Unknown])).pop();
        assert_eq!(last, Some(Action::End));
        let first = actions([Event::Time, Event::Unknown, Event::Time, Event::Seen { on_trial: true }]);
        assert_eq!(first.last(), Some(&Action::TryGates));
    }
}
