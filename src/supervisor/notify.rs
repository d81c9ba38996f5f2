//! The service manager's side of sd_notify(3): what workers say of themselves.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr,
    setsockopt, sockopt,
};
use nix::unistd::Pid;

/// The longest message that is read; ours are a few dozen bytes.
const MAX_MESSAGE: usize = 512;

/// A datagram socket with a name of the kernel's choice (unix(7), autobind): it needs no writable folder.
/// Anybody may send to it, so each message comes with the sender's credentials.
pub struct NotifySocket {
    socket: OwnedFd,
    path: OsString,
}

/// What a worker said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// It serves (`READY=1`).
    pub ready: bool,
    /// It has done its work once (`X_MYELIN_SERVED=1`): its death calls for no back-off.
    pub served: bool,
    /// A login worked at each listening address (`X_MYELIN_LOGIN=1`).
    pub login: bool,
}

impl NotifySocket {
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket::bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        let bound: UnixAddr = socket::getsockname(socket.as_raw_fd())?;
        let name = bound.as_abstract().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let path = OsString::from_vec([b"@", name].concat());
        Ok(Self { socket, path })
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What `NOTIFY_SOCKET` has to be for this socket.
    pub fn path(&self) -> &OsString {
        &self.path
    }

    /// The next message of one of `workers`; what others send is passed over. `None` when there is no more.
    pub fn receive(&self, workers: &[Pid]) -> Option<(Pid, Message)> {
        loop {
            let mut text = [0; MAX_MESSAGE];
            let mut control = nix::cmsg_space!(libc::ucred);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let (sender, length) = {
                let fd = self.socket.as_raw_fd();
                let received =
                    socket::recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags).ok()?;
                let sender = received.cmsgs().ok()?.find_map(|message| match message {
                    ControlMessageOwned::ScmCredentials(credentials) => {
                        Some(Pid::from_raw(credentials.pid()))
                    }
                    _ => None,
                });
                (sender, received.bytes)
            };
            if let Some(sender) = sender.filter(|sender| workers.contains(sender)) {
                return Some((sender, parse(text.get(..length).unwrap_or_default())));
            }
        }
    }
}

fn parse(text: &[u8]) -> Message {
    let mut message = Message::default();
    for line in text.split(|&byte| byte == b'\n') {
        match line {
            b"READY=1" => message.ready = true,
            b"X_MYELIN_SERVED=1" => message.served = true,
            b"X_MYELIN_LOGIN=1" => message.login = true,
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_worker_is_heard() {
        let socket = NotifySocket::open().unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let name = &socket.path().as_encoded_bytes()[1..];
        let address =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
        sender.send_to_addr(b"READY=1\nX=2", &address.unwrap()).unwrap();
        assert_eq!(socket.receive(&[Pid::from_raw(1)]), None);
        let address =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
        sender.send_to_addr(b"READY=1\nX=2", &address.unwrap()).unwrap();
        let said = Message { ready: true, ..Message::default() };
        assert_eq!(socket.receive(&[Pid::from_raw(1), Pid::this()]), Some((Pid::this(), said)));
        assert_eq!(socket.receive(&[Pid::this()]), None);
    }
}
