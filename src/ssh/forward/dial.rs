//! Connections out: where they may lead, and making them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout_at};

use super::carry::Ends;
use super::{Refusal, Shared};
use crate::config::Permit;
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
pub struct Target {
    host: String,
    port: u32,
}

impl Target {
    pub fn port(host: &str, port: u32) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// Whether it may be tried at all; which addresses it may be is seen when they are known.
    pub(super) fn check(&self, options: &Options, shared: &Shared) -> Result<Dial, Refusal> {
        shared.check(options)?;
        let ssh = &shared.settings.config.ssh;
        if !ssh.allow_tcp_forwarding.local() {
            return Err(Refusal::Prohibited("allow_tcp_forwarding does not include local"));
        }
        let port = u16::try_from(self.port).ok().filter(|port| *port > 0);
        let port = port.ok_or(Refusal::Prohibited("no such port"))?;
        if self.host.len() > MAX_HOST || self.host.contains('\0') {
            return Err(Refusal::Prohibited("no such host"));
        }
        let key = options.permit_open().map(<[Permit]>::to_vec);
        Ok(Dial { host: self.host.clone(), port, configured: ssh.permit_open.clone(), key })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = display::name(&self.host);
        if host.contains(':') {
            write!(f, "[{host}]:{}", self.port)
        } else {
            write!(f, "{host}:{}", self.port)
        }
    }
}

/// A connection to be made, and the rules for it.
pub struct Dial {
    host: String,
    port: u16,
    configured: Vec<Permit>,
    /// What the client's key narrows that to.
    key: Option<Vec<Permit>>,
}

impl Dial {
    /// Tries the permitted addresses of the host, one after the other.
    pub async fn connect(&self, server: &Server) -> Result<Ends, Refusal> {
        let deadline = Instant::now() + CONNECT_LIMIT;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let found = timeout_at(deadline, self.addresses(server)).await.map_err(|_| late())??;
        let permitted: Vec<_> = found.into_iter().filter(|address| self.permits(address.ip())).collect();
        let mut failure = Refusal::Prohibited("not in permit_open, or in that of the key");
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
