//! `from="PATTERNS"`: where a key may be used from (sshd(8); ssh_config(5), PATTERNS).
//!
//! Addresses only. Names would need a resolver at login, which is out of reach exactly when help is needed.

use std::net::IpAddr;

use crate::config::{Block, pattern_matches, split_commas};

/// Addresses, CIDR blocks and patterns; `!` in front takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<(bool, Pattern)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Block(Block),
    Text(String),
}

impl Sources {
    /// `None` when an item is a block that does not exist.
    pub fn parse(text: &str) -> Option<Self> {
        let items = split_commas(text).map(|item| {
            let (negated, item) = item.strip_prefix('!').map_or((false, item), |rest| (true, rest));
            Some((negated, Pattern::parse(item)?))
        });
        let items: Vec<_> = items.collect::<Option<_>>()?;
        (!items.is_empty()).then_some(Self(items))
    }

    /// Whether the address matches an item and none that is negated.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let matches = |negated: bool| {
            self.0.iter().any(|(is_negated, pattern)| *is_negated == negated && pattern.matches(address))
        };
        matches(false) && !matches(true)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text.contains('/') { Block::parse(&text).map(Self::Block) } else { Some(Self::Text(text)) }
    }

    fn matches(&self, peer: IpAddr) -> bool {
        match self {
            Self::Block(block) => block.contains(peer),
            Self::Text(pattern) => {
                // An address may be written in many ways.
                pattern.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == peer)
                    || pattern_matches(pattern, &peer.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(text: &str, address: &str) -> bool {
        Sources::parse(text).unwrap().contain(address.parse().unwrap())
    }

    #[test]
    fn addresses_blocks_and_patterns_match() {
        for (text, address) in [
            ("127.0.0.1,::1", "::1"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("10.0.0.0/8", "10.255.0.1"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("fe80::/10", "fe80::1"),
            ("::/0", "2001:db8::1"),
            ("0:0:0::1", "::1"),
            ("192.168.?.*", "192.168.1.77"),
            ("10.0.0.0/8,!10.1.0.0/16", "10.2.0.1"),
            ("10.0.0.7/32", "10.0.0.7"),
        ] {
            assert!(contain(text, address), "{text} {address}");
        }
        for (text, address) in [
            ("10.0.0.0/8", "127.0.0.1"),
            ("10.0.0.0/8,!10.1.0.0/16", "10.1.0.1"),
            ("!10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "10.0.0.1"),
            ("host.example", "10.0.0.1"),
            ("192.168.?.*", "192.168.11.77"),
        ] {
            assert!(!contain(text, address), "{text} {address}");
        }
    }

    #[test]
    fn blocks_that_do_not_exist_are_no_sources() {
        for text in ["", ",", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/x", "a/8", "10.0.0.0/-1"] {
            assert!(Sources::parse(text).is_none(), "{text}");
        }
    }
}
