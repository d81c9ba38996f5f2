//! The hardware watchdog: fed only while people can log in.
//!
//! The kernel's interface is its watchdog-api: who opens the device starts the clock, any byte starts it anew, and a `V`
//! as the last byte stops it, where the driver allows that. The ssh worker logs in through its own ports and says so;
//! this says it on to the hardware. A worker of which that was not heard for half of the limit is replaced first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::config::Config;
use crate::{firmware, sys};

/// What the hardware gets to end a shutdown that hangs, where it can wait so long.
const SHUTDOWN: libc::c_int = 60;

/// The watchdog of the board, if it is ours to feed.
pub struct Watchdog {
    device: PathBuf,
    runtime_dir: PathBuf,
    timeout: Duration,
    login_limit: Duration,
    /// When somebody was last seen to get in.
    last_login: Instant,
    state: State,
    /// Whether the worker was replaced since.
    replaced: bool,
}

/// Idle -> (a login) -> Fed -> (none for too long) -> Hungry -> (a login) -> Fed
enum State {
    /// Nobody has got in yet, or the device cannot be opened: the clock does not run.
    Idle {
        warned: bool,
    },
    Fed {
        device: File,
        next: Instant,
    },
    /// The clock runs out.
    Hungry(File),
}

impl Watchdog {
    pub fn new(config: &Config, now: Instant) -> Option<Self> {
        Some(Self {
            device: config.watchdog.device.clone()?,
            runtime_dir: config.runtime_dir.clone(),
            timeout: config.watchdog.timeout.duration(),
            login_limit: config.watchdog.login_limit.duration(),
            last_login: now,
            state: State::Idle { warned: false },
            replaced: false,
        })
    }

    /// Somebody has got in at each listening address.
    pub fn login(&mut self, now: Instant) {
        self.last_login = now;
        self.replaced = false;
        self.state = match std::mem::replace(&mut self.state, State::Idle { warned: true }) {
            State::Idle { warned } => match self.open() {
                Ok(device) => State::Fed { device, next: now },
                Err(error) => {
                    if !warned {
                        let device = self.device.display();
                        warn!(%device, %error, "the hardware watchdog cannot be used; trying again");
                    }
                    State::Idle { warned: true }
                }
            },
            State::Hungry(device) => {
                info!("people can log in again: the hardware watchdog is fed");
                State::Fed { device, next: now }
            }
            fed @ State::Fed { .. } => fed,
        };
    }

    fn open(&mut self) -> io::Result<File> {
        let device = OpenOptions::new().write(true).open(&self.device)?;
        let wanted = libc::c_int::try_from(self.timeout.as_secs()).unwrap_or(libc::c_int::MAX);
        match sys::set_watchdog_timeout(&device, wanted) {
            Ok(seconds) => {
                self.timeout = Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1));
                info!(device = %self.device.display(), seconds, "the hardware watchdog is armed");
            }
            // Some have one time that cannot be changed; fed as often as if it was what was asked for.
            Err(error) => warn!(%error, "the time limit of the hardware watchdog cannot be set"),
        }
        Ok(device)
    }

    /// When to call `act_on_time` next.
    pub fn deadline(&self) -> Option<Instant> {
        let replace = (!self.replaced).then(|| self.last_login + self.login_limit / 2);
        let next = match &self.state {
            State::Fed { next, .. } => Some(*next),
            State::Idle { .. } | State::Hungry(_) => None,
        };
        replace.into_iter().chain(next).min()
    }

    /// Feeds the hardware if that is due and right. Returns whether the ssh worker is to be replaced.
    pub fn act_on_time(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.last_login);
        self.state = match std::mem::replace(&mut self.state, State::Idle { warned: true }) {
            State::Fed { device, next } if next <= now => {
                if since >= self.login_limit {
                    let seconds = since.as_secs();
                    error!(
                        seconds,
                        "nobody can log in: the hardware watchdog is fed no more, the board will restart"
                    );
                    State::Hungry(device)
                } else {
                    feed(&device);
                    State::Fed { device, next: now + self.timeout / 3 }
                }
            }
            other => other,
        };
        if self.replaced || since < self.login_limit / 2 {
            return false;
        }
        error!(seconds = since.as_secs(), "no login works: replacing the ssh worker");
        self.replaced = true;
        true
    }

    /// The daemon ends: so does the watch, unless a new firmware waits for the reboot that this is part of.
    pub fn end(self) {
        let (State::Fed { device, .. } | State::Hungry(device)) = self.state else { return };
        if firmware::lock::installed(&self.runtime_dir).is_some() {
            let _ = sys::set_watchdog_timeout(&device, SHUTDOWN);
            feed(&device);
            return;
        }
        if let Err(error) = (&device).write_all(b"V") {
            warn!(%error, "the hardware watchdog cannot be stopped");
        }
    }
}

fn feed(mut device: &File) {
    if let Err(error) = device.write_all(b"\0") {
        warn!(%error, "the hardware watchdog takes no sign");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn watchdog(folder: &std::path::Path, now: Instant) -> Watchdog {
        File::create(folder.join("device")).unwrap();
        let mut config = Config { runtime_dir: folder.into(), ..Config::default() };
        config.watchdog.device = Some(folder.join("device"));
        Watchdog::new(&config, now).unwrap()
    }

    fn eaten(folder: &std::path::Path) -> usize {
        fs::read(folder.join("device")).unwrap().len()
    }

    #[test]
    fn without_a_device_there_is_none() {
        assert!(Watchdog::new(&Config::default(), Instant::now()).is_none());
    }

    #[test]
    fn it_is_fed_from_the_first_login_for_as_long_as_others_follow() {
        let folder = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut watchdog = watchdog(folder.path(), begin);
        assert!(!watchdog.act_on_time(at(10)));
        assert_eq!(eaten(folder.path()), 0);
        watchdog.login(at(20));
        for (second, meals) in [(20, 1), (24, 1), (25, 2), (30, 3)] {
            assert!(!watchdog.act_on_time(at(second)));
            assert_eq!(eaten(folder.path()), meals, "{second}");
        }
        // Half of the limit later the worker is replaced, once.
        assert!(watchdog.act_on_time(at(20 + 150)));
        assert!(!watchdog.act_on_time(at(20 + 155)));
        let meals = eaten(folder.path());
        assert!(!watchdog.act_on_time(at(20 + 300)));
        assert_eq!(eaten(folder.path()), meals);
        assert_eq!(watchdog.deadline(), None);
        watchdog.login(at(400));
        assert!(!watchdog.act_on_time(at(400)));
        assert_eq!(eaten(folder.path()), meals + 1);
        watchdog.end();
        assert!(fs::read(folder.path().join("device")).unwrap().ends_with(b"V"));
    }
}
