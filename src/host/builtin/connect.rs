//! Makes the connection: TCP to the first machine of the route, each further one through the one before it.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use russh::client::Config;
use russh::keys::Algorithm;
use russh::{Disconnect, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::authenticate::Login;
use super::host_key::{HostKeyCheck, Verdict};
use super::secrets::Secrets;
use super::settings::{Hop, Settings};
use super::talk::Talk;
use crate::client::{self, Handle, Stream};
use crate::host::remote::Trouble;
use crate::tasks::aside;

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

impl Connection {
    pub async fn open(
        settings: &Settings,
        patience: Patience,
        secrets: &Secrets,
        talk: &Talk,
    ) -> Result<Self, Trouble> {
        let mut hops: Vec<Handle> = Vec::new();
        for hop in &settings.route {
            talk.set_connect_until(Instant::now() + patience.connect);
            let verdict = Verdict::default();
            let connect = handshake(hop, hops.last(), settings, patience, talk, &verdict);
            let mut session = in_time(connect, hop, talk).await?;
            let distrusted = verdict.findings().distrusted;
            let login = Login { session: &mut session, hop, settings, secrets, talk, distrusted };
            login.run(|| verdict.findings().said_why).await?;
            hops.push(session);
        }
        let session = hops.pop().ok_or(Trouble::Connect)?;
        Ok(Self { session, hops })
    }

    /// Says good-bye, from the device back to the first machine.
    pub async fn close(self) {
        for session in [self.session].into_iter().chain(self.hops.into_iter().rev()) {
            let goodbye = session.disconnect(Disconnect::ByApplication, "", "").await;
            if goodbye.is_ok() {
                // A server that takes no good-bye is left without one.
                let _ = timeout(GOODBYE, session).await;
            }
        }
    }

    /// Whether a machine on the way is gone; what goes through it may not notice for long.
    pub fn is_broken(&self) -> bool {
        self.session.is_closed() || self.hops.iter().any(Handle::is_closed)
    }
}

/// Gives up when the time is over, but not while somebody is asked whether the key is right.
async fn in_time(
    connect: impl Future<Output = Result<Handle, Trouble>>,
    hop: &Hop,
    talk: &Talk,
) -> Result<Handle, Trouble> {
    tokio::pin!(connect);
    loop {
        let until = talk.connect_until().unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            result = &mut connect => return result,
            () = sleep_until(until.into()) => {}
        }
        if talk.connect_until().is_none_or(|until| Instant::now() >= until) {
            talk.error(&format!("connect to host {} port {}: Connection timed out", hop.host, hop.port));
            return Err(Trouble::Connect);
        }
    }
}

async fn handshake(
    hop: &Hop,
    before: Option<&Handle>,
    settings: &Settings,
    patience: Patience,
    talk: &Talk,
    verdict: &Verdict,
) -> Result<Handle, Trouble> {
    let (stream, address): (Box<dyn Stream>, String) = match before {
        None => {
            let stream = reach(hop, patience.connect).await.map_err(|error| {
                talk.error(&format!("connect to host {} port {}: {}", hop.host, hop.port, describe(&error)));
                Trouble::Connect
            })?;
            let address = stream.peer_addr().map_or_else(|_| hop.host.clone(), |peer| peer.ip().to_string());
            (Box::new(stream), address)
        }
        Some(before) => {
            let port = u32::from(hop.port);
            let channel = before.channel_open_direct_tcpip(hop.host.clone(), port, "127.0.0.1", 0).await;
            let channel = channel.map_err(|error| {
                talk.error(&format!(
                    "connect to host {} port {} through the jump host: {error}",
                    hop.host, hop.port
                ));
                Trouble::Connect
            })?;
            (Box::new(channel.into_stream()), hop.host.clone())
        }
    };
    let check = HostKeyCheck::new(hop, address, settings, talk, verdict);
    let config = config(patience, &check.known_types());
    client::connect(config, stream, Box::new(check)).await.map_err(|error| {
        if verdict.findings().refused {
            return Trouble::Authentication;
        }
        talk.error(&format!("Connection to {} port {} failed: {error}", hop.host, hop.port));
        Trouble::Connect
    })
}

/// TCP to the first address that answers.
async fn reach(hop: &Hop, each: Duration) -> io::Result<TcpStream> {
    let (host, port) = (hop.host.clone(), hop.port);
    let look_up =
        aside(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>));
    let addresses = look_up.await.map_err(io::Error::other)??;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    // The whole has its own limit; one address that is silent must not use it up.
    let each = each / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small packets of the login, and the last of the file, do not wait for more.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Without the number that std puts behind it.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "Connection timed out".into(),
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
    keys.sort_by_key(|key| !is_known(key));
    preferred.key = keys.into();
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
