//! `[watchdog]`: the hardware that restarts the board when nobody could log in any more.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::Seconds;

/// Who watches, and how patiently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watchdog {
    /// The device, such as /dev/watchdog. Not set: Myelin leaves it to somebody else.
    pub device: Option<PathBuf>,
    /// How long the hardware waits for the next sign; drivers that cannot wait so long take what they can.
    pub timeout: Seconds,
    /// Without a login through each listening address for so long, the hardware is fed no more.
    pub login_limit: Seconds,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { device: None, timeout: Seconds::from_secs(15), login_limit: Seconds::from_secs(300) }
    }
}

impl Watchdog {
    /// How often somebody has to be seen to get in, if at all: a few failures must not cost a restart.
    pub fn login_interval(&self) -> Option<Duration> {
        self.device.as_ref().map(|_| self.login_limit.duration() / 5)
    }
}
