//! When something is said: multicast DNS (RFC 6762) for one host with one service. Pure: packets and a clock in,
//! packets out.
//!
//! It believes nobody and remembers nothing of others but conflicts, so that no packet can make it grow.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::{self, Message, Question, Record};
use super::records::{Address, Identity, Set, families};

/// The port of the protocol; who asks from another is a plain resolver (RFC 6762 section 6.7).
pub const PORT: u16 = 5353;
/// What a plain resolver gets may be kept so long.
const LEGACY_TTL: u32 = 10;
/// RFC 6762 section 8.1.
const PROBES: u8 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// After a lost tie (section 8.2), for the other to be done.
const TIE_PAUSE: Duration = Duration::from_secs(1);
/// Names in a row that others had, after which there is no hurry any more (section 8.1).
const MANY_CONFLICTS: u32 = 15;
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// No record is sent to everybody more often (section 6), save to defend a name.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// Answers to single askers, per second and interface.
const MAX_UNICAST: u32 = 30;

/// An interface that there is, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub addresses: Vec<Address>,
}

impl Interface {
    /// Whether `address` is one of its network (section 11).
    fn is_near(&self, address: IpAddr) -> bool {
        let in_network = |(ours, bits): &Address| {
            let (ours, theirs, width) = match (ours, address) {
                (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                    (ours.to_bits().into(), theirs.to_bits().into(), 32)
                }
                (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
                _ => return false,
            };
            let difference: u128 = ours ^ theirs;
            difference.checked_shr(u32::from(width - (*bits).min(width))).unwrap_or(0) == 0
        };
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local || self.addresses.iter().any(in_network)
    }
}

/// A packet to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    pub interface: u32,
    /// Nobody in particular: the groups of the address families that the interface has.
    pub to: Option<SocketAddr>,
    pub ipv4: bool,
    pub ipv6: bool,
    pub bytes: Vec<u8>,
}

/// Probing -> Announcing -> Settled
///    ^_________\______________/ (somebody else has the name)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Asking whether somebody has the name.
    Probing {
        sent: u8,
        next: Instant,
    },
    /// Telling everybody, twice.
    Announcing {
        sent: u8,
        next: Instant,
    },
    Settled,
}

/// An answer to everybody that waits for its time.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Instant,
    /// The only one who asked; he may say that he knows it already.
    asker: Option<SocketAddr>,
}

struct Link {
    interface: Interface,
    phase: Phase,
    waiting: [Option<Waiting>; Set::ALL.len()],
    /// When a set was last sent to everybody.
    last: [Option<Instant>; Set::ALL.len()],
    /// Since when single askers are counted, and how many there were.
    unicast: (Instant, u32),
}

pub struct Responder {
    identity: Identity,
    links: Vec<Link>,
    dice: u64,
}

impl Responder {
    /// `seed` makes the random waits.
    pub fn new(identity: Identity, seed: u64) -> Self {
        Self { identity, links: Vec::new(), dice: seed | 1 }
    }

    /// `NAME.local`, as it is now.
    pub fn host(&self) -> String {
        self.identity.host.to_string()
    }

    /// Takes note of the interfaces that there are now.
    pub fn set_interfaces(&mut self, interfaces: &[Interface], now: Instant) {
        self.links.retain(|link| interfaces.iter().any(|interface| interface.index == link.interface.index));
        for interface in interfaces {
            let first = now + self.random(0..250);
            match self.links.iter_mut().find(|link| link.interface.index == interface.index) {
                Some(link) if link.interface == *interface => {}
                Some(link) => {
                    link.interface = interface.clone();
                    if !matches!(link.phase, Phase::Probing { .. }) {
                        link.phase = Phase::Announcing { sent: 0, next: now };
                    }
                }
                None => self.links.push(Link {
                    interface: interface.clone(),
                    phase: Phase::Probing { sent: 0, next: first },
                    waiting: [None; Set::ALL.len()],
                    last: [None; Set::ALL.len()],
                    unicast: (now, 0),
                }),
            }
        }
    }

    /// When to call `act` next, whatever comes.
    pub fn deadline(&self) -> Option<Instant> {
        let next = |link: &Link| match link.phase {
            Phase::Probing { next, .. } | Phase::Announcing { next, .. } => Some(next),
            Phase::Settled => None,
        };
        let waiting = |link: &Link| link.waiting.iter().flatten().map(|waiting| waiting.due).min();
        self.links.iter().flat_map(|link| [next(link), waiting(link)]).flatten().min()
    }

    /// Does what is due.
    pub fn act(&mut self, now: Instant) -> Vec<Packet> {
        let mut packets = Vec::new();
        for link in &mut self.links {
            match link.phase {
                Phase::Probing { sent, next } if next <= now => {
                    if sent < PROBES {
                        packets.push(link.everybody(&probe(&self.identity, link, sent == 0)));
                        link.phase = Phase::Probing { sent: sent + 1, next: now + PROBE_INTERVAL };
                    } else {
                        link.phase = Phase::Announcing { sent: 0, next: now };
                    }
                }
                _ => {}
            }
            match link.phase {
                Phase::Announcing { sent, next } if next <= now => {
                    let message = link.tell(&self.identity, &ANNOUNCED, now);
                    packets.push(link.everybody(&message));
                    let next = now + ANNOUNCEMENT_INTERVAL;
                    let sent = sent + 1;
                    link.phase =
                        if sent < ANNOUNCEMENTS { Phase::Announcing { sent, next } } else { Phase::Settled };
                }
                _ => {}
            }
            let is_due = |waiting: Option<Waiting>| waiting.is_some_and(|waiting| waiting.due <= now);
            let due: Vec<Set> = Set::ALL
                .into_iter()
                .zip(link.waiting)
                .filter(|(_, w)| is_due(*w))
                .map(|(set, _)| set)
                .collect();
            if !due.is_empty() {
                let message = link.tell(&self.identity, &due, now);
                packets.push(link.everybody(&message));
            }
        }
        packets
    }

    /// Takes a packet that came in on an interface.
    pub fn receive(
        &mut self,
        interface: u32,
        source: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Vec<Packet> {
        let Some(at) = self.links.iter().position(|link| link.interface.index == interface) else {
            return Vec::new();
        };
        // Nobody beyond a router has any business here (section 11).
        if self.links.get(at).is_none_or(|link| !link.interface.is_near(source.ip())) {
            return Vec::new();
        }
        let Some(message) = Message::parse(packet) else { return Vec::new() };
        // What we say comes back to us, and over a bridge on another interface. Programs of this machine may ask.
        let is_ours = self.addresses().any(|(address, _)| *address == source.ip());
        if message.response {
            if !is_ours && source.port() == PORT {
                self.hear_response(at, &message, now);
            }
            return Vec::new();
        }
        if !is_ours {
            self.hear_probe(at, &message, now);
        }
        let mut packets = self.answer(at, source, &message, now);
        packets.extend(self.act(now));
        packets
    }

    /// The last words: everybody is to forget us.
    pub fn goodbye(&mut self, now: Instant) -> Vec<Packet> {
        let mut packets = Vec::new();
        for link in &mut self.links {
            if !matches!(link.phase, Phase::Probing { .. }) {
                let mut message = link.tell(&self.identity, &ANNOUNCED, now);
                message.additionals.clear();
                message.answers.iter_mut().for_each(|record| record.ttl = 0);
                packets.push(link.everybody(&message));
            }
        }
        packets
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.links.iter().flat_map(|link| &link.interface.addresses)
    }

    /// A number of milliseconds within `range` (xorshift).
    fn random(&mut self, range: std::ops::Range<u64>) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        Duration::from_millis(range.start + self.dice % (range.end - range.start))
    }

    /// Looks for another who has our name (section 9).
    fn hear_response(&mut self, at: usize, message: &Message, now: Instant) {
        let Some(link) = self.links.get(at) else { return };
        let probing = matches!(link.phase, Phase::Probing { .. });
        let all: Vec<Address> = self.addresses().copied().collect();
        let is_conflict = |record: &Record| {
            let ours =
                [Set::Service, Set::Text, Set::Ipv4, Set::Ipv6].map(|set| self.identity.records(set, &all));
            let mut ours = ours.iter().flatten().filter(|ours| ours.name == record.name);
            let kind = record.data.kind();
            let (mut has_name, mut has_kind, mut is_same) = (false, false, false);
            ours.by_ref().for_each(|ours| {
                has_name = true;
                has_kind |= ours.data.kind() == kind;
                is_same |= ours.data == record.data;
            });
            // A goodbye takes nothing from us, and which types there are is no claim.
            record.ttl > 0 && kind != message::NSEC && !is_same && if probing { has_name } else { has_kind }
        };
        if message.answers.iter().chain(&message.additionals).any(is_conflict) {
            if probing {
                self.rename(now);
            } else if let Some(link) = self.links.get_mut(at) {
                // Perhaps he is gone already: ask before we give the name away.
                link.phase = Phase::Probing { sent: 0, next: now };
            }
        }
    }

    /// Two ask at once whether they can have the name: who has the greater records gets it (section 8.2).
    fn hear_probe(&mut self, at: usize, message: &Message, now: Instant) {
        let Some(link) = self.links.get_mut(at) else { return };
        if !matches!(link.phase, Phase::Probing { .. }) {
            return;
        }
        let ours = probe(&self.identity, link, false).authorities;
        for name in [&self.identity.host, &self.identity.instance] {
            let of_name = |records: &[Record]| {
                let mut data: Vec<(u16, Vec<u8>)> = Vec::new();
                for record in records.iter().filter(|record| record.name == *name) {
                    let item = (record.data.kind(), record.data.to_bytes());
                    data.insert(data.partition_point(|other| *other < item), item);
                }
                data
            };
            let theirs = of_name(&message.authorities);
            if !theirs.is_empty() && of_name(&ours) < theirs {
                link.phase = Phase::Probing { sent: 0, next: now + TIE_PAUSE };
            }
        }
    }

    fn rename(&mut self, now: Instant) {
        self.identity.rename();
        let hurry = self.identity.conflicts() < MANY_CONFLICTS;
        let pause = if hurry { self.random(0..250) } else { CONFLICT_PAUSE };
        for link in &mut self.links {
            link.phase = Phase::Probing { sent: 0, next: now + pause };
            link.waiting = [None; Set::ALL.len()];
            link.last = [None; Set::ALL.len()];
        }
    }

    fn answer(&mut self, at: usize, source: SocketAddr, query: &Message, now: Instant) -> Vec<Packet> {
        let shared_wait = if query.truncated { self.random(400..500) } else { self.random(20..120) };
        let identity = &self.identity;
        let Some(link) = self.links.get_mut(at) else { return Vec::new() };
        if matches!(link.phase, Phase::Probing { .. }) {
            return Vec::new();
        }
        let addresses = link.interface.addresses.clone();
        let knows = |set: Set| {
            let records = identity.records(set, &addresses);
            // Half of its time is left at least (section 7.1).
            records.iter().all(|ours| {
                let same = |known: &&Record| known.name == ours.name && known.data == ours.data;
                query.answers.iter().find(same).is_some_and(|known| known.ttl >= ours.ttl / 2)
            })
        };
        if query.questions.is_empty() {
            // The rest of what he knows, whose question came before (section 7.2).
            for (set, waiting) in Set::ALL.into_iter().zip(&mut link.waiting) {
                if waiting.is_some_and(|waiting| waiting.asker == Some(source)) && knows(set) {
                    *waiting = None;
                }
            }
            return Vec::new();
        }
        let legacy = source.port() != PORT;
        let defends = !query.authorities.is_empty();
        let (mut to_him, mut to_all) = (Vec::new(), Vec::new());
        for question in &query.questions {
            for set in identity.matching(&question.name, question.kind, &addresses) {
                let is_stale = || {
                    let ttl = identity.records(set, &addresses).first().map_or(0, |record| record.ttl);
                    let last = link.last.get(set as usize).copied().flatten();
                    last.is_none_or(|last| {
                        now.duration_since(last) >= Duration::from_secs(u64::from(ttl / 4))
                    })
                };
                if knows(set) || to_him.contains(&set) || to_all.contains(&set) {
                    continue;
                }
                // Others are not to forget us because one asks for himself (section 5.4). Somebody who probes may
                // share his port with others, who would get an answer to him.
                let alone = legacy || (question.unicast && !defends && !is_stale());
                if alone { to_him.push(set) } else { to_all.push(set) }
            }
        }
        let wait = if to_all.iter().any(|set| set.is_shared()) { shared_wait } else { Duration::ZERO };
        let interval = if defends { PROBE_INTERVAL } else { RECORD_INTERVAL };
        for set in to_all {
            let last = link.last.get(set as usize).copied().flatten();
            let due = last.map_or(now + wait, |last| (last + interval).max(now + wait));
            if let Some(place) = link.waiting.get_mut(set as usize) {
                *place = Some(match *place {
                    None => Waiting { due, asker: Some(source) },
                    Some(other) => Waiting {
                        due: due.min(other.due),
                        asker: other.asker.filter(|asker| *asker == source),
                    },
                });
            }
        }
        if to_him.is_empty() || !link.may_unicast(now) {
            return Vec::new();
        }
        let mut reply = link.message(identity, &to_him);
        if legacy {
            // A plain resolver wants its question and number back, and knows no flush bit (section 6.7).
            reply.id = query.id;
            reply.questions = query.questions.iter().take(1).cloned().collect();
            reply.questions.iter_mut().for_each(|question| question.unicast = false);
            for record in reply.answers.iter_mut().chain(&mut reply.additionals) {
                record.ttl = record.ttl.min(LEGACY_TTL);
                record.flush = false;
            }
        }
        vec![Packet { to: Some(source), ..link.everybody(&reply) }]
    }
}

/// What an announcement holds.
const ANNOUNCED: [Set; 6] = [Set::Services, Set::Pointer, Set::Service, Set::Text, Set::Ipv4, Set::Ipv6];

/// `unicast` for the first one alone: where another responder shares our port, an answer to us may reach him.
fn probe(identity: &Identity, link: &Link, unicast: bool) -> Message {
    let question = |name: &message::Name| Question { name: name.clone(), kind: message::ANY, unicast };
    let proposed = [Set::Service, Set::Text, Set::Ipv4, Set::Ipv6];
    let records = proposed.into_iter().flat_map(|set| identity.records(set, &link.interface.addresses));
    Message {
        questions: vec![question(&identity.host), question(&identity.instance)],
        authorities: records.map(|record| Record { flush: false, ..record }).collect(),
        ..Message::default()
    }
}

impl Link {
    /// A response with these sets, and with what goes with them.
    fn message(&self, identity: &Identity, sets: &[Set]) -> Message {
        let addresses = &self.interface.addresses;
        let mut company: Vec<Set> = sets.iter().flat_map(|set| set.company()).copied().collect();
        company.retain(|set| !sets.contains(set));
        let records = |sets: &[Set]| sets.iter().flat_map(|set| identity.records(*set, addresses)).collect();
        let additionals = Set::ALL.into_iter().filter(|set| company.contains(set)).collect::<Vec<_>>();
        Message {
            response: true,
            answers: records(sets),
            additionals: records(&additionals),
            ..Message::default()
        }
    }

    /// The same to everybody, who then have heard all of it.
    fn tell(&mut self, identity: &Identity, sets: &[Set], now: Instant) -> Message {
        for set in sets.iter().flat_map(|set| set.company()).chain(sets) {
            let at = *set as usize;
            if let (Some(last), Some(waiting)) = (self.last.get_mut(at), self.waiting.get_mut(at)) {
                *last = Some(now);
                *waiting = None;
            }
        }
        self.message(identity, sets)
    }

    fn everybody(&self, message: &Message) -> Packet {
        let (ipv4, ipv6) = families(&self.interface.addresses);
        Packet { interface: self.interface.index, to: None, ipv4, ipv6, bytes: message.to_bytes() }
    }

    fn may_unicast(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.unicast;
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MAX_UNICAST
    }
}

#[cfg(test)]
#[path = "responder_tests.rs"]
mod tests;
