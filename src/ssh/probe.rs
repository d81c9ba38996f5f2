//! The probe: a login through the real port, with a real key exchange and a key of its own, that may do nothing.
//!
//! The agent worker makes the key in memory and tells its public half over the control socket, which is root's; for a
//! hardware watchdog the ssh worker does the same for itself.
//! It is good for one login within a short time, from this machine's own addresses, and for one subsystem that
//! does nothing: never for a shell, a command or anything else.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{AuthResult, Config as ClientConfig};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{ChannelMsg, Disconnect, SshId};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::connection::Connection;
use super::control::{self, Request, Response};
use super::host_keys;
use super::server::Server;
use crate::client::{self, Judge};
use crate::config::{Config, HostKeyType};
use crate::systemd;
use crate::tasks::aside;

/// The only thing a probe may ask for.
pub const SUBSYSTEM: &str = "myelin-probe";
/// Who it says it is; nobody asks.
const USER: &str = "myelin-probe";
/// How long its key is expected.
const EXPECTED_FOR: Duration = Duration::from_secs(60);
/// How long a login may take: the smallest boards exchange keys for seconds.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// The key that the worker expects now, if one.
#[derive(Default)]
pub struct Expected(Mutex<Option<(PublicKey, Instant)>>);

impl Expected {
    /// The next login with this key is a probe.
    pub fn expect(&self, key: PublicKey) {
        *self.lock() = Some((key, Instant::now() + EXPECTED_FOR));
    }

    /// Whether somebody with this key is the probe.
    pub fn is_probe(&self, key: &PublicKey, connection: &Connection) -> bool {
        let own = is_own_address(connection.peer.ip(), connection.local.ip());
        let matches = |(expected, until): &(PublicKey, Instant)| {
            expected.key_data() == key.key_data() && Instant::now() < *until
        };
        own && self.lock().as_ref().is_some_and(matches)
    }

    /// The same, and the key is used up.
    pub fn take(&self, key: &PublicKey, connection: &Connection) -> bool {
        self.is_probe(key, connection) && self.lock().take().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(PublicKey, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From the machine to itself both ends have the same address; nobody outside gets an answer sent to it.
fn is_own_address(peer: IpAddr, local: IpAddr) -> bool {
    peer.is_loopback() || peer == local
}

/// A key for probes, which lives in memory only.
pub fn new_key() -> Result<Arc<PrivateKey>, ProbeError> {
    let key = host_keys::generate(HostKeyType::Ed25519, USER).map_err(io::Error::other)?;
    Ok(Arc::new(key))
}

/// Logs in through the port on which the worker listens.
pub async fn log_in(config: &Config, key: &Arc<PrivateKey>) -> Result<(), ProbeError> {
    let mut last = ProbeError::NoAddress;
    for round in 0.. {
        let public = key.public_key().to_openssh().map_err(|error| io::Error::other(error.to_string()))?;
        let config = config.clone();
        let asked = aside(move || control::ask(&config, &Request::Probe { key: public }));
        let status = match asked.await.map_err(io::Error::other)?.map_err(ProbeError::Ask)? {
            Response::Status(status) => status,
            Response::Error(error) => return Err(ProbeError::Ask(io::Error::other(error))),
            _ => return Err(ProbeError::Ask(io::ErrorKind::InvalidData.into())),
        };
        // One at a time: the key is good for one login.
        let Some(address) = status.listening.iter().filter_map(|text| reachable(text)).nth(round) else {
            break;
        };
        match log_in_in_time(address, key, &status.host_keys).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Logs in at each listening address of this worker, again and again, and tells the service manager each time that all
/// of it went well: the supervisor feeds a hardware watchdog for that.
pub async fn keep_logging_in(server: Arc<Server>) {
    let (Some(interval), Ok(key)) = (server.settings().config.watchdog.login_interval(), new_key()) else {
        return std::future::pending().await;
    };
    loop {
        match log_in_everywhere(&server, &key).await {
            Ok(()) => systemd::tell("X_MYELIN_LOGIN=1"),
            Err(error) => warn!(%error, "nobody could log in now"),
        }
        sleep(interval).await;
    }
}

/// At least one address must answer. One that this machine has no more, as when a network went, says nothing.
async fn log_in_everywhere(server: &Server, key: &Arc<PrivateKey>) -> Result<(), ProbeError> {
    let mut result = Err(ProbeError::NoAddress);
    for address in server.listening().iter().filter_map(|text| reachable(text)) {
        server.probe.expect(key.public_key().clone());
        match log_in_in_time(address, key, &server.settings().fingerprints).await {
            Ok(()) => result = Ok(()),
            Err(ProbeError::Login { source: russh::Error::IO(error), .. }) if is_no_address(&error) => {}
            Err(error) => return Err(error),
        }
    }
    result
}

fn is_no_address(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable)
}

async fn log_in_in_time(
    address: SocketAddr,
    key: &Arc<PrivateKey>,
    host_keys: &[String],
) -> Result<(), ProbeError> {
    match timeout(LOGIN_LIMIT, log_in_at(address, Arc::clone(key), host_keys.to_vec())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(ProbeError::Login { address, source }),
        Err(_) => Err(ProbeError::TimedOut { address }),
    }
}

/// Where a listening address can be reached from here; `None` for other services and unbound sockets.
fn reachable(listening: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = listening.parse().ok()?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    (address.port() != 0).then_some(address)
}

async fn log_in_at(
    address: SocketAddr,
    key: Arc<PrivateKey>,
    host_keys: Vec<String>,
) -> Result<(), russh::Error> {
    let config = ClientConfig {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-MyelinProbe")),
        // Whatever the configuration of the server leaves.
        preferred: client::everything(),
        ..ClientConfig::default()
    };
    let stream = TcpStream::connect(address).await?;
    let mut session = client::connect(config, Box::new(stream), Box::new(Own { host_keys })).await?;
    let key = PrivateKeyWithHashAlg::new(key, None);
    if !matches!(session.authenticate_publickey(USER, key).await?, AuthResult::Success) {
        return Err(russh::Error::NotAuthenticated);
    }
    let mut channel = session.channel_open_session().await?;
    channel.request_subsystem(true, SUBSYSTEM).await?;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::ExitStatus { exit_status: 0 } => {
                let _ = session.disconnect(Disconnect::ByApplication, "", "en").await;
                return Ok(());
            }
            ChannelMsg::Failure => break,
            _ => {}
        }
    }
    Err(russh::Error::RequestDenied)
}

/// The keys that our own worker told us; nobody else has one of them.
struct Own {
    host_keys: Vec<String>,
}

impl Judge for Own {
    fn accepts(&mut self, key: &PublicKey) -> bool {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        self.host_keys.iter().any(|known| known.split(' ').any(|word| word == fingerprint))
    }
}

#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("the ssh worker does not answer on its control socket: {0}")]
    Ask(#[source] io::Error),
    #[error("the ssh worker listens nowhere yet")]
    NoAddress,
    #[error("no login at {address}: {source}")]
    Login { address: SocketAddr, source: russh::Error },
    #[error("no login at {address} within {} s", LOGIN_LIMIT.as_secs())]
    TimedOut { address: SocketAddr },
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listening_address_is_reached_from_here() {
        let of = |text: &str| reachable(text).map(|address| address.to_string());
        assert_eq!(of("0.0.0.0:22").as_deref(), Some("127.0.0.1:22"));
        assert_eq!(of("[::]:2222").as_deref(), Some("[::1]:2222"));
        assert_eq!(of("10.0.0.5:22").as_deref(), Some("10.0.0.5:22"));
        for none in ["0.0.0.0:0", "0.0.0.0:8989 (legacy)", "Invalid argument (os error 22)"] {
            assert_eq!(of(none), None);
        }
    }

    #[test]
    fn only_this_machine_has_the_same_address_at_both_ends() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_own_address(ip("127.0.0.1"), ip("127.0.0.1")));
        assert!(is_own_address(ip("::1"), ip("::1")));
        assert!(is_own_address(ip("10.0.0.5"), ip("10.0.0.5")));
        assert!(!is_own_address(ip("10.0.0.6"), ip("10.0.0.5")));
    }
}
