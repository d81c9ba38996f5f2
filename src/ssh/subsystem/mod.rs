//! Subsystems: what a client can ask for by name (RFC 4254 section 6.5).
//!
//! To add one: a variant here, its name in `find`, a file beside this one with its work in `run`.

pub mod legacy;

use crate::config::Ssh;
use crate::ssh::channel::Session;
use crate::ssh::connection::Service;

/// The longest name that is looked up.
const MAX_NAME: usize = 64;

/// A subsystem that exists.
pub enum Subsystem {
    /// A program of the image's own, from `[ssh.subsystem]`.
    Program(Vec<String>),
}

impl Subsystem {
    /// The subsystem of this name, if clients of this listener may use it.
    pub fn find(name: &str, ssh: &Ssh, service: Service) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        match (service, name) {
            (Service::Legacy, _) => None,
            (Service::Ssh, _) => ssh.subsystem.get(name).cloned().map(Self::Program),
        }
    }

    pub async fn run(self, session: Session) {
        match self {
            Self::Program(words) => crate::ssh::channel::run_program(session, words).await,
        }
    }
}
