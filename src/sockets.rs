//! Listening sockets, made in steps: a socket can be held before its address is free, and no other user may reach
//! one of the file system for a moment.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, setsockopt, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

/// Connections that the kernel keeps for us while we are busy or being replaced.
const BACKLOG: i32 = 64;

/// A socket for one protocol: each family has one of its own, so that one works without the other.
pub fn tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = new(family)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(socket)
}

/// Gives the socket its address and listens there; port 0 is any free one.
pub fn listen(socket: &OwnedFd, address: SocketAddr) -> io::Result<SocketAddr> {
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(socket, Backlog::new(BACKLOG)?)?;
    let bound: SockaddrStorage = socket::getsockname(socket.as_raw_fd())?;
    let port = bound
        .as_sockaddr_in()
        .map(socket::SockaddrIn::port)
        .or_else(|| bound.as_sockaddr_in6().map(socket::SockaddrIn6::port));
    Ok(SocketAddr::new(address.ip(), port.unwrap_or(address.port())))
}

/// A socket of the file system with these permissions from its first moment on.
pub fn listen_at(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let socket = new(AddressFamily::Unix)?;
    // Linux makes the file with the mode that the socket has, less the umask, which is everybody's to change.
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn new(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(family, SockType::Stream, flags, None)
}
