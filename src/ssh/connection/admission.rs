//! Who may try to log in. Pure: addresses, progress and a clock come in, decisions go out.
//!
//! A newcomer is never refused for lack of a place: one that is already there gives way. OpenSSH and dropbear
//! refuse the newcomer instead, and a thousand silent sockets lock the owner out of both.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What all connections that have not logged in may hold in memory together.
const MEMORY: usize = 8 << 20;
/// What one of them may cost before its key exchange, and after it: an encrypted packet of 256 KiB can be
/// announced then, and russh makes room for it at once.
const COST_PLAIN: usize = 36 << 10;
const COST_ENCRYPTED: usize = 291 << 10;
/// A connection so young that makes progress is the last to be closed.
const YOUNG: Duration = Duration::from_secs(2);
/// Greetings per second and source, and how many may come at once.
const RATE: f64 = 10.0;
const BURST: f64 = 10.0;
/// Sources whose rate is remembered; beyond that the one that was quiet longest is forgotten.
const MAX_SOURCES: usize = 256;

/// Names a connection for as long as the worker lives.
pub type ConnectionId = u64;

/// How far a connection has come. The order says who gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    Silent,
    Identified,
    KeyExchangeBegun,
    KeyExchangeDone,
    Authenticating,
}

/// A peer's network: one IPv4 address, or an IPv6 /64, which is what one customer or one site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    pub fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

struct Place {
    source: Source,
    since: Instant,
    progress: Progress,
    greeted: bool,
}

struct Bucket {
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.updated).as_secs_f64();
        self.tokens = (self.tokens + seconds * RATE).min(BURST);
        self.updated = now;
    }
}

/// The places of connections that have not logged in, and the rate at which sources get our greeting.
pub struct Admission {
    max_places: usize,
    places: HashMap<ConnectionId, Place>,
    buckets: HashMap<Source, Bucket>,
}

impl Admission {
    pub fn new(max_places: usize) -> Self {
        Self { max_places, places: HashMap::new(), buckets: HashMap::new() }
    }

    /// Descriptors are short: from now on at most `places` connections have one, and those with the least
    /// progress make room at once, one of them in any case, but not `newcomer`. They are returned.
    pub fn shrink(
        &mut self,
        places: usize,
        newcomer: Option<ConnectionId>,
        now: Instant,
    ) -> Vec<ConnectionId> {
        self.max_places = self.max_places.min(places.max(1));
        let mut victims = self.make_room(newcomer, now);
        if victims.is_empty()
            && let Some(victim) = self.victim(newcomer, now)
        {
            self.places.remove(&victim);
            victims.push(victim);
        }
        victims
    }

    /// Gives `id` a place. Who has to be closed for that is returned.
    pub fn enter(&mut self, id: ConnectionId, address: IpAddr, now: Instant) -> Vec<ConnectionId> {
        let place =
            Place { source: Source::of(address), since: now, progress: Progress::Silent, greeted: false };
        self.places.insert(id, place);
        self.make_room(Some(id), now)
    }

    /// Notes how far `id` has come. Who has to be closed for the memory that this may cost is returned.
    pub fn advance(&mut self, id: ConnectionId, progress: Progress, now: Instant) -> Vec<ConnectionId> {
        match self.places.get_mut(&id) {
            Some(place) if place.progress < progress => place.progress = progress,
            _ => return Vec::new(),
        }
        self.make_room(Some(id), now)
    }

    /// `id` has ended, or has logged in and so gives its token back.
    pub fn leave(&mut self, id: ConnectionId, logged_in: bool) {
        let Some(place) = self.places.remove(&id) else { return };
        if logged_in
            && place.greeted
            && let Some(bucket) = self.buckets.get_mut(&place.source)
        {
            bucket.tokens = (bucket.tokens + 1.0).min(BURST);
        }
    }

    /// Which connections may have our identification now. Those that have sent theirs go first, among those
    /// the newest: the owner's client is among them, a flood of silent sockets is not.
    pub fn greet(&mut self, now: Instant) -> Vec<ConnectionId> {
        let mut waiting: Vec<_> = self.places.iter().filter(|(_, place)| !place.greeted).collect();
        waiting.sort_unstable_by_key(|(_, place)| {
            std::cmp::Reverse((place.progress >= Progress::Identified, place.since))
        });
        let waiting: Vec<_> = waiting.into_iter().map(|(&id, place)| (id, place.source)).collect();
        let mut greeted = Vec::new();
        for (id, source) in waiting {
            if self.take_token(source, now)
                && let Some(place) = self.places.get_mut(&id)
            {
                place.greeted = true;
                greeted.push(id);
            }
        }
        greeted
    }

    /// When to call `greet` again, if somebody waits.
    pub fn next_greeting(&self, now: Instant) -> Option<Instant> {
        let waits = self.places.values().any(|place| !place.greeted);
        waits.then(|| now + Duration::from_secs_f64(1.0 / RATE))
    }

    /// Connections that hold a place.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    fn take_token(&mut self, source: Source, now: Instant) -> bool {
        if !self.buckets.contains_key(&source) {
            self.forget_the_quietest();
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { tokens: BURST, updated: now });
        bucket.refill(now);
        let has = bucket.tokens >= 1.0;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }

    fn forget_the_quietest(&mut self) {
        if self.buckets.len() >= MAX_SOURCES
            && let Some(quietest) =
                self.buckets.iter().min_by_key(|(_, b)| b.updated).map(|(&source, _)| source)
        {
            self.buckets.remove(&quietest);
        }
    }

    fn make_room(&mut self, newcomer: Option<ConnectionId>, now: Instant) -> Vec<ConnectionId> {
        let mut victims = Vec::new();
        while self.places.len() > self.max_places || self.memory() > MEMORY {
            let Some(victim) = self.victim(newcomer, now) else { break };
            self.places.remove(&victim);
            victims.push(victim);
        }
        victims
    }

    fn memory(&self) -> usize {
        let cost = |place: &Place| {
            if place.progress >= Progress::KeyExchangeDone { COST_ENCRYPTED } else { COST_PLAIN }
        };
        self.places.values().map(cost).sum()
    }

    /// The one with the least progress, among equals one from the source with the most places, among equals
    /// the oldest.
    fn victim(&self, newcomer: Option<ConnectionId>, now: Instant) -> Option<ConnectionId> {
        let mut crowd: HashMap<Source, usize> = HashMap::new();
        for place in self.places.values() {
            *crowd.entry(place.source).or_default() += 1;
        }
        let rank = |place: &Place| {
            let young = now.saturating_duration_since(place.since) < YOUNG;
            let spared = young && place.progress > Progress::Silent;
            let crowd = crowd.get(&place.source).copied().unwrap_or_default();
            (spared, place.progress, std::cmp::Reverse(crowd), place.since)
        };
        let others = self.places.iter().filter(|&(&id, _)| Some(id) != newcomer);
        others.min_by_key(|(_, place)| rank(place)).map(|(&id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[test]
    fn the_newcomer_gets_in_and_the_oldest_silent_one_goes() {
        let now = Instant::now();
        let mut admission = Admission::new(4);
        for id in 0..4 {
            assert!(admission.enter(id, address(1), now + Duration::from_millis(id)).is_empty());
        }
        admission.advance(0, Progress::Identified, now);
        assert_eq!(admission.enter(9, address(1), now + YOUNG * 2), [1]);
        assert_eq!(admission.enter(10, address(1), now + YOUNG * 2), [2]);
        assert_eq!(admission.places(), 4);
    }

    #[test]
    fn the_crowded_source_gives_way_first() {
        let now = Instant::now();
        let mut admission = Admission::new(3);
        admission.enter(0, address(1), now);
        admission.enter(1, address(2), now);
        admission.enter(2, address(2), now + Duration::from_millis(1));
        assert_eq!(admission.enter(3, address(3), now + Duration::from_secs(1)), [1]);
    }

    #[test]
    fn the_young_that_make_progress_are_closed_last() {
        let now = Instant::now();
        let mut admission = Admission::new(2);
        admission.enter(0, address(1), now);
        admission.advance(0, Progress::Authenticating, now);
        admission.enter(1, address(1), now + YOUNG);
        admission.advance(1, Progress::Identified, now + YOUNG);
        assert_eq!(admission.enter(2, address(1), now + YOUNG), [0]);
    }

    #[test]
    fn memory_bounds_the_places_after_the_key_exchange() {
        let now = Instant::now();
        let mut admission = Admission::new(64);
        let mut closed = 0;
        for id in 0..64 {
            closed += admission.enter(id, address(1), now).len();
            closed += admission.advance(id, Progress::KeyExchangeDone, now).len();
        }
        assert!(closed > 30 && admission.places() * COST_ENCRYPTED <= MEMORY + COST_ENCRYPTED);
    }

    #[test]
    fn silent_sockets_do_not_hold_up_one_that_speaks() {
        let now = Instant::now();
        let mut admission = Admission::new(64);
        for id in 0..60 {
            admission.enter(id, address(1), now);
        }
        assert_eq!(admission.greet(now).len(), 10);
        admission.enter(99, address(1), now);
        admission.advance(99, Progress::Identified, now);
        assert!(admission.greet(now).is_empty());
        assert_eq!(admission.greet(now + Duration::from_millis(101)), [99]);
        assert!(admission.next_greeting(now).is_some());
    }

    #[test]
    fn a_shortage_of_descriptors_is_paid_by_the_idlest() {
        let now = Instant::now();
        let mut admission = Admission::new(64);
        for id in 0..20 {
            admission.enter(id, address(1), now + Duration::from_millis(id));
        }
        admission.advance(3, Progress::Identified, now);
        let closed = admission.shrink(16, None, now);
        assert_eq!(closed, [0, 1, 2, 4]);
        assert_eq!(admission.shrink(16, None, now), [5], "one gives way however few there are");
        assert_eq!(admission.enter(99, address(1), now).len(), 0);
        assert!(Admission::new(4).shrink(1, Some(99), now).is_empty(), "the newcomer stays");
        assert_eq!(admission.enter(100, address(1), now).len(), 1, "the places stay few");
    }

    #[test]
    fn a_login_gives_its_token_back() {
        let now = Instant::now();
        let mut admission = Admission::new(64);
        for id in 0..100 {
            admission.enter(id, address(1), now);
            assert_eq!(admission.greet(now), [id]);
            admission.leave(id, true);
        }
    }

    #[test]
    fn an_ipv6_site_is_one_source() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        assert_eq!(Source::of(a), Source::of(b));
    }
}
