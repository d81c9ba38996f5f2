//! The supervisor: opens the listening sockets, starts the workers, and never gives up on them.
//!
//! It owns the sockets and the processes, and keeps the end of a trial. It never reads a byte from the network, so
//! that nothing a stranger sends can end it, and it allocates next to nothing, so that it is the last to go when
//! memory runs out.

mod backoff;
mod charge;
mod last_resort;
mod listeners;
mod memory;
mod notify;
mod silence;
mod trial;
mod watchdog;
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
use nix::unistd::Pid;
use tracing::{error, info, warn};

use crate::config::{self, Config, Source};
use crate::{firmware, logging, sys, systemd};
use charge::Charge;
use last_resort::LastResort;
use listeners::Listener;
use notify::{Message, NotifySocket};
use trial::{Event, TrialEnd};
use watchdog::Watchdog;
use worker::Recipe;

/// Between attempts to get any socket at all.
const SOCKET_PAUSE: Duration = Duration::from_secs(1);
/// The least willing victim of the kernel that is still killed before it panics.
const OOM_SCORE: &[u8] = b"-900";
/// The others are started when the ssh worker serves, so as not to be in its way; at the latest after so long.
const OTHERS_AFTER: Duration = Duration::from_secs(10);

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
    let file: Vec<OsString> = match source {
        Source::File(path) => vec!["--config".into(), std::path::absolute(path)?.into()],
        Source::System => Vec::new(),
    };
    let words = |worker: &str| [&["worker".into(), worker.into()], file.as_slice()].concat();
    let poll = Poll::new()?;
    register(&poll, signals.as_raw_fd(), SIGNALS)?;
    register(&poll, notify.fd(), NOTIFY)?;
    let now = Instant::now();
    let recipe = Recipe::new("myelin: ssh", &words("ssh"), &notify, &listeners);
    let ssh = Charge::new("ssh", recipe, now);
    // With no gate somebody else keeps the trial, and the agent has nothing to do.
    let has_trials = !config.firmware.validation.gates.is_empty();
    let agent = has_trials.then(|| {
        let recipe = Recipe::new("myelin: agent", &words("agent"), &notify, &[]);
        Charge::that_finishes("agent", recipe, now + OTHERS_AFTER)
    });
    let mdns = config.mdns.announce.then(|| {
        let recipe = Recipe::new("myelin: mdns", &words("mdns"), &notify, &[]);
        Charge::that_finishes("mdns", recipe, now + OTHERS_AFTER)
    });
    let trial = match has_trials {
        true => TrialEnd::Armed { until: now + firmware::trial::time_left(config) },
        false => TrialEnd::Over,
    };
    let supervisor = Supervisor {
        poll,
        signals,
        notify,
        listeners,
        ssh,
        agent,
        mdns,
        trial,
        watchdog: Watchdog::new(config, now),
        max_memory: config.ssh.max_memory.0,
        last_resort: LastResort::new(file, &config.firmware.success_action),
        told_ready: false,
        next_sign_of_life: systemd::watchdog_interval().map(|_| now),
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

struct Supervisor {
    poll: Poll,
    signals: SignalFd,
    notify: NotifySocket,
    listeners: Vec<Listener>,
    ssh: Charge,
    agent: Option<Charge>,
    mdns: Option<Charge>,
    trial: TrialEnd,
    watchdog: Option<Watchdog>,
    /// Of the ssh worker, in bytes; zero is no limit.
    max_memory: u64,
    last_resort: LastResort,
    told_ready: bool,
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
                if let Ok(signal) = Signal::try_from(signal.ssi_signo.cast_signed()) {
                    self.act_on_signal(signal);
                }
            }
            self.hear_workers();
            // After the signals: SIGCHLD has been read when the workers are looked for.
            self.reap();
            let mut others = [&self.agent, &self.mdns].into_iter().flatten();
            if self.ssh.has_ended() && others.all(Charge::has_ended) {
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.listeners
            .iter()
            .filter_map(Listener::next_retry)
            .chain(self.ssh.deadline())
            .chain([&self.agent, &self.mdns].into_iter().flatten().filter_map(Charge::deadline))
            .chain(self.trial.deadline())
            .chain(self.watchdog.as_ref().and_then(Watchdog::deadline))
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
        self.ssh.act_on_time(now, &self.listeners);
        for other in [&mut self.agent, &mut self.mdns].into_iter().flatten() {
            other.act_on_time(now, &[]);
        }
        self.step_trial(Event::Time);
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.act_on_time(now)
            && let Some(worker) = self.ssh.worker()
        {
            worker.signal(Signal::SIGKILL);
        }
    }

    fn step_trial(&mut self, event: Event) {
        let (next, action) = self.trial.step(event, Instant::now());
        self.trial = next;
        match action {
            trial::Action::Nothing => {}
            trial::Action::Start => {
                if let Err(error) = self.last_resort.start() {
                    error!(%error, "the trial of the firmware cannot be ended");
                    self.step_trial(Event::Ended { well: false });
                }
            }
            trial::Action::Kill => self.last_resort.kill(),
            trial::Action::Reboot => self.last_resort.reboot(),
        }
    }

    /// Takes what the workers said of themselves.
    fn hear_workers(&mut self) {
        for _ in 0..MAX_MESSAGES {
            let charges = [Some(&mut self.ssh), self.agent.as_mut(), self.mdns.as_mut()];
            let mut workers: Vec<_> = charges.into_iter().flatten().filter_map(Charge::worker).collect();
            let pids: Vec<Pid> = workers.iter().map(|worker| worker.pid).collect();
            let Some((pid, Message { ready, served, login })) = self.notify.receive(&pids) else { return };
            for worker in workers.iter_mut().filter(|worker| worker.pid == pid) {
                worker.is_alive(Instant::now());
                worker.served |= served;
                worker.ready |= ready;
            }
            let is_ssh = self.ssh.worker().is_some_and(|ssh| ssh.pid == pid);
            if is_ssh && let Some(worker) = self.ssh.worker() {
                memory::check(worker, self.max_memory, Instant::now());
            }
            if let Some(watchdog) = self.watchdog.as_mut().filter(|_| is_ssh && login) {
                watchdog.login(Instant::now());
            }
            if is_ssh && ready && !self.told_ready {
                self.told_ready = true;
                sys::unmap_code();
                sys::trim_heap();
                // Under systemd with Type=notify the unit is up when somebody can log in.
                if let Err(error) = systemd::notify("READY=1") {
                    warn!(%error, "cannot tell the service manager that we are ready");
                }
                for other in [&mut self.agent, &mut self.mdns].into_iter().flatten() {
                    other.start_soon(Instant::now());
                }
            }
        }
    }

    /// Notices what has ended.
    fn reap(&mut self) {
        self.ssh.reap();
        if let Some(mdns) = &mut self.mdns {
            mdns.reap();
        }
        let agent_end = self.agent.as_mut().and_then(Charge::reap);
        if agent_end.is_some_and(|end| end.well) {
            self.step_trial(Event::Valid);
        }
        if let Some(well) = self.last_resort.reap() {
            self.step_trial(Event::Ended { well });
        }
    }

    fn act_on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => {}
            Signal::SIGHUP => {
                if let Some(worker) = self.ssh.worker() {
                    worker.signal(Signal::SIGHUP);
                }
            }
            _ => {
                info!(%signal, "ending");
                // Nobody to tell is no reason to stay.
                let _ = systemd::notify("STOPPING=1");
                let now = Instant::now();
                if let Some(watchdog) = self.watchdog.take() {
                    watchdog.end();
                }
                self.ssh.stop(now);
                for other in [&mut self.agent, &mut self.mdns].into_iter().flatten() {
                    other.stop(now);
                }
            }
        }
    }
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
