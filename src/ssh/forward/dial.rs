//! Connections out: where they may lead, and making them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Duration, Instant, timeout_at};

use super::carry::Ends;
use super::{Refusal, Shared};
use crate::config::{Permit, socket_is_permitted};
use crate::ssh::authorized_keys::Options;
use crate::ssh::display;
use crate::ssh::server::Server;

/// For finding the addresses of a name and connecting to one of them.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest name that is looked up; DNS has none longer.
const MAX_HOST: usize = 255;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Where a client wants to be connected to.
pub enum Target {
    Port { host: String, port: u32 },
    Socket(String),
}

impl Target {
    /// What sshd_config(5), ChannelTimeout, calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Port { .. } => "direct-tcpip",
            Self::Socket(_) => "direct-streamlocal@openssh.com",
        }
    }

    /// Whether it may be tried at all; which addresses a name may have is seen when they are known.
    pub(super) fn check(&self, options: &Options, shared: &Shared) -> Result<Dial, Refusal> {
        shared.check(options.allow_port_forwarding())?;
        let ssh = &shared.settings.config.ssh;
        match self {
            Self::Port { .. } if !ssh.allow_tcp_forwarding.local() => {
                Err(Refusal::Prohibited("allow_tcp_forwarding does not include local"))
            }
            Self::Port { host, port } => {
                let port = u16::try_from(*port).ok().filter(|port| *port > 0);
                let port = port.ok_or(Refusal::Prohibited("no such port"))?;
                if host.len() > MAX_HOST || host.contains('\0') {
                    return Err(Refusal::Prohibited("no such host"));
                }
                let key = options.permit_open().map(<[Permit]>::to_vec);
                Ok(Dial::Port(Rules { host: host.clone(), port, configured: ssh.permit_open.clone(), key }))
            }
            Self::Socket(_) if !ssh.allow_stream_local_forwarding.local() => {
                Err(Refusal::Prohibited("allow_stream_local_forwarding does not include local"))
            }
            Self::Socket(_) if !shared.is_ours() => Err(Refusal::NOT_ROOT),
            Self::Socket(path)
                if options.permit_open().is_none() && socket_is_permitted(&ssh.permit_socket, path) =>
            {
                Ok(Dial::Socket(path.clone()))
            }
            Self::Socket(_) => {
                Err(Refusal::Prohibited("not in permit_socket, or not in permitopen= of the key"))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } if host.contains(':') => write!(f, "[{}]:{port}", display::name(host)),
            Self::Port { host, port } => write!(f, "{}:{port}", display::name(host)),
            Self::Socket(path) => f.write_str(&display::name(path)),
        }
    }
}

/// A connection that may be made.
pub enum Dial {
    Port(Rules),
    Socket(String),
}

impl Dial {
    pub async fn connect(&self, server: &Server) -> Result<Ends, Refusal> {
        match self {
            Self::Port(rules) => rules.connect(server).await,
            // It answers or it does not: there is nothing to wait for.
            Self::Socket(path) => Ok(UnixStream::connect(path).await?.into()),
        }
    }
}

/// A host and a port, and which of its addresses are permitted.
pub struct Rules {
    host: String,
    port: u16,
    configured: Vec<Permit>,
    /// What the client's key narrows that to.
    key: Option<Vec<Permit>>,
}

impl Rules {
    /// Tries the permitted addresses of the host, one after the other.
    async fn connect(&self, server: &Server) -> Result<Ends, Refusal> {
        let deadline = Instant::now() + CONNECT_LIMIT;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let found = timeout_at(deadline, self.addresses(server)).await.map_err(|_| late())??;
        let permitted: Vec<_> = found.into_iter().filter(|address| self.permits(address.ip())).collect();
        let mut failure = Refusal::Prohibited("not in permit_open, or not in permitopen= of the key");
        for (left, address) in (1..=permitted.len()).rev().zip(&permitted) {
            // One that does not answer leaves time for the others.
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream.into()),
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = late().into(),
            }
        }
        Err(failure)
    }

    fn permits(&self, address: IpAddr) -> bool {
        let name = self.host.parse::<IpAddr>().is_err().then_some(self.host.as_str());
        let permits = |rules: &[Permit]| rules.iter().any(|rule| rule.matches(name, address, self.port));
        permits(&self.configured) && self.key.as_deref().is_none_or(permits)
    }

    /// The addresses of the host. They are looked up once: what is checked is what is connected to.
    async fn addresses(&self, server: &Server) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address.to_canonical(), self.port)]);
        }
        // As RFC 6761 section 6.3 has it, and whether or not the image has an /etc/hosts.
        if self.host.eq_ignore_ascii_case("localhost") {
            let both: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            return Ok(both.map(|address| SocketAddr::new(address, self.port)).to_vec());
        }
        let (host, port) = (self.host.clone(), self.port);
        let look_up = move || (host.as_str(), port).to_socket_addrs();
        let found = server.look_up(Box::new(look_up)).await?;
        Ok(found
            .take(MAX_ADDRESSES)
            .map(|mut address| {
                // A mapped one is the IPv4 address to the kernel, and to the rules.
                if let canonical @ IpAddr::V4(_) = address.ip().to_canonical() {
                    address.set_ip(canonical);
                }
                address
            })
            .collect())
    }
}
