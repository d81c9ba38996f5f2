//! What a device says of itself: its names, and the records with them. Pure.

use std::net::IpAddr;

use super::message::{self, Data, MAX_LABEL, Name, Record};

/// Records that stand for an address are kept shorter by others than the rest (RFC 6762 section 10).
const HOST_TTL: u32 = 120;
const OTHER_TTL: u32 = 4500;
/// Of a value in the TXT record; with its key and `=` it must stay below 256 bytes.
const MAX_VALUE: usize = 100;

/// An address and how many of its bits are the network's.
pub type Address = (IpAddr, u8);

/// All records with one name and type. They are sent, known and conflicting together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// `_services._dns-sd._udp.local`: that there is such a service at all.
    Services,
    /// `_ssh._tcp.local`: that it is here.
    Pointer,
    /// `NAME._ssh._tcp.local`: host and port.
    Service,
    /// What else is to be known of it.
    Text,
    /// `NAME.local`.
    Ipv4,
    Ipv6,
    /// That `NAME.local` has no other records.
    HostEnd,
    ServiceEnd,
}

impl Set {
    pub const ALL: [Self; 8] = [
        Self::Services,
        Self::Pointer,
        Self::Service,
        Self::Text,
        Self::Ipv4,
        Self::Ipv6,
        Self::HostEnd,
        Self::ServiceEnd,
    ];

    /// Others have records with this name and type too.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Services | Self::Pointer)
    }

    fn kind(self) -> u16 {
        match self {
            Self::Services | Self::Pointer => message::PTR,
            Self::Service => message::SRV,
            Self::Text => message::TXT,
            Self::Ipv4 => message::A,
            Self::Ipv6 => message::AAAA,
            Self::HostEnd | Self::ServiceEnd => message::NSEC,
        }
    }

    /// What is sent along without having been asked for.
    pub fn company(self) -> &'static [Self] {
        match self {
            Self::Pointer => &[Self::Service, Self::Text, Self::Ipv4, Self::Ipv6, Self::HostEnd],
            Self::Service | Self::Ipv4 | Self::Ipv6 => &[Self::Ipv4, Self::Ipv6, Self::HostEnd],
            _ => &[],
        }
    }
}

/// The names of this device as they are now.
pub struct Identity {
    label: String,
    /// 1 is the name without a number; each one that somebody else has makes it one more.
    number: u32,
    port: u16,
    text: Vec<u8>,
    pub host: Name,
    pub instance: Name,
    service: Name,
    services: Name,
}

impl Identity {
    /// `label` is one of `label()`; `facts` become the TXT record.
    pub fn new(label: &str, port: u16, facts: &[(&str, &str)]) -> Self {
        let mut text = Vec::new();
        for (key, value) in facts {
            let end = (0..=MAX_VALUE).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
            let string = format!("{key}={}", value.get(..end).unwrap_or(value));
            text.push(string.len() as u8);
            text.extend_from_slice(string.as_bytes());
        }
        let mut identity = Self {
            label: label.to_owned(),
            number: 1,
            port,
            text,
            host: Name::new(&[]),
            instance: Name::new(&[]),
            service: Name::new(&["_ssh", "_tcp", "local"]),
            services: Name::new(&["_services", "_dns-sd", "_udp", "local"]),
        };
        identity.make_names();
        identity
    }

    /// Somebody else has this name: takes another.
    pub fn rename(&mut self) {
        self.number = self.number.saturating_add(1);
        self.make_names();
    }

    fn make_names(&mut self) {
        let end = if self.number > 1 { format!("-{}", self.number) } else { String::new() };
        let start = self.label.get(..MAX_LABEL - end.len()).unwrap_or(&self.label);
        let label = format!("{start}{end}");
        self.host = Name::new(&[&label, "local"]);
        self.instance = Name::new(&[&label, "_ssh", "_tcp", "local"]);
    }

    /// How many names others had.
    pub fn conflicts(&self) -> u32 {
        self.number - 1
    }

    fn name(&self, set: Set) -> &Name {
        match set {
            Set::Services => &self.services,
            Set::Pointer => &self.service,
            Set::Service | Set::Text | Set::ServiceEnd => &self.instance,
            Set::Ipv4 | Set::Ipv6 | Set::HostEnd => &self.host,
        }
    }

    /// The records of a set where those are the addresses; none where there are no such addresses.
    pub fn records(&self, set: Set, addresses: &[Address]) -> Vec<Record> {
        let (has_ipv4, has_ipv6) = families(addresses);
        let data = match set {
            Set::Services => vec![Data::Ptr(self.service.clone())],
            Set::Pointer => vec![Data::Ptr(self.instance.clone())],
            Set::Service => vec![Data::Srv { port: self.port, target: self.host.clone() }],
            Set::Text => vec![Data::Txt(self.text.clone())],
            Set::Ipv4 | Set::Ipv6 => addresses
                .iter()
                .filter(|(address, _)| address.is_ipv4() == (set == Set::Ipv4))
                .map(|(address, _)| match address {
                    IpAddr::V4(address) => Data::A(*address),
                    IpAddr::V6(address) => Data::Aaaa(*address),
                })
                .collect(),
            Set::HostEnd => {
                let kinds = [(has_ipv4, message::A), (has_ipv6, message::AAAA)];
                let kinds = kinds.into_iter().filter_map(|(is_there, kind)| is_there.then_some(kind));
                vec![Data::Nsec(self.host.clone(), kinds.collect())]
            }
            Set::ServiceEnd => vec![Data::Nsec(self.instance.clone(), vec![message::TXT, message::SRV])],
        };
        let host = matches!(set, Set::Service | Set::Ipv4 | Set::Ipv6 | Set::HostEnd);
        let ttl = if host { HOST_TTL } else { OTHER_TTL };
        let record = |data| Record { name: self.name(set).clone(), flush: !set.is_shared(), ttl, data };
        data.into_iter().map(record).collect()
    }

    /// The sets that answer a question.
    pub fn matching(&self, name: &Name, kind: u16, addresses: &[Address]) -> Vec<Set> {
        let fits = |set: &Set| {
            (kind == message::ANY || kind == set.kind())
                && set.kind() != message::NSEC
                && name == self.name(*set)
                && !self.records(*set, addresses).is_empty()
        };
        let mut sets: Vec<Set> = Set::ALL.into_iter().filter(fits).collect();
        if sets.is_empty() {
            // That there is nothing is an answer where nobody else can have one.
            sets.extend((*name == self.host).then_some(Set::HostEnd));
            sets.extend((*name == self.instance).then_some(Set::ServiceEnd));
        }
        sets
    }
}

/// Whether there are IPv4 and IPv6 addresses.
pub fn families(addresses: &[Address]) -> (bool, bool) {
    let has = |ipv4| addresses.iter().any(|(address, _)| address.is_ipv4() == ipv4);
    (has(true), has(false))
}

/// `template` with its %s and %h as a label that a host may have (RFC 1123): letters, digits and dashes. Of a serial
/// number that is too long the end is taken, which is where boards differ.
pub fn label(template: &str, serial: Option<&str>, host: &str) -> String {
    let plain = |text: &str| {
        let dashed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let words: String = text.chars().map(dashed).collect();
        words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    };
    let host = plain(host.split('.').next().unwrap_or_default());
    let host = if host.is_empty() || host == "localhost" { "myelin".to_owned() } else { host };
    let Some(serial) = serial.map(plain).filter(|serial| !serial.is_empty()) else {
        // Half a name would be the same on all boards.
        let template = if template.contains("%s") { "%h" } else { template };
        let label = plain(&template.replace("%h", &host));
        return label.get(..MAX_LABEL).unwrap_or(&label).trim_end_matches('-').to_owned();
    };
    let around = template.replace("%s", "").replace("%h", &host).len();
    let times = template.matches("%s").count().max(1);
    let room = MAX_LABEL.saturating_sub(around) / times;
    let serial = serial.get(serial.len().saturating_sub(room)..).unwrap_or_default();
    let label = plain(&template.replace("%s", serial).replace("%h", &host));
    label.get(..MAX_LABEL).unwrap_or(&label).trim_end_matches('-').to_owned()
}
