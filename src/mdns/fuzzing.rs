//! Packets of multicast DNS.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::message::Message;
use super::records::Identity;
use super::responder::{Interface, PORT, Responder};

/// What was read is written and read again, where it still fits; and a responder hears it at each point of its life.
pub fn mdns(data: &[u8]) {
    if let Some(message) = Message::parse(data)
        && let Some(again) = Message::parse(&message.to_bytes())
    {
        assert_eq!(again, message);
    }
    let mut responder = Responder::new(Identity::new("box", 22, &[("myelin", "1")]), 1);
    let addresses = vec![(IpAddr::from([10, 0, 0, 5]), 24)];
    let mut now = Instant::now();
    responder.set_interfaces(&[Interface { index: 1, name: "eth0".into(), addresses }], now);
    for port in [PORT, 40_000].repeat(6) {
        let packets = responder.receive(1, SocketAddr::new([10, 0, 0, 9].into(), port), data, now);
        assert!(packets.len() <= 3);
        now = responder.deadline().unwrap_or(now);
        responder.act(now);
    }
}
