//! Which sources are kept away for a while because their logins failed. Pure: addresses and a clock come in.
//!
//! Silence costs nothing, and a source from which a key has logged in is never closed: strangers may share the
//! owner's address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::admission::Source;

/// Less than this is forgiven, and nobody waits longer than that.
const ENFORCED_FROM: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(600);
/// Sources that are remembered; beyond that the one that was quiet longest is forgotten.
const MAX_SOURCES: usize = 256;

/// What a connection did before it ended without a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It made our part of it panic.
    Crash,
    /// A key or a password was refused.
    WrongCredentials,
    /// A user was named who may not log in.
    UnknownUser,
}

impl Offence {
    fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Self::Crash => 90,
            Self::WrongCredentials | Self::UnknownUser => 5,
        })
    }

    /// The word of sshd_config(5), `PerSourcePenalties`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::WrongCredentials => "authfail",
            Self::UnknownUser => "invaliduser",
        }
    }
}

/// How a newcomer is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Free,
    /// There is a penalty, but a key has logged in from there: no passwords.
    KeysOnly,
    Closed,
}

/// Whether a peer is never punished: what comes from the machine itself, the probe above all.
pub fn is_exempt(peer: IpAddr, local: IpAddr) -> bool {
    peer == local
        || peer == IpAddr::from([127, 0, 0, 1])
        || peer == IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
}

struct Record {
    until: Instant,
    enforced: bool,
    has_key: bool,
    seen: Instant,
}

/// The sources that failed of late, and those that hold a key.
#[derive(Default)]
pub struct Penalties {
    sources: HashMap<Source, Record>,
}

impl Penalties {
    pub fn standing(&self, source: Source, now: Instant) -> Standing {
        match self.sources.get(&source) {
            Some(record) if record.enforced && now < record.until => match record.has_key {
                true => Standing::KeysOnly,
                false => Standing::Closed,
            },
            _ => Standing::Free,
        }
    }

    /// Adds to the penalty of `source`. When it is enforced from now on, says for how long.
    pub fn punish(&mut self, source: Source, offence: Offence, now: Instant) -> Option<Duration> {
        let record = self.record(source, now);
        if record.until <= now {
            (record.until, record.enforced) = (now, false);
        }
        record.until = (record.until + offence.penalty()).min(now + LONGEST);
        let length = record.until.saturating_duration_since(now);
        let begins = !record.enforced && length >= ENFORCED_FROM;
        record.enforced |= begins;
        begins.then_some(length)
    }

    /// A key has logged in from there.
    pub fn trust(&mut self, source: Source, now: Instant) {
        self.record(source, now).has_key = true;
    }

    fn record(&mut self, source: Source, now: Instant) -> &mut Record {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            // Those with a key last, or strangers with many addresses would make us forget the owner.
            let least = self.sources.iter().min_by_key(|(_, record)| (record.has_key, record.seen));
            if let Some(source) = least.map(|(&source, _)| source) {
                self.sources.remove(&source);
            }
        }
        let record = self.sources.entry(source).or_insert(Record {
            until: now,
            enforced: false,
            has_key: false,
            seen: now,
        });
        record.seen = now;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn failures_add_up_until_they_are_enforced_and_pass() {
        let (now, mut penalties) = (Instant::now(), Penalties::default());
        let (bad, good) = (source("10.0.0.1"), source("10.0.0.2"));
        for _ in 0..2 {
            assert_eq!(penalties.punish(bad, Offence::WrongCredentials, now), None);
            assert_eq!(penalties.standing(bad, now), Standing::Free);
        }
        assert_eq!(penalties.punish(bad, Offence::UnknownUser, now), Some(ENFORCED_FROM));
        assert_eq!(penalties.standing(bad, now), Standing::Closed);
        assert_eq!(penalties.standing(good, now), Standing::Free);
        assert_eq!(penalties.standing(bad, now + ENFORCED_FROM), Standing::Free);
        let later = now + ENFORCED_FROM;
        assert_eq!(penalties.punish(bad, Offence::WrongCredentials, later), None, "it begins anew");
    }

    #[test]
    fn slow_failures_are_forgiven_and_nobody_waits_for_ever() {
        let (now, mut penalties) = (Instant::now(), Penalties::default());
        let source = source("2001:db8::1");
        for step in 0..100 {
            let now = now + Duration::from_secs(5) * step;
            assert_eq!(penalties.punish(source, Offence::WrongCredentials, now), None);
        }
        for _ in 0..100 {
            penalties.punish(source, Offence::Crash, now);
        }
        let neighbour = Source::of("2001:db8::2".parse().unwrap());
        assert_eq!(penalties.standing(neighbour, now + LONGEST - Duration::from_secs(1)), Standing::Closed);
        assert_eq!(penalties.standing(neighbour, now + LONGEST * 2), Standing::Free);
    }

    #[test]
    fn the_owner_is_remembered_before_strangers() {
        let (now, mut penalties) = (Instant::now(), Penalties::default());
        let owner = source("192.168.0.1");
        penalties.trust(owner, now);
        for n in 0..10_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            penalties.punish(Source::of(address), Offence::Crash, now + Duration::from_millis(n.into()));
        }
        assert!(penalties.sources.len() <= MAX_SOURCES);
        assert_eq!(penalties.punish(owner, Offence::Crash, now), Some(Duration::from_secs(90)));
        assert_eq!(penalties.standing(owner, now), Standing::KeysOnly);
    }

    #[test]
    fn the_machine_itself_is_exempt() {
        let exempt = |peer: &str, local: &str| is_exempt(peer.parse().unwrap(), local.parse().unwrap());
        assert!(exempt("127.0.0.1", "127.0.0.1") && exempt("::1", "::1") && exempt("10.0.0.5", "10.0.0.5"));
        assert!(!exempt("127.0.0.2", "127.0.0.1") && !exempt("10.0.0.6", "10.0.0.5"));
    }
}
