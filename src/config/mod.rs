//! The configuration: its types, its defaults, and how files become values.
//!
//! One file a section. Nothing here opens sockets or starts programs; loading is tolerant by design
//! (a broken value keeps its default, the daemon starts in any case), checking is strict.

pub mod algorithms;
mod block;
pub mod command;
#[cfg(test)]
mod example;
mod firmware;
mod forwarding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keys;
mod layers;
mod load;
mod mdns;
mod methods;
mod recover;
mod show;
mod ssh;
mod traffic;
mod user_mode;
mod users;
mod validate;
mod validation;
mod values;
pub mod version;
mod watchdog;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use block::Block;
pub use firmware::{Firmware, FwupProgram, SuccessAction};
pub use forwarding::{GatewayPorts, Permit, socket_is_permitted};
pub use load::{Loaded, Place, Problem, load};
pub use mdns::Mdns;
pub use methods::Method;
pub use ssh::{
    AddressFamily, BootPartitionKeys, DEFAULT_SHELL, HostKeyType, INTERNAL_SFTP, Legacy, Program, Ssh,
};
pub use traffic::ChannelTimeout;
pub use user_mode::UserMode;
pub use users::{MAX_PASSWORD, Secret, User, check_password_hash};
pub use validate::{random_name, subsystem as check_subsystem, user_name as check_user_name};
pub use validation::{Accept, Gate, TrialAction, Validation};
pub use values::{Bytes, pattern_matches, split_commas, split_port};
pub use watchdog::Watchdog;

/// Everything that can be configured, with the defaults of an image that says nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What survives updates: host keys, keys added at run time. Made (0700) when missing.
    pub state_dir: PathBuf,
    /// What lives until the reboot: update lock, boot id, sockets. Made (0755) when missing.
    pub runtime_dir: PathBuf,
    /// Where log lines go.
    pub log: LogTarget,
    /// The least important level that is logged.
    pub log_level: LogLevel,
    /// The SSH daemon.
    #[serde(deserialize_with = "values::elsewhere")]
    pub ssh: Ssh,
    /// Firmware updates.
    #[serde(deserialize_with = "values::elsewhere")]
    pub firmware: Firmware,
    /// What the network is told.
    #[serde(deserialize_with = "values::elsewhere")]
    pub mdns: Mdns,
    /// The hardware that restarts the board when nobody could log in any more.
    #[serde(deserialize_with = "values::elsewhere")]
    pub watchdog: Watchdog,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/data/myelin".into(),
            runtime_dir: "/run/myelin".into(),
            log: LogTarget::Auto,
            log_level: LogLevel::Info,
            ssh: Ssh::default(),
            firmware: Firmware::default(),
            mdns: Mdns::default(),
            watchdog: Watchdog::default(),
        }
    }
}

impl Config {
    /// Where input that nobody reads yet waits on disk.
    pub fn spool_dir(&self) -> PathBuf {
        self.ssh.spool_dir.clone().unwrap_or_else(|| self.state_dir.join("spool"))
    }
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// journald when stderr is the journal (`JOURNAL_STREAM`, systemd.exec(5)), else stderr.
    Auto,
    Stderr,
    Journald,
    /// /dev/log (syslog(3)), facility auth.
    Syslog,
}

/// The levels of `tracing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// /etc/myelin/config.toml, /etc/myelin/conf.d/*.toml, then config.toml in the state folder.
    System,
    /// One file and nothing else.
    File(PathBuf),
}

impl Source {
    pub fn from_option(file: Option<PathBuf>) -> Self {
        file.map_or(Self::System, Self::File)
    }
}
