//! Subsystems: what a client can ask for by name (RFC 4254 section 6.5).
//!
//! To add one: a variant here, its name in `BUILT_IN` and `built_in`, its work in a file beside this one, called by `run`.

pub mod command;
mod fwup;
pub mod legacy;
mod sftp;
mod status;

use tracing::info;

use crate::config::{INTERNAL_SFTP, Ssh};
use crate::ssh::channel::{self, Exit, Session};
use crate::ssh::connection::Service;
use crate::ssh::probe;
use command::Programs;

/// The longest name that is looked up.
const MAX_NAME: usize = 64;

/// A subsystem that exists.
pub enum Subsystem {
    /// A firmware update: the stream is the `.fw` file.
    Fwup,
    /// The same behind the header of nerves_firmware_ssh.
    Legacy,
    /// File transfer: sftp, scp, sshfs.
    Sftp,
    /// `firmware status --json` of this daemon.
    Status,
    /// Nothing, successfully: for the probe.
    Probe,
    /// A program of the image's own, from `[ssh.subsystem]`.
    Program(Vec<String>),
}

impl Subsystem {
    /// What clients are told of.
    const BUILT_IN: &[&str] = &["fwup", "sftp", "myelin-status", legacy::NAME];

    /// The subsystem of this name, if clients of this listener may use it. A name of ours can be given to
    /// another program, since the boot (`added`) or in the configuration.
    pub fn find(name: &str, ssh: &Ssh, added: &Programs, service: Service) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        match (service, name) {
            (Service::Legacy, legacy::NAME) => Some(Self::Legacy),
            (Service::Legacy, _) => None,
            (Service::Ssh, probe::SUBSYSTEM) => Some(Self::Probe),
            (Service::Ssh, _) => added.get(name).or_else(|| ssh.subsystem.get(name)).map_or_else(
                || Self::built_in(name, ssh),
                |words| {
                    let is_ours = words.first().is_some_and(|word| word == INTERNAL_SFTP);
                    Some(if is_ours { Self::Sftp } else { Self::Program(words.clone()) })
                },
            ),
        }
    }

    fn built_in(name: &str, ssh: &Ssh) -> Option<Self> {
        match name {
            "fwup" => Some(Self::Fwup),
            "sftp" if ssh.sftp => Some(Self::Sftp),
            "myelin-status" => Some(Self::Status),
            legacy::NAME if ssh.legacy.enabled => Some(Self::Legacy),
            _ => None,
        }
    }

    /// Runs it to its end. Whatever happens, the channel gets an exit status and is closed.
    pub async fn run(self, session: Session) {
        if self.is_for_updates() && !session.may_update() {
            return refuse(session).await;
        }
        match self {
            Self::Fwup => fwup::run(session).await,
            Self::Legacy => legacy::run(session).await,
            Self::Sftp => sftp::run(session).await,
            Self::Status => status::run(session).await,
            Self::Probe => {
                session.flow.discard();
                session.output().finish(Exit::Status(0)).await;
            }
            Self::Program(words) => channel::run_program(session, words).await,
        }
    }

    /// Whether it does with our rights what not every user of the system may do.
    fn is_for_updates(&self) -> bool {
        matches!(self, Self::Fwup | Self::Legacy | Self::Status)
    }
}

async fn refuse(session: Session) {
    let (peer, user) = (session.connection.peer, session.connection.user());
    info!(%peer, user, "an update is refused: the user is not in firmware_users");
    let text = format!(
        "myelin: {user} may not update this device: firmware_users of its configuration lacks the name\n"
    );
    let output = session.output();
    output.stderr(text.into()).await;
    session.flow.discard();
    output.finish(Exit::Status(1)).await;
}
