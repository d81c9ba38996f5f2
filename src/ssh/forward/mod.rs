//! Forwarding: connections that a client has us make, and accept, for it.
//!
//! Owns the places and the listening sockets of one connection. Nothing here waits inside a callback of russh: each forward is a task of its
//! own, which answers the client once it knows the answer.

mod carry;
mod dial;
mod listen;
mod socket;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use russh::ChannelOpenFailure;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::info;

use self::carry::Ends;
pub use self::dial::Target;
pub use self::listen::Asked;
use self::listen::{Listener, Listening};
pub use self::socket::remove_leftovers;
use super::account::Account;
use super::authorized_keys::Options;
use super::connection::{Connection, InUse, Service};
use super::server::{Server, Settings};

/// What a client was refused, and why: the answer has a number for it (RFC 4254 section 5.1), the log the text.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("refused: {0}")]
    Prohibited(&'static str),
    #[error("failed: {0}")]
    Failed(#[from] std::io::Error),
    #[error("refused: max_forwards are open")]
    Full,
}

impl Refusal {
    /// We would make and open them with our own rights.
    const NOT_ROOT: Self = Self::Prohibited("sockets of the file system are for root only");

    fn reason(&self) -> ChannelOpenFailure {
        match self {
            Self::Prohibited(_) => ChannelOpenFailure::AdministrativelyProhibited,
            Self::Failed(_) => ChannelOpenFailure::ConnectFailed,
            Self::Full => ChannelOpenFailure::ResourceShortage,
        }
    }
}

/// The forwards of one connection. What listens ends with this, which ends with the connection.
pub struct Forwards {
    shared: Arc<Shared>,
    listening: HashMap<Asked, Listening>,
}

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
        let shared = Shared { server, connection, settings, places, left_to_us: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared), listening: HashMap::new() }
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
        let shared = Arc::clone(&self.shared);
        let permitted = target.check(options, &shared).and_then(|dial| Ok((dial, shared.place()?)));
        self.shared.connection.spawn(async move {
            let smallest = shared.settings.config.ssh.min_remote_packet_size;
            let is_small = channel.writable_packet_size().await < smallest as usize;
            let connected: Result<(Ends, Place), Refusal> = match permitted {
                Ok(_) if is_small => {
                    Err(Refusal::Prohibited("the client takes smaller packets than min_remote_packet_size"))
                }
                Ok((dial, place)) => dial.connect(&shared.server).await.map(|ends| (ends, place)),
                Err(refusal) => Err(refusal),
            };
            match connected {
                Ok((ends, place)) => {
                    shared.log("local", &target, &"allowed");
                    reply.accept().await;
                    carry::carry(&shared, target.kind(), channel, handle, ends).await;
                    drop(place);
                }
                Err(refusal) => {
                    shared.log("local", &target, &refusal);
                    reply.reject(refusal.reason()).await;
                }
            }
        });
    }

    /// Listens on a port for the client, and says on which.
    pub fn listen(&mut self, options: &Options, address: &str, port: u32, handle: &Handle) -> Option<u16> {
        let made = listen::on_port(&self.shared, options, address, port);
        let port = made.as_ref().map_or(port, |(_, bound)| (*bound).into());
        let asked = Asked::Port { address: address.to_owned(), port };
        self.start(asked, made.map(|(listeners, _)| listeners), handle)
            .then(|| u16::try_from(port).ok())
            .flatten()
    }

    /// Listens on a socket of the file system for the client.
    pub fn listen_at(&mut self, options: &Options, path: &str, handle: &Handle) -> bool {
        let made = socket::listen(&self.shared, options, path);
        self.start(Asked::Socket(path.to_owned()), made.map(|listener| vec![listener]), handle)
    }

    /// The socket behind which the client's agent is: one for all sessions.
    pub fn agent(&mut self, options: &Options, handle: &Handle) -> Option<PathBuf> {
        let path = socket::agent_path(&self.shared);
        if !self.listening.contains_key(&Asked::Agent) {
            let made = socket::listen_for_agent(&self.shared, options, &path);
            if !self.start(Asked::Agent, made.map(|listener| vec![listener]), handle) {
                return None;
            }
        }
        Some(path)
    }

    /// Ends what listens; false when nothing does.
    pub async fn end(&mut self, asked: &Asked) -> bool {
        let Some(listening) = self.listening.remove(asked) else { return false };
        listening.end().await;
        true
    }

    fn start(&mut self, asked: Asked, made: Result<Vec<Listener>, Refusal>, handle: &Handle) -> bool {
        match made.and_then(|listeners| Ok((listeners, self.shared.place()?))) {
            Ok((listeners, place)) => {
                self.shared.log("remote", &asked, &"allowed");
                let listening = Listening::start(&self.shared, handle, &asked, listeners, place);
                self.listening.insert(asked, listening);
                true
            }
            Err(refusal) => {
                self.shared.log("remote", &asked, &refusal);
                false
            }
        }
    }
}

impl Shared {
    /// Whether the client may have anything forwarded: not on the port of the legacy protocol, nor as a probe.
    fn check(&self, allowed: bool) -> Result<(), Refusal> {
        let is_probe = self.connection.login.get().is_none_or(|login| login.proofs.is_empty());
        if self.connection.service != Service::Ssh || is_probe {
            return Err(Refusal::Prohibited("not for this connection"));
        }
        if allowed { Ok(()) } else { Err(Refusal::Prohibited("the key's options forbid forwarding")) }
    }

    /// Whether what we do for the client may be done with our own rights.
    fn is_ours(&self) -> bool {
        self.account().is_some_and(Account::is_ours)
    }

    fn account(&self) -> Option<&Account> {
        self.connection.login.get()?.account.as_deref().ok()
    }

    /// One of `max_forwards`, until it is dropped.
    fn place(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Full)?;
        Ok(Place { _permit: permit, _in_use: self.connection.in_use() })
    }

    fn log(&self, direction: &str, target: &dyn Display, outcome: &dyn Display) {
        let (target, outcome) = (target.to_string(), outcome.to_string());
        let (peer, user) = (self.connection.peer, self.connection.user());
        info!(%peer, user, direction, target, outcome, "ssh.forward");
    }
}

/// A place among the forwards of a connection.
struct Place {
    _permit: OwnedSemaphorePermit,
    _in_use: InUse,
}
