//! One worker process: how it is started, and what is known of it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execve, fork, getpid};

use super::listeners::Listener;
use super::notify::NotifySocket;
use super::silence::{self, Excuse, Usage};
use crate::{sys, systemd};

/// A worker that does not say `WATCHDOG=1` for so long hangs and is replaced, unless it has an excuse.
pub const WATCHDOG: Duration = Duration::from_secs(15);
/// The same before it says that it serves: making keys and syncing them to a slow card takes its time.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// A running worker.
pub struct Worker {
    pub pid: Pid,
    pub started: Instant,
    pub last_sign_of_life: Instant,
    pub ready: bool,
    pub served: bool,
    /// When it was told to end for what it is, so that another follows.
    pub asked_to_end: Option<Instant>,
    /// How its silence was excused, and until when.
    excused: Option<(Excuse, Instant)>,
}

/// How a worker ended.
pub struct End {
    /// Exit status 0.
    pub well: bool,
    pub how: String,
}

/// What every start of a worker has in common.
pub struct Recipe {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Recipe {
    /// `title` is what ps(1) shows, `words` select the worker on our own command line.
    pub fn new(title: &str, words: &[OsString], notify: &NotifySocket, listeners: &[Listener]) -> Self {
        let arguments =
            [OsString::from(title)].iter().chain(words).filter_map(|word| c_string(word.clone())).collect();
        let names: Vec<_> = listeners.iter().map(|listener| listener.name).collect();
        let ours = [
            ("LISTEN_FDS", listeners.len().to_string().into()),
            ("LISTEN_FDNAMES", names.join(":").into()),
            ("NOTIFY_SOCKET", notify.path().clone()),
            ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string().into()),
        ];
        let inherited = std::env::vars_os();
        let ours = ours.iter().map(|(name, value)| (OsString::from(name), value.clone()));
        let environment = inherited
            .chain(ours)
            .filter_map(|(name, value)| {
                let mut text = name;
                text.push("=");
                text.push(value);
                c_string(text)
            })
            .collect();
        Self { arguments, environment }
    }

    /// Starts the worker with the sockets as descriptors 3, 4, ….
    pub fn start(&self, listeners: &[Listener]) -> io::Result<Worker> {
        let parent = getpid();
        // SAFETY: the supervisor has one thread, so the child may do anything until it becomes the worker.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let now = Instant::now();
                Ok(Worker {
                    pid: child,
                    started: now,
                    last_sign_of_life: now,
                    ready: false,
                    served: false,
                    asked_to_end: None,
                    excused: None,
                })
            }
            ForkResult::Child => {
                let error = self.become_worker(listeners, parent);
                // Nothing but this line gets out of the child: its exit status is what the parent sees.
                eprintln!("myelin: cannot start a worker: {error}");
                // SAFETY: ends the child at once, without running the parent's destructors a second time.
                unsafe { libc::_exit(127) }
            }
        }
    }

    /// In the child: gives the sockets their numbers and becomes the worker. Returns only when that fails.
    fn become_worker(&self, listeners: &[Listener], parent: Pid) -> io::Error {
        // The supervisor lost means init starts a new one, which needs the addresses.
        if let Err(error) = sys::die_with_parent(libc::SIGTERM, parent.as_raw()) {
            return error;
        }
        for (target, listener) in (systemd::FIRST_FD..).zip(listeners) {
            if let Err(error) = sys::move_fd(listener.fd().as_raw_fd(), target) {
                return error;
            }
        }
        let mut environment = self.environment.clone();
        environment.extend(c_string(format!("LISTEN_PID={}", getpid()).into()));
        if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None) {
            return error.into();
        }
        match execve(c"/proc/self/exe", &self.arguments, &environment) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        }
    }
}

impl Worker {
    pub fn signal(&self, signal: Signal) {
        // The process may have ended meanwhile; SIGCHLD tells that.
        let _ = kill(self.pid, signal);
    }

    /// How the worker ended, or `None` while it runs.
    pub fn try_wait(&self) -> Option<End> {
        let end = |well, how| Some(End { well, how });
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(WaitStatus::Exited(_, status)) => end(status == 0, format!("exit status {status}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => end(false, format!("signal {signal}")),
            Ok(_) => None,
            Err(error) => end(false, error.to_string()),
        }
    }

    pub fn is_alive(&mut self, now: Instant) {
        self.last_sign_of_life = now;
        self.excused = None;
    }

    /// When to look after it, unless it gives a sign of life before.
    pub fn deadline(&self) -> Instant {
        let limit = if self.ready { self.last_sign_of_life + WATCHDOG } else { self.started + START_LIMIT };
        self.excused.map_or(limit, |(_, until)| limit.max(until))
    }

    /// Whether it hangs, at its deadline.
    pub fn hangs(&mut self, now: Instant) -> bool {
        let before = self.excused.map(|(excuse, _)| excuse);
        self.excused =
            silence::excuse(Usage::of(self.pid), before, now).map(|excuse| (excuse, now + WATCHDOG));
        self.excused.is_none()
    }
}

/// A string for exec; one with a zero byte inside cannot be passed and is left out.
fn c_string(text: OsString) -> Option<CString> {
    debug_assert!(!text.as_bytes().contains(&0), "neither arguments nor environment hold zero bytes");
    CString::new(text.into_vec()).ok()
}
