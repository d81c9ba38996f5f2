//! The built-in SSH client: for machines without ssh.
//!
//! It logs in as ssh does, with keys, an agent, questions and passwords, goes by the same known_hosts, and says what
//! ssh would say. It reads no configuration, and does one thing: it runs a subsystem.

mod authenticate;
mod connect;
mod host_key;
mod identities;
mod known_hosts;
mod secrets;
mod settings;
mod signer;
mod subsystem;
mod talk;
mod terminal;

use std::io;
use std::time::Duration;

pub use settings::SettingsError;
use tokio::time::timeout_at;

use self::connect::{Connection, Patience};
use self::secrets::Secrets;
use self::settings::Settings;
use self::talk::Talk;
use super::options::SshOptions;
use super::remote::{Call, End, Ended, Input, Output, Remote, Trouble};
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

    async fn call(
        &self,
        name: &str,
        input: Option<Input<'_>>,
        output: Output,
        patience: Patience,
        talk: &Talk,
    ) -> io::Result<(End, u64)> {
        match Connection::open(&self.settings, patience, &self.secrets, talk).await {
            Ok(connection) => {
                let host = self.settings.device().map(|hop| hop.host.clone()).unwrap_or_default();
                let ended = subsystem::run(&connection, name, input, output, &host, talk).await;
                connection.close().await;
                ended
            }
            Err(trouble) => Ok((End::Without(Some(trouble)), 0)),
        }
    }
}

impl Remote for Builtin {
    fn run(&self, call: Call<'_>) -> io::Result<Ended> {
        let settings = &self.settings;
        // Nobody sits there for minutes to answer questions; what was answered once is known.
        let talk = Talk::new(call.message, !settings.quiet, !settings.batch && !call.quick);
        let patience = Patience {
            connect: settings.connect_timeout,
            alive_interval: settings.alive_interval,
            alive_count: settings.alive_count,
        };
        let patience = if call.quick { QUICK } else { patience };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, sent) = runtime.block_on(async {
            let connection = self.call(call.subsystem, call.input, call.output, patience, &talk);
            match call.deadline {
                None => connection.await,
                Some(deadline) => match timeout_at(deadline.into(), connection).await {
                    Ok(ended) => ended,
                    Err(_) => Ok((End::Without(Some(Trouble::Lost)), 0)),
                },
            }
        })?;
        // A name may still be looked up by a thread; nobody waits for it.
        runtime.shutdown_background();
        Ok(Ended { end, messages: talk.messages(), sent })
    }

    fn describe(&self) -> String {
        let hops =
            self.settings.route.iter().map(|hop| format!("{}@{} port {}", hop.user, hop.host, hop.port));
        format!("the built-in client: {}, subsystem fwup", hops.collect::<Vec<_>>().join(", then "))
    }
}
