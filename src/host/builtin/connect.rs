//! Makes the connection: TCP to the first machine of the route, each further one through the one before it.

use std::borrow::Cow;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use russh::client::Config;
use russh::keys::Algorithm;
use russh::{Disconnect, Preferred, SshId};
use tokio::net::TcpStream;

use super::authenticate::Login;
use super::host_key::{HostKeyCheck, Verdict};
use super::secrets::Secrets;
use super::settings::{Hop, Settings};
use super::talk::Talk;
use super::waits::{Over, Waits};
use crate::client::{self, Handle, Stream};
use crate::host::remote::Trouble;

/// A login on the device. The connections to the machines on the way live as long.
pub struct Connection {
    pub session: Handle,
    pub hops: Vec<Handle>,
}

/// How long to wait for what, in one call.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For TCP and the key exchange of one machine, without the time in which somebody is asked.
    pub connect: Duration,
    pub alive_interval: Duration,
    pub alive_count: usize,
}

/// What is shared by all machines of a route.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub settings: &'a Settings,
    pub patience: Patience,
    pub secrets: &'a Secrets,
    pub waits: &'a Waits,
    pub talk: &'a Talk,
}

impl Connection {
    pub fn open(way: Way<'_>) -> Result<Self, Trouble> {
        let Way { settings, secrets, waits, talk, .. } = way;
        let mut hops: Vec<Handle> = Vec::new();
        for hop in &settings.route {
            let verdict = Verdict::default();
            let mut session = handshake(hop, hops.last(), way, &verdict)?;
            let distrusted = verdict.findings().distrusted;
            let login = Login { waits, session: &mut session, hop, settings, secrets, talk, distrusted };
            login.run(|| verdict.findings().said_why)?;
            hops.push(session);
        }
        let session = hops.pop().ok_or(Trouble::Connect)?;
        Ok(Self { session, hops })
    }

    /// Says good-bye, from the device back to the first machine. A server that takes none is left without one.
    pub fn close(self, waits: &Waits) {
        for session in [self.session].into_iter().chain(self.hops.into_iter().rev()) {
            let _ = waits.at_most(GOODBYE, async {
                let _ = session.disconnect(Disconnect::ByApplication, "", "").await;
                session.await
            });
        }
    }

    /// Whether a machine on the way is gone; what goes through it may not notice for long.
    pub fn is_broken(&self) -> bool {
        self.session.is_closed() || self.hops.iter().any(Handle::is_closed)
    }
}

fn handshake(hop: &Hop, before: Option<&Handle>, way: Way<'_>, verdict: &Verdict) -> Result<Handle, Trouble> {
    let Way { settings, patience, waits, talk, .. } = way;
    let until = Instant::now() + patience.connect;
    talk.set_connect_until(until);
    let (host, port) = (&hop.host, hop.port);
    let no_connection = |why: &str| {
        // When the whole call is over, what was said before is worth more.
        if waits.is_over() {
            return Trouble::Connect;
        }
        talk.error(format_args!("connect to host {host} port {port}: {why}"));
        Trouble::Connect
    };
    let (stream, address): (Box<dyn Stream>, String) = match before {
        None => {
            let stream =
                reach(hop, patience.connect, waits).map_err(|error| no_connection(&describe(&error)))?;
            let address = stream.peer_addr().map_or_else(|_| host.clone(), |peer| peer.ip().to_string());
            (Box::new(stream), address)
        }
        Some(before) => {
            let channel = before.channel_open_direct_tcpip(host.clone(), port.into(), "127.0.0.1", 0);
            match waits.at_most(patience.connect, channel) {
                Ok(Ok(channel)) => (Box::new(channel.into_stream()), host.clone()),
                Ok(Err(error)) => return Err(no_connection(&format!("not through the jump host: {error}"))),
                Err(Over) => return Err(no_connection(TIMED_OUT)),
            }
        }
    };
    let check = HostKeyCheck::new(hop, address, settings, talk, verdict);
    let config = config(patience, &check.known_types());
    let mut connecting = Box::pin(client::connect(config, stream, Box::new(check)));
    let result = loop {
        let until = talk.connect_until().unwrap_or(until);
        match waits.at_most(until.saturating_duration_since(Instant::now()), &mut connecting) {
            Ok(result) => break result,
            // Somebody was asked meanwhile, and has had all the time that it took.
            Err(Over)
                if !waits.is_over() && talk.connect_until().is_some_and(|until| Instant::now() < until) => {}
            Err(Over) => return Err(no_connection(TIMED_OUT)),
        }
    };
    result.map_err(|error| {
        if verdict.findings().refused {
            return Trouble::Authentication;
        }
        talk.error(format_args!("Connection to {host} port {port} failed: {error}"));
        Trouble::Connect
    })
}

const TIMED_OUT: &str = "Connection timed out";

/// TCP to the first address that answers.
fn reach(hop: &Hop, limit: Duration, waits: &Waits) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (hop.host.as_str(), hop.port).to_socket_addrs()?.collect();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    // One address that is silent must not use up the time of all.
    let each = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&address, each) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                // Small packets of the login, and the last of the file, do not wait for more.
                let _ = stream.set_nodelay(true);
                let _of_the_runtime = waits.enter();
                return TcpStream::from_std(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Without the number that std puts behind it.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => TIMED_OUT.into(),
        io::ErrorKind::NotFound => "the name has no address".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

fn config(patience: Patience, known_types: &[String]) -> Config {
    let silent = patience.alive_interval * u32::try_from(patience.alive_count).unwrap_or(u32::MAX);
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Myelin_", env!("CARGO_PKG_VERSION")))),
        preferred: preferred(known_types),
        keepalive_interval: (!patience.alive_interval.is_zero()).then_some(patience.alive_interval),
        keepalive_max: patience.alive_count,
        // For what keepalives do not see: a server that stays silent in the login, a write that is stuck.
        inactivity_timeout: Some(silent.clamp(SHORT_SILENCE, LONG_SILENCE)),
        channel_buffer_size: CHANNEL_BUFFER,
        ..Config::default()
    }
}

/// How long a good-bye may take.
const GOODBYE: Duration = Duration::from_secs(1);
const SHORT_SILENCE: Duration = Duration::from_secs(60);
const LONG_SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Messages of a channel that wait for us; what the device prints is shown at once.
const CHANNEL_BUFFER: usize = 16;

/// Types of which the host has a known key come first: another key of it would be a question for nothing.
fn preferred(known_types: &[String]) -> Preferred {
    let mut preferred = client::everything();
    let mut keys = preferred.key.to_vec();
    // No host has one of those.
    keys.retain(|key| !matches!(key, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256));
    let is_known = |key: &Algorithm| {
        let name = if matches!(key, Algorithm::Rsa { .. }) { "ssh-rsa" } else { key.as_str() };
        known_types.iter().any(|known| known == name)
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_known);
    first.extend(rest);
    preferred.key = first.into();
    preferred
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_are_asked_for_first_and_in_their_order() {
        let names = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            preferred(&known).key.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&[])[0], "ssh-ed25519");
        let rsa = names(&["ssh-rsa"]);
        assert_eq!(rsa[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(names(&["ecdsa-sha2-nistp256"])[0], "ecdsa-sha2-nistp256");
        assert!(!rsa.iter().any(|name| name.starts_with("sk-")));
    }
}
