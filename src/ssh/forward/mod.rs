//! Forwarding: connections that a client has us make for it.
//!
//! Owns the places of one connection. Nothing here waits inside a callback of russh: each forward is a task of its
//! own, which answers the client once it knows the answer.

mod carry;
mod dial;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use russh::ChannelOpenFailure;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::info;

use self::carry::Ends;
pub use self::dial::Target;
use super::authorized_keys::Options;
use super::connection::{Connection, InUse, Service};
use super::server::{Server, Settings};

/// What a client was refused, and why: the answer has a number for it (RFC 4254 section 5.1), the log the text.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("refused: {0}")]
    Prohibited(&'static str),
    #[error("cannot connect: {0}")]
    Failed(#[from] std::io::Error),
    #[error("refused: max_forwards are open")]
    Full,
}

impl Refusal {
    fn reason(&self) -> ChannelOpenFailure {
        match self {
            Self::Prohibited(_) => ChannelOpenFailure::AdministrativelyProhibited,
            Self::Failed(_) => ChannelOpenFailure::ConnectFailed,
            Self::Full => ChannelOpenFailure::ResourceShortage,
        }
    }
}

/// The forwards of one connection.
pub struct Forwards(Arc<Shared>);

/// What the tasks of one connection's forwards need.
struct Shared {
    server: Arc<Server>,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    places: Arc<Semaphore>,
    /// Channels that had ended both ways, and that we had to close.
    left_to_us: AtomicUsize,
}

impl Forwards {
    pub fn new(server: Arc<Server>, connection: Arc<Connection>, settings: Arc<Settings>) -> Self {
        let places = Arc::new(Semaphore::new(settings.config.ssh.max_forwards));
        Self(Arc::new(Shared { server, connection, settings, places, left_to_us: AtomicUsize::new(0) }))
    }

    /// Connects to `target` for the client and answers `reply`, in time. `options` are those of the client's key.
    pub fn open(
        &self,
        options: &Options,
        target: Target,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        let shared = Arc::clone(&self.0);
        let permitted = target.check(options, &shared).and_then(|dial| Ok((dial, shared.place()?)));
        self.0.connection.spawn(async move {
            let connected: Result<(Ends, Place), Refusal> = match permitted {
                Ok((dial, place)) => dial.connect(&shared.server).await.map(|ends| (ends, place)),
                Err(refusal) => Err(refusal),
            };
            match connected {
                Ok((ends, place)) => {
                    shared.log("local", &target, &"allowed");
                    reply.accept().await;
                    carry::carry(&shared, channel, handle, ends).await;
                    drop(place);
                }
                Err(refusal) => {
                    shared.log("local", &target, &refusal);
                    reply.reject(refusal.reason()).await;
                }
            }
        });
    }
}

impl Shared {
    /// What no connection may do but one that has logged in to the SSH service with a key for it.
    fn check(&self, options: &Options) -> Result<(), Refusal> {
        if self.connection.service != Service::Ssh {
            return Err(Refusal::Prohibited("not on this port"));
        }
        if !options.allow_port_forwarding() {
            return Err(Refusal::Prohibited("the key's options forbid forwarding"));
        }
        Ok(())
    }

    /// One of `max_forwards`, until it is dropped.
    fn place(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Full)?;
        Ok(Place { _permit: permit, _in_use: self.connection.in_use() })
    }

    fn log(&self, direction: &str, target: &dyn Display, outcome: &dyn Display) {
        let (target, outcome) = (target.to_string(), outcome.to_string());
        info!(peer = %self.connection.peer, direction, target, outcome, "ssh.forward");
    }
}

/// A place among the forwards of a connection.
struct Place {
    _permit: OwnedSemaphorePermit,
    _in_use: InUse,
}
