//! A worker that is kept running: its process, and when there is to be another.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::dice;
use super::listeners::Listener;
use super::worker::{End, Recipe, Worker};

/// A worker that has not ended so long after SIGTERM is killed; the daemon promises an end within 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// A worker under our care.
pub struct Charge {
    name: &'static str,
    recipe: Recipe,
    /// It may come to an end of its own, with exit status 0.
    may_finish: bool,
    backoff: Backoff,
    state: State,
}

/// Waiting -> Running -> (the worker ends) -> Waiting -> …
///    \___________\__ (told to end) -> Stopping -> Ended
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
    /// There will not be another.
    Ended,
}

impl Charge {
    /// The first worker is started at `first`.
    pub fn new(name: &'static str, recipe: Recipe, first: Instant) -> Self {
        let state = State::Waiting { until: first };
        Self { name, recipe, may_finish: false, backoff: Backoff::default(), state }
    }

    /// The same for one that is done some day: exit status 0 is its end, and no other follows.
    pub fn that_finishes(name: &'static str, recipe: Recipe, first: Instant) -> Self {
        Self { may_finish: true, ..Self::new(name, recipe, first) }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When to call `act_on_time` next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } | State::Stopping { until, .. } => Some(*until),
            State::Running(worker) => Some(worker.deadline()),
            State::Ended => None,
        }
    }

    /// A first worker that still waits is started now.
    pub fn start_soon(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    pub fn act_on_time(&mut self, now: Instant, listeners: &[Listener]) {
        match &mut self.state {
            State::Waiting { until } if *until <= now => self.start(listeners),
            State::Running(worker) if worker.deadline() <= now => {
                if worker.hangs(now) {
                    error!(pid = worker.pid.as_raw(), "the {} worker hangs; replacing it", self.name);
                    worker.signal(Signal::SIGKILL);
                    // Its end comes as SIGCHLD; the deadline must not fire again before.
                    worker.last_sign_of_life = now;
                    worker.started = now;
                } else {
                    warn!(pid = worker.pid.as_raw(), "the {} worker gets no time; waiting for it", self.name);
                }
            }
            State::Stopping { worker, until } if *until <= now => {
                worker.signal(Signal::SIGKILL);
                *until = now + STOP_LIMIT;
            }
            _ => {}
        }
    }

    fn start(&mut self, listeners: &[Listener]) {
        self.state = match self.recipe.start(listeners) {
            Ok(worker) => {
                info!(pid = worker.pid.as_raw(), "{} worker started", self.name);
                State::Running(worker)
            }
            Err(error) => {
                error!(%error, "cannot start the {} worker; trying again", self.name);
                State::Waiting { until: Instant::now() + self.backoff.after(Duration::ZERO, false, dice()) }
            }
        };
    }

    /// The worker that runs, to be told what it said of itself.
    pub fn worker(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            State::Running(worker) => Some(worker),
            _ => None,
        }
    }

    /// Notices the end of the worker, and plans the next one unless it was told to end.
    pub fn reap(&mut self) -> Option<End> {
        match &self.state {
            State::Waiting { .. } | State::Ended => None,
            State::Stopping { worker, .. } => {
                let end = worker.try_wait()?;
                self.state = State::Ended;
                Some(end)
            }
            State::Running(worker) => {
                let end = worker.try_wait()?;
                if end.well && self.may_finish {
                    info!(pid = worker.pid.as_raw(), "the {} worker is done", self.name);
                    self.state = State::Ended;
                    return Some(end);
                }
                let wait = self.backoff.after(worker.started.elapsed(), worker.served, dice());
                let delay_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let (pid, how) = (worker.pid.as_raw(), &end.how);
                warn!(pid, how, delay_ms, "the {} worker ended; starting another", self.name);
                self.state = State::Waiting { until: Instant::now() + wait };
                Some(end)
            }
        }
    }

    /// Tells the worker to end, and starts no other.
    pub fn stop(&mut self, now: Instant) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Waiting { .. } | State::Ended => State::Ended,
            State::Running(worker) => {
                worker.signal(Signal::SIGTERM);
                State::Stopping { worker, until: now + STOP_LIMIT }
            }
            // Asking again does not give it more time.
            stopping @ State::Stopping { .. } => stopping,
        };
    }
}
