//! Connections in: sockets that a client has us listen on, until it takes that back or its connection ends.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use russh::server::Handle;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep;
use tracing::debug;

use super::carry::{self, Ends};
use super::socket::Named;
use super::{Place, Refusal, Shared};
use crate::config::{GatewayPorts, Permit};
use crate::sockets;
use crate::ssh::authorized_keys::Options;
use crate::ssh::display;

/// After a failed accept: descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest address that is understood: an IPv6 address with a zone.
const MAX_ADDRESS: usize = 64;
/// How often a port is looked for that is free for both protocols.
const PORT_TRIES: usize = 8;
/// Those below are root's (IPPORT_RESERVED).
const FIRST_FREE_PORT: u16 = 1024;
/// How many turns of the loop a task may take to end; it needs one.
const MAX_TURNS: usize = 100;

/// Where a client has us listen, in its own words: what comes in is announced with them, and they end it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Asked {
    Port {
        address: String,
        port: u32,
    },
    Socket(String),
    /// For its agent, on a socket that we choose.
    Agent,
}

impl Asked {
    /// What sshd_config(5), ChannelTimeout, calls a connection from there.
    fn kind(&self) -> &'static str {
        match self {
            Self::Port { .. } => "forwarded-tcpip",
            Self::Socket(_) => "forwarded-streamlocal@openssh.com",
            Self::Agent => "agent-connection",
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { address, port } => write!(f, "{}:{port}", display::name(address)),
            Self::Socket(path) => f.write_str(&display::name(path)),
            Self::Agent => f.write_str("agent"),
        }
    }
}

/// A socket that listens; dropping this ends it.
pub struct Listening {
    tasks: Vec<AbortHandle>,
    _place: Place,
}

impl Listening {
    pub(super) fn start(
        shared: &Arc<Shared>,
        handle: &Handle,
        asked: &Asked,
        listeners: Vec<Listener>,
        place: Place,
    ) -> Self {
        let start = |listener| {
            let accept = accept(Arc::clone(shared), handle.clone(), asked.clone(), listener);
            shared.connection.spawn(accept)
        };
        Self { tasks: listeners.into_iter().map(start).collect(), _place: place }
    }

    /// Ends it, and waits until the address is free: the client's next request may be for the same.
    pub async fn end(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        for _ in 0..MAX_TURNS {
            if self.tasks.iter().all(AbortHandle::is_finished) {
                return;
            }
            yield_now().await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A socket of either kind.
pub enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its name goes when it does.
        _name: Named,
    },
}

impl Listener {
    /// The next connection, and from where it comes.
    async fn accept(&self) -> io::Result<(Ends, String, u32)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((stream.into(), peer.ip().to_canonical().to_string(), peer.port().into()))
            }
            Self::Unix { listener, .. } => Ok((listener.accept().await?.0.into(), String::new(), 0)),
        }
    }
}

/// Passes every connection on to the client, as long as there are places.
async fn accept(shared: Arc<Shared>, handle: Handle, asked: Asked, listener: Listener) {
    loop {
        let Ok((ends, origin, port)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (peer, target) = (shared.connection.peer, asked.to_string());
        match shared.place() {
            Ok(place) => {
                debug!(%peer, target, origin, "a connection to forward");
                let (shared, handle, asked) = (Arc::clone(&shared), handle.clone(), asked.clone());
                let connection = Arc::clone(&shared.connection);
                connection.spawn(async move {
                    let _place = place;
                    pass_on(&shared, handle, asked, ends, (origin, port)).await;
                });
            }
            Err(refusal) => debug!(%peer, target, origin, %refusal, "a connection is not forwarded"),
        }
    }
}

/// Offers a connection to the client. It may take as long as it likes: it is its own place that it keeps.
async fn pass_on(shared: &Arc<Shared>, handle: Handle, asked: Asked, ends: Ends, origin: (String, u32)) {
    let kind = asked.kind();
    let opened = match asked {
        Asked::Port { address, port } => {
            handle.channel_open_forwarded_tcpip(address, port, origin.0, origin.1).await
        }
        Asked::Socket(path) => handle.channel_open_forwarded_streamlocal(path).await,
        Asked::Agent => handle.channel_open_agent().await,
    };
    match opened {
        Ok(channel) => carry::carry(shared, kind, channel, handle, ends).await,
        Err(error) => {
            debug!(peer = %shared.connection.peer, %error, "the client takes no forwarded connection")
        }
    }
}

/// Listens where the client asks for, if it may, and says on which port.
pub fn on_port(
    shared: &Shared,
    options: &Options,
    address: &str,
    port: u32,
) -> Result<(Vec<Listener>, u16), Refusal> {
    shared.check(options.allow_port_forwarding())?;
    let ssh = &shared.settings.config.ssh;
    if !ssh.allow_tcp_forwarding.remote() {
        return Err(Refusal::Prohibited("allow_tcp_forwarding does not include remote"));
    }
    let port = u16::try_from(port).map_err(|_| Refusal::Prohibited("no such port"))?;
    if (1..FIRST_FREE_PORT).contains(&port) && !shared.is_ours() {
        return Err(Refusal::Prohibited("ports below 1024 are root's"));
    }
    let addresses = addresses(address, ssh.gateway_ports)
        .ok_or(Refusal::Prohibited("not an IP address; names are not looked up to listen"))?;
    let permitted =
        |rules: &[Permit]| addresses.iter().all(|at| rules.iter().any(|rule| rule.matches(None, *at, port)));
    if !permitted(&ssh.permit_listen) || !options.permit_listen().is_none_or(permitted) {
        return Err(Refusal::Prohibited("not in permit_listen, or in that of the key"));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match bind(&addresses, port) {
            // The port that was free for one protocol was not for the other.
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {}
            bound => return Ok(bound?),
        }
    }
}

/// The addresses that a request means: RFC 4254 section 7.1, and `GatewayPorts` of sshd_config(5).
fn addresses(asked: &str, gateway_ports: GatewayPorts) -> Option<Vec<IpAddr>> {
    let (any, loopback) = (
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].to_vec(),
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].to_vec(),
    );
    if asked.len() > MAX_ADDRESS {
        return None;
    }
    let address = asked.parse::<IpAddr>().ok();
    match gateway_ports {
        GatewayPorts::Yes => Some(any),
        GatewayPorts::No => {
            Some(address.filter(|address| loopback.contains(address)).map_or(loopback, |a| vec![a]))
        }
        GatewayPorts::ClientSpecified => match asked {
            "" | "*" => Some(any),
            "localhost" => Some(loopback),
            _ => address.map(|address| vec![address]),
        },
    }
}

/// One socket for each address, all on one port. A protocol that the kernel does not have is left out.
fn bind(addresses: &[IpAddr], port: u16) -> io::Result<(Vec<Listener>, u16)> {
    let (mut listeners, mut port) = (Vec::new(), port);
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let bound = sockets::tcp(address)
            .map_err(io::Error::from)
            .and_then(|socket| sockets::listen(&socket, address).map(|bound| (socket, bound)));
        match bound {
            Ok((socket, bound)) => {
                port = bound.port();
                listeners.push(Listener::Tcp(TcpListener::from_std(StdTcpListener::from(socket))?));
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                missing = error;
            }
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok((listeners, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(asked: &str, gateway_ports: GatewayPorts) -> String {
        let shown = |found: Vec<IpAddr>| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        addresses(asked, gateway_ports).map_or_else(|| "none".into(), shown)
    }

    #[test]
    fn gateway_ports_decides_what_an_address_means() {
        let (no, yes, specified) = (GatewayPorts::No, GatewayPorts::Yes, GatewayPorts::ClientSpecified);
        for (asked, closed, chosen) in [
            ("", "127.0.0.1 ::1", "0.0.0.0 ::"),
            ("*", "127.0.0.1 ::1", "0.0.0.0 ::"),
            ("localhost", "127.0.0.1 ::1", "127.0.0.1 ::1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("::1", "::1", "::1"),
            ("0.0.0.0", "127.0.0.1 ::1", "0.0.0.0"),
            ("10.0.0.1", "127.0.0.1 ::1", "10.0.0.1"),
            ("host.lan", "127.0.0.1 ::1", "none"),
        ] {
            assert_eq!(
                (shown(asked, no), shown(asked, specified)),
                (closed.into(), chosen.into()),
                "{asked}"
            );
            assert_eq!(shown(asked, yes), "0.0.0.0 ::");
        }
    }

    #[tokio::test]
    async fn both_protocols_get_the_same_free_port() {
        let both = addresses("localhost", GatewayPorts::No).unwrap();
        let (listeners, port) = bind(&both, 0).unwrap();
        assert!(port > 0 && !listeners.is_empty());
        assert_eq!(bind(&both, port).map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(bind(&both, port).is_ok());
    }
}
