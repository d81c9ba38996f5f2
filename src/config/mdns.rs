//! `[mdns]`: whether and under which name the device announces itself.

use serde::{Deserialize, Serialize};

/// What the network is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mdns {
    /// `HOSTNAME.local` and the SSH service, by multicast DNS.
    pub announce: bool,
    /// The name without `.local`; %s is the serial number, %h the system's host name.
    pub host_name: String,
}

impl Default for Mdns {
    fn default() -> Self {
        Self { announce: false, host_name: "myelin-%s".into() }
    }
}
