//! The built-in SSH client: for machines without ssh.
//!
//! It logs in as ssh does, with keys, an agent, questions and passwords, goes by the same known_hosts, and says what
//! ssh would say. It reads no configuration, and does one thing: it runs a subsystem.

mod agent;
mod authenticate;
mod connect;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod host_key;
mod identities;
mod known_hosts;
mod locked;
mod secrets;
mod settings;
mod signer;
mod subsystem;
mod talk;
mod terminal;
mod waits;

use std::io;
use std::time::Duration;

pub use settings::SettingsError;

use self::connect::{Connection, Patience, Way};
use self::secrets::Secrets;
use self::settings::Settings;
use self::talk::Talk;
use self::waits::Waits;
use super::options::SshOptions;
use super::remote::{Call, End, Ended, Remote, Trouble};
use super::target::Target;

/// The way to one device.
pub struct Builtin {
    settings: Settings,
    secrets: Secrets,
}

/// For a question to a device that boots: what of it answers must answer soon.
const QUICK: Patience =
    Patience { connect: Duration::from_secs(5), alive_interval: Duration::from_secs(3), alive_count: 2 };

impl Builtin {
    pub fn new(options: &SshOptions, target: &Target, address: Option<&str>) -> Result<Self, SettingsError> {
        Ok(Self { settings: Settings::new(options, target, address)?, secrets: Secrets::default() })
    }
}

impl Remote for Builtin {
    fn run(&self, call: Call<'_>) -> io::Result<Ended> {
        let settings = &self.settings;
        // Nobody sits there for minutes to answer questions; what was answered once is known.
        let talk = Talk::new(call.message, !settings.quiet, !settings.batch && !call.quick);
        let waits = Waits::new(call.deadline)?;
        let patience = Patience {
            connect: settings.connect_timeout,
            alive_interval: settings.alive_interval,
            alive_count: settings.alive_count,
        };
        let patience = if call.quick { QUICK } else { patience };
        let way = Way { settings, patience, secrets: &self.secrets, waits: &waits, talk: &talk };
        let (end, sent) = match Connection::open(way) {
            Ok(connection) => {
                let host = settings.route.last().map_or("", |hop| &hop.host);
                let running =
                    subsystem::run(&connection, call.subsystem, call.input, call.output, host, &talk);
                let ended = waits.on(running).unwrap_or(Ok((End::Without(Some(Trouble::Lost)), 0)));
                connection.close(&waits);
                ended?
            }
            Err(trouble) => (End::Without(Some(trouble)), 0),
        };
        Ok(Ended { end, messages: talk.messages(), sent })
    }

    fn describe(&self) -> String {
        let hops =
            self.settings.route.iter().map(|hop| format!("{}@{} port {}", hop.user, hop.host, hop.port));
        format!("the built-in client: {}, subsystem fwup", hops.collect::<Vec<_>>().join(", then "))
    }
}
