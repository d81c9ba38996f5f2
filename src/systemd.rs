//! The client side of three systemd protocols: sockets by `LISTEN_FDS` (sd_listen_fds(3)), state by
//! `NOTIFY_SOCKET` (sd_notify(3)), and `WATCHDOG_USEC` (sd_watchdog_enabled(3)).
//!
//! The supervisor speaks the other side to its workers, so these run the same under systemd's own units.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

/// The first descriptor that is passed (sd_listen_fds(3)).
pub const FIRST_FD: RawFd = 3;
/// More sockets than this are a mistake of the caller, not a configuration.
const MAX_FDS: RawFd = 64;
/// What the protocols leave in the environment; it speaks to this process and not to its children.
const VARIABLES: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

static SERVICE: OnceLock<Service> = OnceLock::new();

#[derive(Default)]
struct Service {
    notify_socket: Option<OsString>,
    watchdog: Option<Duration>,
}

/// A descriptor that was passed to this process, and its name from `LISTEN_FDNAMES`.
pub struct PassedFd {
    pub fd: OwnedFd,
    pub name: String,
}

/// Takes what a service manager passed to this process, out of the environment, so that no child takes it for
/// its own. Call it once, before there are threads and before anything else opens files.
pub fn take_environment() -> Vec<PassedFd> {
    let fds = take_listen_fds();
    let service = Service { notify_socket: std::env::var_os("NOTIFY_SOCKET"), watchdog: take_watchdog() };
    let _ = SERVICE.set(service);
    for name in VARIABLES {
        // SAFETY: the process has one thread yet, as the caller promises.
        unsafe { std::env::remove_var(name) };
    }
    fds
}

fn take_listen_fds() -> Vec<PassedFd> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    if number("LISTEN_PID") != Some(std::process::id().cast_signed()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MAX_FDS);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (FIRST_FD..FIRST_FD + count)
        .filter_map(|fd| {
            let name = names.next().unwrap_or_default().to_owned();
            crate::sys::set_cloexec(fd).ok()?;
            // SAFETY: the protocol hands these descriptors to this process alone; they are open (fcntl
            // succeeded), and nothing else of ours owns them, as this runs once and first.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            Some(PassedFd { fd, name })
        })
        .collect()
}

fn take_watchdog() -> Option<Duration> {
    let microseconds = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let for_another = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string());
    (!for_another).then(|| Duration::from_micros(microseconds))
}

/// Tells the service manager and never fails: one that cannot be told will restart us, which is no reason to end now.
pub fn tell(state: &str) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, state, "cannot tell the service manager");
    }
}

/// Says `WATCHDOG=1` three times within each interval that the service manager watches; waits for ever when it
/// does not.
pub async fn give_signs_of_life() {
    let Some(limit) = watchdog_interval() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(limit / 3);
    loop {
        ticks.tick().await;
        tell("WATCHDOG=1");
    }
}

/// Tells the service manager, when there is one. Lines as in sd_notify(3), such as `READY=1`.
pub fn notify(state: &str) -> io::Result<()> {
    // Kept open: a process that has run out of descriptors must still be able to say that it lives.
    static SOCKET: OnceLock<UnixDatagram> = OnceLock::new();
    let Some(path) = SERVICE.get().and_then(|service| service.notify_socket.as_ref()) else { return Ok(()) };
    let socket = match SOCKET.get() {
        Some(socket) => socket,
        None => {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not stop what logs people in.
            socket.set_nonblocking(true)?;
            SOCKET.get_or_init(|| socket)
        }
    };
    socket.send_to_addr(state.as_bytes(), &address(path)?)?;
    Ok(())
}

fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}

/// How often the service manager wants to hear `WATCHDOG=1`, if at all.
pub fn watchdog_interval() -> Option<Duration> {
    SERVICE.get().and_then(|service| service.watchdog)
}
