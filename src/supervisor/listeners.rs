//! The listening sockets. The supervisor makes them, keeps them and hands them to every worker.
//!
//! A socket is handed over even while its address cannot be bound: binding and listening act on the socket
//! itself, whoever holds it, so a worker that is already running answers there as soon as the address is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{error, info, warn};

use crate::config::{AddressFamily, Ssh, split_port};
use crate::sockets;

/// Sockets are kept at or above this number, out of the way of those that exec hands over (3, 4, …).
const LOWEST_FD: i32 = 64;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// One socket, bound or still waiting for its address.
pub struct Listener {
    socket: OwnedFd,
    /// `LISTEN_FDNAMES` tells the worker by this what the socket is for.
    pub name: &'static str,
    address: SocketAddr,
    retry: Option<Retry>,
}

struct Retry {
    at: Instant,
    wait: Duration,
    failures: u32,
}

impl Listener {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// When to call `bind_due` next, if the address is not bound yet.
    pub fn next_retry(&self) -> Option<Instant> {
        self.retry.as_ref().map(|retry| retry.at)
    }

    /// Tries again to bind an address that could not be bound.
    pub fn bind_due(&mut self, now: Instant) {
        if let Some(retry) = &mut self.retry
            && retry.at <= now
        {
            match sockets::listen(&self.socket, self.address) {
                Ok(_) => {
                    info!(address = %self.address, "ssh.listen");
                    self.retry = None;
                }
                Err(error) => {
                    retry.wait = (retry.wait * 2).min(LONGEST_RETRY);
                    retry.at = now + retry.wait;
                    retry.failures += 1;
                    if retry.failures.is_multiple_of(10) {
                        error!(address = %self.address, %error, failures = retry.failures, "still cannot listen there");
                    }
                }
            }
        }
    }
}

/// Makes the sockets that the configuration asks for and binds those it can.
pub fn open(ssh: &Ssh, now: Instant) -> Vec<Listener> {
    let mut listeners = open_port(ssh, "ssh", ssh.port, now);
    if listeners.is_empty() && !ssh.listen_address.is_empty() {
        // Such as `::1` alone on a kernel without IPv6.
        error!("no listen_address can ever be used on this device; listening on all of them");
        listeners = open_port(&Ssh { listen_address: Vec::new(), ..ssh.clone() }, "ssh", ssh.port, now);
    }
    if ssh.legacy.enabled {
        listeners.extend(open_port(ssh, "legacy", ssh.legacy.port, now));
    }
    listeners
}

fn open_port(ssh: &Ssh, name: &'static str, port: u16, now: Instant) -> Vec<Listener> {
    // Port 0 means any free one, but the same on every address.
    let mut port = port;
    let mut listeners = Vec::new();
    let mut addresses = addresses(ssh);
    if name == "legacy" {
        // Its port is one for all.
        addresses.iter_mut().for_each(|address| address.set_port(0));
        addresses.sort();
        addresses.dedup();
    }
    for mut address in addresses {
        let has_own_port = address.port() != 0;
        if !has_own_port {
            address.set_port(port);
        }
        let socket = match open_socket(address) {
            Ok(socket) => socket,
            Err(Errno::EAFNOSUPPORT) => {
                info!(%address, "the kernel does not have this protocol; listening without it");
                continue;
            }
            Err(error) => {
                error!(%address, %error, "cannot make a socket");
                continue;
            }
        };
        let retry = match sockets::listen(&socket, address) {
            Ok(bound) => {
                if !has_own_port {
                    port = bound.port();
                }
                info!(address = %bound, "ssh.listen");
                address = bound;
                None
            }
            Err(error) => {
                error!(%address, %error, "cannot listen there; trying again until it works");
                Some(Retry { at: now + FIRST_RETRY, wait: FIRST_RETRY, failures: 1 })
            }
        };
        listeners.push(Listener { socket, name, address, retry });
    }
    listeners
}

/// The addresses to listen on; port 0 is that of `ssh.port`. What cannot be understood is left out with a warning;
/// when nothing is left, all addresses are meant, for a device that listens nowhere is lost.
fn addresses(ssh: &Ssh) -> Vec<SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let all = match ssh.address_family {
        AddressFamily::Any => vec![v4, v6],
        AddressFamily::Inet => vec![v4],
        AddressFamily::Inet6 => vec![v6],
    };
    let mut found = Vec::new();
    for text in &ssh.listen_address {
        let (address, port) = split_port(text).unwrap_or((text, None));
        let meant = match address {
            "*" => all.clone(),
            "localhost" => vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()],
            _ => parse_address(address).into_iter().collect(),
        };
        if meant.is_empty() {
            warn!(listen_address = text, "not an IP address of this device; ignored");
        }
        found.extend(meant.into_iter().map(|mut address| {
            address.set_port(port.unwrap_or_default());
            address
        }));
    }
    found.dedup();
    if found.is_empty() { all } else { found }
}

/// An IP address, in brackets or not, with a zone for link-local ones: `fe80::1%eth0`.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Some((address, zone)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = nix::net::if_::if_nametoindex(zone).ok()?;
        return Some(SocketAddrV6::new(address, 0, 0, scope).into());
    }
    Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 0))
}

fn open_socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = sockets::tcp(address)?;
    match nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(LOWEST_FD)) {
        // SAFETY: fcntl has just made this descriptor for us.
        Ok(fd) => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }),
        // The limit of descriptors is that low. The number it has does as well: sockets are made and moved in
        // ascending order, so none is moved onto one that still waits.
        Err(_) => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_brackets_and_zones() {
        assert_eq!(parse_address("127.0.0.1"), Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        assert_eq!(parse_address("[::1]"), Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))));
        assert!(parse_address("fe80::1%lo").is_some_and(|a| a.to_string().contains("%1")));
        assert_eq!(parse_address("example.com"), None);
    }

    #[test]
    fn addresses_may_have_ports_of_their_own() {
        let listen_address =
            ["127.0.0.1", "127.0.0.2:2022", "*:3022", "[::1]:4022", "::1"].map(String::from).to_vec();
        let ssh = Ssh { listen_address, port: 22, ..Ssh::default() };
        let found: Vec<String> = addresses(&ssh).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["127.0.0.1:0", "127.0.0.2:2022", "0.0.0.0:3022", "[::]:3022", "[::1]:4022", "[::1]:0"]
        );
    }

    #[test]
    fn nonsense_still_listens_everywhere() {
        let ssh = Ssh { listen_address: vec!["nowhere".into()], ..Ssh::default() };
        assert_eq!(addresses(&ssh).len(), 2);
    }

    #[test]
    fn a_taken_port_is_bound_once_it_is_free() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let ssh = Ssh { listen_address: vec!["127.0.0.1".into()], port, ..Ssh::default() };
        let now = Instant::now();
        let mut listeners = open(&ssh, now);
        assert!(listeners[0].next_retry().is_some());
        drop(holder);
        listeners[0].bind_due(now);
        assert!(listeners[0].next_retry().is_some(), "it is not due yet");
        listeners[0].bind_due(now + FIRST_RETRY);
        assert!(listeners[0].next_retry().is_none());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
}
