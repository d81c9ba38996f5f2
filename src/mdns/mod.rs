//! The mdns worker: the device says what it is called and where, so that nobody has to know its address.
//!
//! It has no part in logins and updates. It reads packets of strangers, so that it gives up being root first, and is
//! the first of our processes that dies for memory.

pub mod browse;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod message;
mod records;
pub mod responder;
pub mod sockets;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Uid, getppid, setgid, setgroups, setuid};
use tracing::{error, info, warn};

use self::records::Identity;
use self::responder::{Packet, Responder};
use self::sockets::Sockets;
use crate::config::{self, Config, Source};
use crate::firmware::status::Status;
use crate::{logging, sys, systemd};

pub const OOM_SCORE: &[u8] = b"0";
/// How often the interfaces and their addresses are looked at.
const LOOK: Duration = Duration::from_secs(4);
/// Packets that are read in a row; those who send more must not keep us from our own clock.
const MAX_PACKETS: usize = 64;
/// Nobody's rights.
const NOBODY: u32 = 65534;

/// `myelin worker mdns`. Exit status 0 when there is nothing to announce, or when told to end.
pub fn main(source: &Source) -> ExitCode {
    sys::set_process_name(c"myelin: mdns");
    drop(systemd::take_environment());
    let config = config::load(source).config;
    logging::start(&config);
    sys::set_oom_score(OOM_SCORE);
    if !config.mdns.announce {
        return ExitCode::SUCCESS;
    }
    if config.ssh.port == 0 {
        warn!("nothing is announced: ssh.port is 0, any free one; give it a number");
        return ExitCode::SUCCESS;
    }
    let identity = identity(&config);
    // It may hold passwords.
    drop(config);
    let done = catch_signals().and_then(|signals| {
        give_up_rights()?;
        serve(&signals, identity)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the device cannot be announced");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is announced, as it is at the start.
fn identity(config: &Config) -> Identity {
    let status = Status::collect(config);
    let host = nix::unistd::gethostname().unwrap_or_default();
    let serial = status.serial_number.as_deref();
    let label = records::label(&config.mdns.host_name, serial, &host.to_string_lossy());
    let slot = status.running.map(|slot| status.slots.of(slot));
    let mut facts = vec![("myelin", env!("CARGO_PKG_VERSION"))];
    let more = [
        ("product", slot.and_then(|slot| slot.product.as_deref())),
        ("version", slot.and_then(|slot| slot.version.as_deref())),
        ("platform", slot.and_then(|slot| slot.platform.as_deref())),
        ("serial", serial),
    ];
    facts.extend(more.into_iter().filter_map(|(key, value)| Some((key, value?))));
    Identity::new(&label, config.ssh.port, &facts)
}

fn catch_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn give_up_rights() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    if Uid::effective().is_root() {
        let parent = getppid();
        setgroups(&[])?;
        setgid(Gid::from_raw(NOBODY))?;
        setuid(Uid::from_raw(NOBODY))?;
        // The kernel forgets it when rights change (prctl(2), PR_SET_PDEATHSIG).
        sys::die_with_parent(libc::SIGTERM, parent.as_raw())?;
    }
    Ok(())
}

fn serve(signals: &SignalFd, identity: Identity) -> io::Result<()> {
    let seed = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
    let mut responder = Responder::new(identity, seed);
    let mut interfaces = Vec::new();
    let mut sockets: Option<Sockets> = None;
    let (mut next_look, mut host) = (Instant::now(), String::new());
    let mut at_rest = false;
    systemd::tell("READY=1");
    loop {
        let now = Instant::now();
        if next_look <= now {
            // That this loop turns is what the sign of life says.
            systemd::tell("WATCHDOG=1");
            next_look = now + LOOK;
            let found = sockets::interfaces();
            if found != interfaces || sockets.is_none() {
                // Anew, because the kernel remembers interfaces that are gone, up to a limit.
                sockets = if found.is_empty() { None } else { Some(Sockets::listening(&found)?) };
                responder.set_interfaces(&found, now);
                interfaces = found;
            }
        }
        send(sockets.as_ref(), responder.act(now));
        if responder.host() != host {
            host = responder.host();
            info!(host, "mdns.name");
        }
        let deadline = responder.deadline();
        if deadline.is_none() && !at_rest && !interfaces.is_empty() {
            at_rest = true;
            sys::unmap_code();
        }
        if wait(signals, sockets.as_ref(), deadline.map_or(next_look, |at| at.min(next_look)))? {
            send(sockets.as_ref(), responder.goodbye(Instant::now()));
            return Ok(());
        }
        for _ in 0..MAX_PACKETS {
            let Some(received) = sockets.as_ref().and_then(Sockets::receive) else { break };
            let (interface, from) = (received.interface, received.source);
            send(sockets.as_ref(), responder.receive(interface, from, &received.bytes, Instant::now()));
        }
    }
}

/// Waits for packets until then. Whether we are to end.
fn wait(signals: &SignalFd, sockets: Option<&Sockets>, until: Instant) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(sockets.iter().flat_map(|sockets| sockets.fds()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // Rounded up, so that it is over when poll returns.
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    while let Ok(Some(signal)) = signals.read_signal() {
        // Nothing of the configuration is read again; a restart does that.
        if signal.ssi_signo != libc::SIGHUP.cast_unsigned() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn send(sockets: Option<&Sockets>, packets: Vec<Packet>) {
    let Some(sockets) = sockets else { return };
    for packet in packets {
        match packet.to {
            Some(to) => sockets.send(packet.interface, to, &packet.bytes),
            None => sockets.send_to_groups(packet.interface, (packet.ipv4, packet.ipv6), &packet.bytes),
        }
    }
}
