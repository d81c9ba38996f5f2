//! The interfaces of this machine, and packets to and from single ones of them.
//!
//! One socket for each address family, with the port shared, so that another responder on this machine keeps
//! working. Which interface a packet comes from and goes to is said beside it (`IP_PKTINFO`, ip(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage,
    setsockopt, sockopt,
};
use tracing::debug;

use super::message::MAX_PACKET;
use super::responder::{Interface, PORT};

pub const IPV4_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub const IPV6_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Interfaces that are served; the kernel lets a socket join 20 groups.
const MAX_INTERFACES: usize = 16;
/// Addresses of one interface, so that all of them fit into one packet.
const MAX_ADDRESSES: usize = 8;
/// What is received from the network stays there: it says that nobody beyond a router has seen the packet.
const HOPS: libc::c_int = 255;

/// Those that a neighbour could be on, with their addresses. Never the loopback alone.
pub fn interfaces() -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    for entry in entries {
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_MULTICAST;
        let unwanted = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT;
        if !entry.flags.contains(wanted) || entry.flags.intersects(unwanted) {
            continue;
        }
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let bits = match entry.netmask.as_ref().and_then(ip) {
            Some(IpAddr::V4(mask)) => mask.to_bits().count_ones(),
            Some(IpAddr::V6(mask)) => mask.to_bits().count_ones(),
            None => u128::BITS,
        };
        let name = entry.interface_name;
        if !found.iter().any(|interface| interface.name == name)
            && found.len() < MAX_INTERFACES
            && let Ok(index) = if_nametoindex(name.as_str())
        {
            found.push(Interface { index, name: name.clone(), addresses: Vec::new() });
        }
        if let Some(interface) = found.iter_mut().find(|interface| interface.name == name)
            && interface.addresses.len() < MAX_ADDRESSES
        {
            interface.addresses.push((address, u8::try_from(bits).unwrap_or(128)));
        }
    }
    found
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// A packet that came in.
pub struct Received {
    pub interface: u32,
    pub source: SocketAddr,
    pub bytes: Vec<u8>,
}

/// The sockets; those of families that this machine does not have are missing.
pub struct Sockets {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
}

impl Sockets {
    /// For a responder on these interfaces: hears everything that is said to the groups.
    pub fn listening(interfaces: &[Interface]) -> io::Result<Self> {
        let sockets = Self::open(PORT)?;
        for interface in interfaces {
            let address = interface.addresses.iter().find_map(|(address, _)| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            });
            let joined = [
                sockets
                    .ipv4
                    .as_ref()
                    .zip(address)
                    .map(|(socket, at)| socket.join_multicast_v4(&IPV4_GROUP, at)),
                sockets.ipv6.as_ref().map(|socket| socket.join_multicast_v6(&IPV6_GROUP, interface.index)),
            ];
            for error in joined.into_iter().flatten().filter_map(Result::err) {
                debug!(interface = interface.name, %error, "cannot join the group");
            }
        }
        Ok(sockets)
    }

    /// For somebody who asks: hears the answers to him.
    pub fn asking() -> io::Result<Self> {
        Self::open(0)
    }

    fn open(port: u16) -> io::Result<Self> {
        let ipv4 = open_family(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        let ipv6 = open_family(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
        match (ipv4, ipv6) {
            (Err(error), Err(_)) => Err(error),
            (ipv4, ipv6) => Ok(Self { ipv4: ipv4.ok(), ipv6: ipv6.ok() }),
        }
    }

    /// What to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.ipv4, &self.ipv6].into_iter().flatten().map(AsFd::as_fd)
    }

    /// A packet that is there; `None` when there is no more.
    pub fn receive(&self) -> Option<Received> {
        [&self.ipv4, &self.ipv6].into_iter().flatten().find_map(receive)
    }

    /// What cannot be sent is lost, as anything may be on a network.
    pub fn send(&self, interface: u32, to: SocketAddr, bytes: &[u8]) {
        let socket = if to.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let Some(socket) = socket else { return };
        let parts = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let address = SockaddrStorage::from(to);
        let zero = libc::in_addr { s_addr: 0 };
        let v4 =
            libc::in_pktinfo { ipi_ifindex: interface.cast_signed(), ipi_spec_dst: zero, ipi_addr: zero };
        let v6 =
            libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: [0; 16] }, ipi6_ifindex: interface };
        let control = match to {
            SocketAddr::V4(_) => [ControlMessage::Ipv4PacketInfo(&v4)],
            SocketAddr::V6(_) => [ControlMessage::Ipv6PacketInfo(&v6)],
        };
        if let Err(error) = socket::sendmsg(socket.as_raw_fd(), &parts, &control, flags, Some(&address)) {
            debug!(interface, %to, %error, "cannot send");
        }
    }

    /// To the groups of the families that are wanted.
    pub fn send_to_groups(&self, interface: u32, families: (bool, bool), bytes: &[u8]) {
        if families.0 {
            self.send(interface, SocketAddr::new(IPV4_GROUP.into(), PORT), bytes);
        }
        if families.1 {
            self.send(interface, SocketAddrV6::new(IPV6_GROUP, PORT, 0, interface).into(), bytes);
        }
    }
}

fn open_family(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Datagram, flags, None)?;
    if address.port() != 0 {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::IpMulticastTtl, &u8::MAX)?;
        setsockopt(&socket, sockopt::Ipv4Ttl, &HOPS)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOPS)?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &HOPS)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket.into())
}

fn receive(socket: &UdpSocket) -> Option<Received> {
    // One byte more shows a packet that is too long.
    let mut bytes = vec![0; MAX_PACKET + 1];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let (length, source, interface) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let received = socket::recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags).ok()?;
        let interface = received.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
            _ => None,
        });
        (received.bytes, received.address, interface)
    };
    let source = source?;
    let source = match (source.as_sockaddr_in(), source.as_sockaddr_in6()) {
        (Some(address), _) => SocketAddr::new(address.ip().into(), address.port()),
        (_, Some(address)) => SocketAddrV6::new(address.ip(), address.port(), 0, address.scope_id()).into(),
        _ => return None,
    };
    bytes.truncate(length);
    // Without an interface it cannot be answered, and is passed over as one that nobody sits on.
    Some(Received { interface: interface.unwrap_or(0), source, bytes })
}
