//! DNS messages (RFC 1035), as far as multicast DNS has a use for them. Pure: bytes in, values out, and back.
//!
//! Everything that a packet says of itself has a limit here; what breaks one makes the whole packet unreadable.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest packet that there may be (RFC 6762 section 17).
pub const MAX_PACKET: usize = 9000;
/// Questions and records of one packet; the largest networks put a few dozen into one.
const MAX_ENTRIES: usize = 256;
/// A name with its lengths and its end (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
pub const MAX_LABEL: usize = 63;
/// Compression pointers on the way through one name; writers need one.
const MAX_JUMPS: usize = 16;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const NSEC: u16 = 47;
pub const ANY: u16 = 255;

const CLASS_IN: u16 = 1;
/// In a question "answer to me alone", in a record "forget what you knew" (RFC 6762 sections 5.4 and 10.2).
const TOP_BIT: u16 = 0x8000;
const RESPONSE: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
/// Operation and result must be 0 (RFC 6762 sections 18.3 and 18.11).
const OPCODE_AND_RCODE: u16 = 0x780f;

/// A name, in the form that it has in a packet without compression: lengths, labels, and a 0.
#[derive(Clone, Debug, Eq)]
pub struct Name(Vec<u8>);

impl PartialEq for Name {
    // The lengths are below the letters, so that they compare as they are.
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Name {
    /// What is too long in a label is cut off.
    pub fn new(labels: &[&str]) -> Self {
        let mut wire = Vec::new();
        for label in labels {
            let label = label.as_bytes();
            let label = label.get(..MAX_LABEL).unwrap_or(label);
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        Self(wire)
    }
}

impl fmt::Display for Name {
    /// With dots between the labels. What could confuse a terminal or a command line becomes `?`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut dot = "";
        while let Some((&length, after)) = rest.split_first() {
            let Some((label, after)) = after.split_at_checked(usize::from(length)) else { break };
            if !label.is_empty() {
                f.write_str(dot)?;
                dot = ".";
            }
            for &byte in label {
                let plain = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                write!(f, "{}", if plain { char::from(byte) } else { '?' })?;
            }
            rest = after;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: Name,
    pub kind: u16,
    /// The answer may go to the asker alone.
    pub unicast: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(Name),
    /// Priority and weight are read and written as 0.
    Srv {
        port: u16,
        target: Name,
    },
    /// Its strings, each with its length in front.
    Txt(Vec<u8>),
    /// Of which types there are records with this name, all of them below 256.
    Nsec(Name, Vec<u16>),
    /// The type and the bytes of what we know nothing about.
    Other(u16, Vec<u8>),
}

impl Data {
    pub fn kind(&self) -> u16 {
        match self {
            Self::A(_) => A,
            Self::Aaaa(_) => AAAA,
            Self::Ptr(_) => PTR,
            Self::Srv { .. } => SRV,
            Self::Txt(_) => TXT,
            Self::Nsec(..) => NSEC,
            Self::Other(kind, _) => *kind,
        }
    }

    /// The bytes without compression, by which RFC 6762 section 8.2 compares.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::A(address) => address.octets().to_vec(),
            Self::Aaaa(address) => address.octets().to_vec(),
            Self::Ptr(name) => name.0.clone(),
            Self::Srv { port, target } => [&[0; 4], &port.to_be_bytes()[..], &target.0].concat(),
            Self::Txt(bytes) | Self::Other(_, bytes) => bytes.clone(),
            Self::Nsec(name, kinds) => [name.0.as_slice(), &bitmap(kinds)].concat(),
        }
    }
}

/// RFC 4034 section 4.1.2, the first block alone.
fn bitmap(kinds: &[u16]) -> Vec<u8> {
    let bytes = kinds.iter().max().map_or(0, |last| usize::from(*last) / 8 + 1).min(32);
    let mut map = vec![0; bytes];
    for kind in kinds {
        if let Some(byte) = map.get_mut(usize::from(*kind) / 8) {
            *byte |= 0x80 >> (kind % 8);
        }
    }
    [&[0, bytes as u8], map.as_slice()].concat()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: Name,
    /// There are no others with this name and type than those in this packet.
    pub flush: bool,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub id: u16,
    pub response: bool,
    /// More known answers follow in another packet.
    pub truncated: bool,
    pub questions: Vec<Question>,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl Message {
    /// `None` for what is no message, or none that a responder has to do with. Classes besides IN are left out.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() > MAX_PACKET {
            return None;
        }
        let mut reader = Reader { packet, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?].map(usize::from);
        if flags & OPCODE_AND_RCODE != 0 || counts.iter().sum::<usize>() > MAX_ENTRIES {
            return None;
        }
        let [asked, answered, authority, additional] = counts;
        let mut questions = Vec::new();
        for _ in 0..asked {
            let (name, kind, class) = (reader.name()?, reader.u16()?, reader.u16()?);
            if matches!(class & !TOP_BIT, CLASS_IN | ANY) {
                questions.push(Question { name, kind, unicast: class & TOP_BIT != 0 });
            }
        }
        Some(Self {
            id,
            response: flags & RESPONSE != 0,
            truncated: flags & TRUNCATED != 0,
            questions,
            answers: reader.records(answered)?,
            authorities: reader.records(authority)?,
            additionals: reader.records(additional)?,
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u16(self.id);
        let truncated = if self.truncated { TRUNCATED } else { 0 };
        writer.u16(truncated | if self.response { RESPONSE | AUTHORITATIVE } else { 0 });
        let sections = [&self.answers, &self.authorities, &self.additionals];
        for count in [self.questions.len()].into_iter().chain(sections.map(Vec::len)) {
            writer.u16(count as u16);
        }
        for question in &self.questions {
            writer.name(&question.name);
            writer.u16(question.kind);
            writer.u16(CLASS_IN | if question.unicast { TOP_BIT } else { 0 });
        }
        sections.into_iter().flatten().for_each(|record| writer.record(record));
        writer.bytes
    }
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.packet.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        let (mut at, mut jumps, mut after) = (self.at, 0, None);
        loop {
            let length = *self.packet.get(at)?;
            match length {
                0 => {
                    wire.push(0);
                    self.at = after.unwrap_or(at + 1);
                    return Some(Name(wire));
                }
                1..=63 => {
                    let label = self.packet.get(at..=at + usize::from(length))?;
                    if wire.len() + label.len() >= MAX_NAME {
                        return None;
                    }
                    wire.extend_from_slice(label);
                    at += label.len();
                }
                0xc0.. => {
                    let low = *self.packet.get(at + 1)?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    jumps += 1;
                    // Forward or to itself would go round in circles.
                    if target >= at || jumps > MAX_JUMPS {
                        return None;
                    }
                    after.get_or_insert(at + 2);
                    at = target;
                }
                _ => return None,
            }
        }
    }

    fn records(&mut self, count: usize) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..count {
            let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
            let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
            let length = usize::from(self.u16()?);
            let start = self.at;
            let bytes = self.take(length)?;
            if class & !TOP_BIT == CLASS_IN {
                // Names in the data may point back into the packet, and end where the data ends.
                let mut inside = Reader { packet: self.packet.get(..self.at)?, at: start };
                let data = inside.data(kind, bytes)?;
                records.push(Record { name, flush: class & TOP_BIT != 0, ttl, data });
            }
        }
        Some(records)
    }

    fn data(&mut self, kind: u16, bytes: &[u8]) -> Option<Data> {
        let data = match kind {
            A => return Some(Data::A(<[u8; 4]>::try_from(bytes).ok()?.into())),
            AAAA => return Some(Data::Aaaa(<[u8; 16]>::try_from(bytes).ok()?.into())),
            TXT => return Some(Data::Txt(bytes.to_vec())),
            PTR => Data::Ptr(self.name()?),
            SRV => {
                self.take(4)?;
                Data::Srv { port: self.u16()?, target: self.name()? }
            }
            _ => return Some(Data::Other(kind, bytes.to_vec())),
        };
        (self.at == self.packet.len()).then_some(data)
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Ends of names that were written, and where.
    known: Vec<(Vec<u8>, u16)>,
}

impl Writer {
    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn name(&mut self, name: &Name) {
        let mut rest = name.0.as_slice();
        while let Some((&length, _)) = rest.split_first().filter(|(length, _)| **length > 0) {
            if let Some((_, at)) = self.known.iter().find(|(end, _)| end == rest) {
                let pointer = 0xc000 | at;
                return self.u16(pointer);
            }
            if let Some(at) = u16::try_from(self.bytes.len()).ok().filter(|at| *at < 0x4000) {
                self.known.push((rest.to_vec(), at));
            }
            let (label, after) = rest.split_at_checked(usize::from(length) + 1).unwrap_or((rest, &[]));
            self.bytes.extend_from_slice(label);
            rest = after;
        }
        self.bytes.push(0);
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name);
        self.u16(record.data.kind());
        self.u16(CLASS_IN | if record.flush { TOP_BIT } else { 0 });
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        let at = self.bytes.len();
        self.u16(0);
        match &record.data {
            Data::Ptr(name) => self.name(name),
            // Old resolvers cannot read a pointer in any other data.
            data => self.bytes.extend_from_slice(&data.to_bytes()),
        }
        let length = (self.bytes.len() - at - 2) as u16;
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}
