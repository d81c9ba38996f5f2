//! Blocks of addresses, `ADDRESS/PREFIX`, as `from=` of a key and `permit_open` have them.

use std::fmt;
use std::net::IpAddr;

/// All addresses that begin like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    address: IpAddr,
    prefix: u32,
}

impl Block {
    /// `None` for one that does not exist. One with bits beyond its prefix is a mistake of whoever wrote it; sshd
    /// refuses it too.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix = prefix.parse().ok()?;
        (prefix <= bits(address) && mask(address, prefix) == value(address))
            .then_some(Self { address, prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && mask(address, self.prefix) == value(self.address)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address without the bits after its prefix.
fn mask(address: IpAddr, prefix: u32) -> u128 {
    let rest = bits(address).saturating_sub(prefix);
    value(address).checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
}
