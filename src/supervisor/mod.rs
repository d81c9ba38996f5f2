//! The supervisor: opens the listening sockets, starts the workers, and never gives up on them.
//!
//! It owns the sockets and the processes. It never reads a byte from the network, so that nothing a stranger
//! sends can end it, and it allocates next to nothing, so that it is the last to go when memory runs out.

mod backoff;
mod listeners;
mod notify;
mod worker;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{error, info, warn};

use crate::config::{self, Config, Source};
use crate::{logging, sys, systemd};
use backoff::Backoff;
use listeners::Listener;
use notify::NotifySocket;
use worker::{Recipe, Worker};

/// A worker that has not ended so long after SIGTERM is killed; the daemon promises an end within 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// Between attempts to get any socket at all.
const SOCKET_PAUSE: Duration = Duration::from_secs(1);
/// The least willing victim of the kernel that is still killed before it panics.
const OOM_SCORE: &[u8] = b"-900";

/// Messages that are read in a row; whoever else sends to the socket must not keep us from the rest.
const MAX_MESSAGES: usize = 16;

const SIGNALS: Token = Token(0);
const NOTIFY: Token = Token(1);

/// `myelin daemon`.
pub fn main(source: &Source) -> ExitCode {
    // Sockets are our own business; who starts us wants to hear of our state only.
    drop(systemd::take_environment());
    let loaded = config::load(source);
    logging::start(&loaded.config);
    for problem in &loaded.problems {
        warn!(%problem, "ssh.config");
    }
    match run(source, &loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the daemon cannot run");
            ExitCode::FAILURE
        }
    }
}

fn run(source: &Source, config: &Config) -> io::Result<()> {
    sys::set_oom_score(OOM_SCORE);
    let signals = catch_signals()?;
    let notify = NotifySocket::open()?;
    let Some(listeners) = open_listeners(config, &signals) else { return Ok(()) };
    let mut words: Vec<OsString> = vec!["worker".into(), "ssh".into()];
    if let Source::File(path) = source {
        words.extend(["--config".into(), std::path::absolute(path)?.into()]);
    }
    let recipe = Recipe::new("myelin: ssh", &words, &notify, &listeners);
    let poll = Poll::new()?;
    register(&poll, signals.as_raw_fd(), SIGNALS)?;
    register(&poll, notify.fd(), NOTIFY)?;
    let supervisor = Supervisor {
        poll,
        signals,
        notify,
        listeners,
        recipe,
        backoff: Backoff::default(),
        told_ready: false,
        state: State::Waiting { until: Instant::now() },
        next_sign_of_life: systemd::watchdog_interval().map(|_| Instant::now()),
    };
    supervisor.run()
}

/// Makes the sockets, for as long as it takes until there is one; `None` when we are to end meanwhile.
fn open_listeners(config: &Config, signals: &SignalFd) -> Option<Vec<Listener>> {
    loop {
        let listeners = listeners::open(&config.ssh, Instant::now());
        if !listeners.is_empty() {
            return Some(listeners);
        }
        std::thread::sleep(SOCKET_PAUSE);
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != libc::SIGHUP.cast_unsigned() {
                return None;
            }
        }
    }
}

/// Waiting -> Running -> (the worker ends) -> Waiting -> …
///    \___________\__ (SIGTERM) -> Stopping -> the end
enum State {
    /// No worker runs; the next is started at `until`.
    Waiting {
        until: Instant,
    },
    Running(Worker),
    /// The worker was told to end, and is killed at `until`.
    Stopping {
        worker: Worker,
        until: Instant,
    },
}

struct Supervisor {
    poll: Poll,
    signals: SignalFd,
    notify: NotifySocket,
    listeners: Vec<Listener>,
    recipe: Recipe,
    backoff: Backoff,
    told_ready: bool,
    state: State,
    /// When our own service manager hears of us next, if it wants to.
    next_sign_of_life: Option<Instant>,
}

impl Supervisor {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(16);
        loop {
            self.act_on_time(Instant::now());
            let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            while let Ok(Some(signal)) = self.signals.read_signal() {
                let signal = Signal::try_from(signal.ssi_signo.cast_signed());
                if let Ok(signal) = signal
                    && self.act_on_signal(signal) == Course::End
                {
                    return Ok(());
                }
            }
            self.hear_worker();
            // After the signals: SIGCHLD has been read when its worker is looked for.
            if self.reap_worker() == Course::End {
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Waiting { until } | State::Stopping { until, .. } => *until,
            State::Running(worker) => worker.deadline(),
        };
        self.listeners
            .iter()
            .filter_map(Listener::next_retry)
            .chain([state])
            .chain(self.next_sign_of_life)
            .min()
    }

    fn act_on_time(&mut self, now: Instant) {
        if let Some(interval) = systemd::watchdog_interval()
            && self.next_sign_of_life.is_some_and(|at| at <= now)
        {
            // That this loop turns is what the sign says; a manager that cannot be told restarts us.
            let _ = systemd::notify("WATCHDOG=1");
            self.next_sign_of_life = Some(now + interval / 3);
        }
        for listener in &mut self.listeners {
            listener.bind_due(now);
        }
        match &self.state {
            State::Waiting { until } if *until <= now => self.start_worker(),
            State::Running(worker) if worker.deadline() <= now => {
                error!(pid = worker.pid.as_raw(), "the ssh worker hangs; replacing it");
                worker.signal(Signal::SIGKILL);
                // Its end comes as SIGCHLD; the deadline must not fire again before.
                if let State::Running(worker) = &mut self.state {
                    worker.last_sign_of_life = now;
                    worker.started = now;
                }
            }
            State::Stopping { worker, until } if *until <= now => worker.signal(Signal::SIGKILL),
            _ => {}
        }
        if let State::Stopping { until, .. } = &mut self.state
            && *until <= now
        {
            *until = now + STOP_LIMIT;
        }
    }

    fn start_worker(&mut self) {
        self.state = match self.recipe.start(&self.listeners) {
            Ok(worker) => {
                info!(pid = worker.pid.as_raw(), "ssh worker started");
                State::Running(worker)
            }
            Err(error) => {
                error!(%error, "cannot start the ssh worker; trying again");
                State::Waiting { until: Instant::now() + self.backoff.after(Duration::ZERO, false, dice()) }
            }
        };
    }

    /// Takes what the worker said of itself.
    fn hear_worker(&mut self) {
        let State::Running(worker) = &mut self.state else { return };
        for _ in 0..MAX_MESSAGES {
            let Some(message) = self.notify.receive(worker.pid) else { return };
            worker.last_sign_of_life = Instant::now();
            worker.served |= message.served;
            worker.ready |= message.ready;
            if message.ready && !self.told_ready {
                self.told_ready = true;
                // Under systemd with Type=notify the unit is up when somebody can log in.
                if let Err(error) = systemd::notify("READY=1") {
                    warn!(%error, "cannot tell the service manager that we are ready");
                }
            }
        }
    }

    /// Notices the end of the worker, and plans the next one unless we are ending ourselves.
    fn reap_worker(&mut self) -> Course {
        match &self.state {
            State::Waiting { .. } => Course::On,
            State::Stopping { worker, .. } => worker.try_wait().map_or(Course::On, |_| Course::End),
            State::Running(worker) => {
                if let Some(how) = worker.try_wait() {
                    let wait = self.backoff.after(worker.started.elapsed(), worker.served, dice());
                    let delay_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    warn!(pid = worker.pid.as_raw(), how, delay_ms, "the ssh worker ended; starting another");
                    self.state = State::Waiting { until: Instant::now() + wait };
                }
                Course::On
            }
        }
    }

    fn act_on_signal(&mut self, signal: Signal) -> Course {
        match (signal, &self.state) {
            (Signal::SIGCHLD, _) => return Course::On,
            (Signal::SIGHUP, state) => {
                if let State::Running(worker) = state {
                    worker.signal(Signal::SIGHUP);
                }
                return Course::On;
            }
            _ => {}
        }
        info!(%signal, "ending");
        // Nobody to tell is no reason to stay.
        let _ = systemd::notify("STOPPING=1");
        let now = Instant::now();
        match std::mem::replace(&mut self.state, State::Waiting { until: now }) {
            State::Waiting { .. } => Course::End,
            State::Running(worker) => {
                worker.signal(Signal::SIGTERM);
                self.state = State::Stopping { worker, until: now + STOP_LIMIT };
                Course::On
            }
            // Asking again does not give it more time.
            stopping @ State::Stopping { .. } => {
                self.state = stopping;
                Course::On
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Course {
    On,
    End,
}

fn register(poll: &Poll, fd: RawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
}

fn catch_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // Whoever ignores it passes that on, and the kernel then tells nobody of a child's end (wait(2)).
    sys::default_sigchld();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// A number from 0 to 1; without randomness all boards wait the same, which is no reason to fail.
fn dice() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}
