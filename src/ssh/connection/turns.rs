//! Turns of those who have not logged in and exchange keys in a group of their own choice, which costs a small board
//! seconds. Pure: who asks and a clock come in.
//!
//! One at a time, with pauses, so that a crowd of strangers never has more than half of the processor. Whose source was
//! served longest ago is next: many connections from one address do not make another one wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::admission::{ConnectionId, Source};

/// From one turn to the next, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// A turn that took longer than that has waited for its client.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often whoever is next asks in vain before the turn of a client that says nothing ends. A count and not a time: while the
/// processor works for that turn nobody asks.
const PATIENCE: u32 = 30;
/// Sources that are remembered.
const MAX_SOURCES: usize = 64;
/// How long to wait from one question to the next.
pub const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What one who waits is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Wait,
    /// It is its turn; that of another one ends unfinished.
    Go(Option<ConnectionId>),
}

/// Whose turn it is, and who waits for one.
#[derive(Default)]
pub struct Turns {
    current: Option<Turn>,
    waiting: Vec<(ConnectionId, Source)>,
    /// The latest first.
    served: VecDeque<Source>,
    not_before: Option<Instant>,
}

struct Turn {
    id: ConnectionId,
    since: Instant,
    asked: u32,
}

impl Turns {
    /// Asks for a turn, again and again until there is one or `leave`.
    pub fn ask(&mut self, id: ConnectionId, source: Source, now: Instant) -> Answer {
        if !self.waiting.iter().any(|(waits, _)| *waits == id) {
            self.waiting.push((id, source));
        }
        let last_served = |source| {
            self.served.iter().rev().position(|served| *served == source).map_or(0, |place| place + 1)
        };
        let next = self.waiting.iter().min_by_key(|(_, source)| last_served(*source));
        if next.is_none_or(|(next, _)| *next != id) || self.not_before.is_some_and(|at| now < at) {
            return Answer::Wait;
        }
        if let Some(turn) = &mut self.current {
            turn.asked += 1;
            if turn.asked < PATIENCE {
                return Answer::Wait;
            }
        }
        self.waiting.retain(|(waits, _)| *waits != id);
        self.served.retain(|served| *served != source);
        self.served.push_front(source);
        self.served.truncate(MAX_SOURCES);
        self.not_before = Some(now + PAUSE);
        let ended = self.current.replace(Turn { id, since: now, asked: 0 });
        Answer::Go(ended.map(|turn| turn.id))
    }

    /// Its turn is over, or it waits no longer. The others get as much time as it took.
    pub fn leave(&mut self, id: ConnectionId, now: Instant) {
        self.waiting.retain(|(waits, _)| *waits != id);
        if let Some(turn) = self.current.take_if(|turn| turn.id == id) {
            let took = now.saturating_duration_since(turn.since).min(LONGEST_PAUSE);
            self.not_before = self.not_before.max(Some(now + took));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::of([10, 0, 0, last].into())
    }

    #[test]
    fn turns_come_one_by_one_with_pauses_as_long_as_they_took() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert_eq!(turns.ask(1, source(1), now), Answer::Go(None));
        assert_eq!(turns.ask(2, source(2), now + PAUSE * 2), Answer::Wait);
        turns.leave(1, now + PAUSE * 3);
        assert_eq!(turns.ask(2, source(2), now + PAUSE * 5), Answer::Wait);
        assert_eq!(turns.ask(2, source(2), now + PAUSE * 6), Answer::Go(None));
        turns.leave(2, now + PAUSE * 6);
        assert_eq!(turns.ask(3, source(3), now + PAUSE * 6), Answer::Wait);
        assert_eq!(turns.ask(3, source(3), now + PAUSE * 7), Answer::Go(None));
    }

    #[test]
    fn a_crowd_from_one_address_does_not_make_another_wait() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        assert_eq!(turns.ask(1, source(1), now), Answer::Go(None));
        for id in 2..60 {
            assert_eq!(turns.ask(id, source(1), now), Answer::Wait);
        }
        assert_eq!(turns.ask(60, source(2), now), Answer::Wait);
        turns.leave(1, now);
        now += PAUSE;
        assert_eq!(turns.ask(2, source(1), now), Answer::Wait);
        assert_eq!(turns.ask(60, source(2), now), Answer::Go(None));
        turns.leave(60, now);
        assert_eq!(turns.ask(2, source(1), now + PAUSE), Answer::Go(None));
    }

    #[test]
    fn who_says_nothing_loses_its_turn_and_who_is_gone_waits_for_none() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert_eq!(turns.ask(1, source(1), now), Answer::Go(None));
        assert_eq!(turns.ask(2, source(2), now), Answer::Wait);
        turns.leave(2, now);
        let later = now + PAUSE;
        for _ in 1..PATIENCE {
            assert_eq!(turns.ask(3, source(3), later), Answer::Wait);
        }
        assert_eq!(turns.ask(3, source(3), later), Answer::Go(Some(1)));
        // That the loser leaves changes nothing.
        turns.leave(1, later);
        assert_eq!(turns.ask(4, source(4), later + PAUSE), Answer::Wait);
    }
}
