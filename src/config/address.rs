//! Addresses to listen on, as text: an IP address, with a zone where it needs one, or `*`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One item of `listen_address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `*`: every address of the families in `address_family`.
    Any,
    V4(Ipv4Addr),
    /// With the interface that a link-local address needs, by name or number.
    V6(Ipv6Addr, Option<String>),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::V4(address));
        }
        let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let (address, zone) = match plain.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (plain, None),
        };
        let zone_is_name = zone.is_none_or(|zone| (1..MAX_ZONE).contains(&zone.len()) && !zone.contains('/'));
        match address.parse() {
            Ok(address) if zone_is_name => Ok(Self::V6(address, zone.map(String::from))),
            _ => Err(format!("`{text}` is no IP address (the port is set with `port`)")),
        }
    }
}

/// IFNAMSIZ of the kernel, with its zero byte.
const MAX_ZONE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_brackets_and_zones() {
        let v6 = |text: &str| ListenAddress::V6(text.parse().unwrap(), None);
        assert_eq!("*".parse(), Ok(ListenAddress::Any));
        assert_eq!("127.0.0.1".parse(), Ok(ListenAddress::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!("::1".parse(), Ok(v6("::1")));
        assert_eq!("[::]".parse(), Ok(v6("::")));
        let zone = ListenAddress::V6("fe80::1".parse().unwrap(), Some("eth0".into()));
        assert_eq!("fe80::1%eth0".parse(), Ok(zone));
        for wrong in ["", "localhost", "1.2.3.4:22", "[::1]:22", "fe80::1%", "300.1.1.1", "fe80::1%a/b"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
    }
}
