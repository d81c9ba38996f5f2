//! The asking side: which devices of ours are there? One question to everybody, from a port of its own, so that the
//! answers come to us alone (RFC 6762 section 5.1).

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::message::{self, Data, Message, Name, Question, Record};
use super::responder::{Interface, PORT};
use super::sockets::{self, Received, Sockets};

/// More devices than this are not listed, and more packets are not read.
const MAX_DEVICES: usize = 256;
const MAX_PACKETS: usize = 4096;
/// The question is repeated, for a packet may be lost.
const AGAIN: Duration = Duration::from_millis(300);

/// A device that announces itself. What it says of itself is shown and not trusted: its host key is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// `NAME.local`.
    pub name: String,
    /// Where it answered from, with a zone where there must be one.
    pub address: String,
    pub port: u16,
    /// Of Myelin.
    pub myelin: String,
    pub product: Option<String>,
    pub version: Option<String>,
    pub platform: Option<String>,
    pub serial: Option<String>,
    #[serde(skip)]
    interface: u32,
    #[serde(skip)]
    is_ipv4: bool,
}

/// Asks, and listens for so long.
pub fn browse(time: Duration) -> io::Result<Vec<Device>> {
    let interfaces = sockets::interfaces();
    let mut found = Vec::new();
    if interfaces.is_empty() {
        return Ok(found);
    }
    let sockets = Sockets::asking()?;
    let question = question(getrandom::u32().unwrap_or_default() as u16);
    let (mut packets, end) = (0, Instant::now() + time);
    let mut ask_at = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end || packets >= MAX_PACKETS {
            break;
        }
        if now >= ask_at {
            ask_at = now + AGAIN;
            for interface in &interfaces {
                sockets.send_to_groups(interface.index, (true, true), &question.to_bytes());
            }
        }
        let mut fds: Vec<PollFd> = sockets.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let left = end.min(ask_at).saturating_duration_since(now) + Duration::from_millis(1);
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(received) = sockets.receive().filter(|_| packets < MAX_PACKETS) {
            packets += 1;
            if let Some(device) = device(&received, question.id, &interfaces) {
                keep(&mut found, device);
            }
        }
    }
    Ok(found)
}

fn service() -> Name {
    Name::new(&["_ssh", "_tcp", "local"])
}

fn question(id: u16) -> Message {
    let question = Question { name: service(), kind: message::PTR, unicast: true };
    Message { id, questions: vec![question], ..Message::default() }
}

/// The device that a packet tells of, if it is one of ours.
fn device(received: &Received, id: u16, interfaces: &[Interface]) -> Option<Device> {
    let message = Message::parse(&received.bytes).filter(|message| message.response && message.id == id)?;
    if received.source.port() != PORT {
        return None;
    }
    let interface = interfaces.iter().find(|interface| interface.index == received.interface)?;
    let records: Vec<&Record> = message.answers.iter().chain(&message.additionals).collect();
    let instance = records.iter().find_map(|record| match &record.data {
        Data::Ptr(name) if record.name == service() => Some(name),
        _ => None,
    })?;
    let of_instance = || records.iter().filter(|record| record.name == *instance);
    let (port, host) = of_instance().find_map(|record| match &record.data {
        Data::Srv { port, target } => Some((*port, target.to_string())),
        _ => None,
    })?;
    let text = of_instance().find_map(|record| match &record.data {
        Data::Txt(text) => Some(text.as_slice()),
        _ => None,
    })?;
    // It becomes a word on a command line.
    let label = host.strip_suffix(".local")?;
    if port == 0 || label.is_empty() || label.starts_with('-') || label.contains(['?', '.']) {
        return None;
    }
    let fact = |key: &str| fact(text, key);
    let address = received.source.ip();
    let address_text = match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => format!("{address}%{}", interface.name),
        address => address.to_string(),
    };
    Some(Device {
        myelin: fact("myelin")?,
        product: fact("product"),
        version: fact("version"),
        platform: fact("platform"),
        serial: fact("serial"),
        name: host.to_ascii_lowercase(),
        address: address_text,
        port,
        interface: interface.index,
        is_ipv4: address.is_ipv4(),
    })
}

/// A value of a TXT record (RFC 6763 section 6), fit for a terminal.
fn fact(mut text: &[u8], key: &str) -> Option<String> {
    while let Some((&length, rest)) = text.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(length))?;
        text = rest;
        if let Some(value) = string.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
            let value = String::from_utf8_lossy(value);
            return Some(value.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
        }
    }
    None
}

/// Adds a device, in the order of names. It answers on each of its addresses: IPv4 is kept where there is any. Two without a serial number may have
/// one name, on two networks.
fn keep(found: &mut Vec<Device>, device: Device) {
    let is_full = found.len() >= MAX_DEVICES;
    let same = |other: &&mut Device| {
        let same_place = device.serial.is_some() || other.interface == device.interface;
        other.name == device.name && other.serial == device.serial && same_place
    };
    match found.iter_mut().find(same) {
        Some(other) if device.is_ipv4 && !other.is_ipv4 => *other = device,
        Some(_) => {}
        None if is_full => {}
        None => found.insert(found.partition_point(|other| other.name < device.name), device),
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Identity;
    use super::super::responder::Responder;
    use super::*;

    /// What a device with these facts answers.
    fn answer(label: &str, from: &str, facts: &[(&str, &str)]) -> Received {
        let addresses = vec![("10.0.0.5".parse().unwrap(), 24), ("fe80::5".parse().unwrap(), 64)];
        let interface = Interface { index: 2, name: "eth0".into(), addresses };
        let mut responder = Responder::new(Identity::new(label, 2222, facts), 7);
        let mut now = Instant::now();
        responder.set_interfaces(&[interface], now);
        while let Some(at) = responder.deadline() {
            now = at;
            responder.act(now);
        }
        let asker = "10.0.0.9:40000".parse().unwrap();
        let packets = responder.receive(2, asker, &question(77).to_bytes(), now);
        let bytes = packets.into_iter().next().unwrap().bytes;
        Received { interface: 2, source: from.parse().unwrap(), bytes }
    }

    fn here() -> Vec<Interface> {
        vec![Interface { index: 2, name: "en\u{f6}".into(), addresses: Vec::new() }]
    }

    #[test]
    fn what_a_device_says_is_understood() {
        let facts = [("myelin", "1"), ("product", "box\u{1b}[2J"), ("serial", "7")];
        let received = answer("Box-7", "10.0.0.5:5353", &facts);
        let found = device(&received, 77, &here()).unwrap();
        assert_eq!(
            (found.name.as_str(), found.address.as_str(), found.port),
            ("box-7.local", "10.0.0.5", 2222)
        );
        assert_eq!((found.product.as_deref(), found.version), (Some("box?[2J"), None));
        assert_eq!(device(&received, 78, &here()), None);
        let link_local = answer("box-7", "[fe80::5]:5353", &facts);
        assert_eq!(device(&link_local, 77, &here()).unwrap().address, "fe80::5%en\u{f6}");
        // Another SSH server, and a port that anybody may have.
        assert_eq!(device(&answer("box", "10.0.0.5:5353", &[("x", "1")]), 77, &here()), None);
        assert_eq!(device(&answer("box", "10.0.0.5:5354", &facts), 77, &here()), None);
        assert_eq!(device(&answer("-oProxyCommand=x", "10.0.0.5:5353", &facts), 77, &here()), None);
    }

    #[test]
    fn one_device_is_listed_once_and_two_of_one_name_twice() {
        let facts = [("myelin", "1"), ("serial", "7")];
        let from = |label, source, facts: &[(&str, &str)]| {
            device(&answer(label, source, facts), 77, &here()).unwrap()
        };
        let mut found = Vec::new();
        keep(&mut found, from("a", "[fe80::5]:5353", &facts));
        keep(&mut found, from("a", "10.0.0.5:5353", &facts));
        keep(&mut found, from("a", "[fe80::5]:5353", &facts));
        assert_eq!((found.len(), found[0].address.as_str()), (1, "10.0.0.5"));
        keep(&mut found, from("a", "10.0.0.6:5353", &[("myelin", "1"), ("serial", "8")]));
        keep(&mut found, from("b", "10.0.0.5:5353", &[("myelin", "1")]));
        keep(&mut found, Device { interface: 3, ..from("b", "10.0.0.5:5353", &[("myelin", "1")]) });
        assert_eq!(found.len(), 4);
    }
}
