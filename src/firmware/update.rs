//! One update: from the lock to fwup's last word.
//!
//! Whoever sends the bytes (SSH, the legacy protocol, later the fleet server) is a `Sender`; fwup is a process
//! that is spoken to on its standard streams. Nothing here writes to the disk: fwup does, and it switches the
//! slot as its very last step.

use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::boot::Boot;
use super::handshake::Handshake;
use super::lock::{LockError, UpdateLock};
use super::process::{Process, Streams};
use super::program::FwupCommand;
use super::talk::{Fed, Talk, relay_stderr};
use super::{admission, precheck, status, store};
use crate::config::Config;
use crate::tasks;
use crate::uboot_env::Environment;

/// How long the sender may go on after fwup is done; what it sends is dropped.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long fwup has after its stdin was closed: when it is done, and when its sender is gone.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
const GONE_LIMIT: Duration = Duration::from_secs(2);
/// How long what fwup left running may still speak through its streams.
const LINGER: Duration = Duration::from_secs(1);
/// How long the sender has to take fwup's last words.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(10);
/// How often the progress file is written.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// For how long nothing at all may move, be it for fwup or for a sender that takes no output. Erasing a large
/// card takes minutes, in which fwup is silent.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The way to whoever sends an update.
pub trait Sender: Sync {
    /// The next bytes; `None` at their end, also when the sender is gone.
    fn next(&self) -> Answer<'_, Option<Vec<Bytes>>>;
    /// Waits until the sender is gone.
    fn gone(&self) -> Answer<'_, ()>;
    /// Throws away what still comes, and waits for its end.
    fn drain(&self) -> Answer<'_, ()>;
    /// Shows fwup's output; false when the sender is gone.
    fn stdout(&self, text: Bytes) -> Answer<'_, bool>;
    fn stderr(&self, text: Bytes) -> Answer<'_, bool>;
}

/// Boxed, so that the program has the whole of an update once, whoever sends it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who sends an update, for the lock's holder and for the pre-check.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Such as `ssh 10.0.0.5`.
    pub name: String,
    pub user: String,
    pub peer: String,
    pub fingerprint: String,
}

/// Why an update does not begin. The text goes to the sender's stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub text: String,
    pub status: u32,
}

impl Refusal {
    pub fn new(text: impl std::fmt::Display, status: impl Into<u32>) -> Self {
        Self { text: format!("Error: {text}"), status: status.into() }
    }
}

/// How an update ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: u32,
    pub bytes: u64,
    /// fwup's last line, for the log.
    pub last_line: String,
}

/// An update that has begun: it holds the lock, and fwup runs.
pub struct Update {
    lock: UpdateLock,
    process: Process,
    streams: Streams,
    /// What was read of the archive to decide whether it may be installed.
    head: Vec<Bytes>,
    config: Config,
}

/// Why the talk with fwup ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// fwup said so, or is not there any more.
    Done,
    /// The sender has vanished.
    Gone,
    /// The sender paused for too long.
    Idle,
    Standstill,
}

impl Update {
    /// Takes the lock, asks the pre-check, looks at what is sent and starts fwup. Dropped before its end, it leaves nothing behind.
    pub async fn begin(config: &Config, holder: &Holder, sender: &dyn Sender) -> Result<Self, Refusal> {
        let (lock, environment) = take_lock(config, &holder.name).await?;
        let devpath = store::devpath(&config.firmware, environment.as_ref()).unwrap_or_default();
        let asked = [
            ("MYELIN_USER", holder.user.clone()),
            ("MYELIN_PEER", holder.peer.clone()),
            ("MYELIN_KEY", holder.fingerprint.clone()),
            ("MYELIN_TASK", config.firmware.task.clone()),
            ("MYELIN_DEVPATH", devpath.to_string_lossy().into_owned()),
            ("MYELIN_EXTRA", config.firmware.fwup_extra_options.join(" ")),
        ];
        let overrides = precheck::ask(&config.firmware.precheck, &asked).await?;
        let idle_limit = config.firmware.update_idle_timeout.duration();
        let head = admission::admit(&config.firmware, sender, idle_limit)
            .await
            .map_err(|error| Refusal::new(error, 1_u32))?;
        let firmware = config.firmware.clone();
        let fwup = aside(move || FwupCommand::for_update(&firmware, environment.as_ref(), overrides))
            .await?
            .map_err(|error| Refusal::new(&error, error.exit_status()))?;
        let (process, streams) = Process::start(&fwup, &lock).await.map_err(|error| {
            let status: u32 = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            Refusal::new(format!("cannot start {}: {error}", fwup.program.display()), status)
        })?;
        Ok(Self { lock, process, streams, head, config: config.clone() })
    }

    /// Streams the sender's bytes into fwup and its words back, until fwup is done. The lock is free when this
    /// returns; after a success every further update is refused until the reboot.
    pub async fn run(self, sender: &dyn Sender) -> Outcome {
        let Self { lock, mut process, streams: Streams { stdin, mut stdout, stderr }, head, config } = self;
        let idle_limit = config.firmware.update_idle_timeout.duration();
        let talk = Talk::default();
        let errors = relay_stderr(stderr, sender);
        tokio::pin!(errors);
        let mut errors_ended = false;
        let ended = {
            let exited = async {
                process.ended().await;
                sleep(LINGER).await;
            };
            let relay = talk.relay(&mut stdout, sender, exited);
            let feed = talk.feed(stdin, head, sender, idle_limit);
            tokio::pin!(relay, feed);
            let mut fed = false;
            let mut report = tokio::time::interval(PROGRESS_INTERVAL);
            let mut movement = (talk.moved(), Instant::now());
            loop {
                tokio::select! {
                    () = &mut relay => break Ended::Done,
                    end = &mut feed, if !fed => match end {
                        Fed::All => fed = true,
                        Fed::Idle => break Ended::Idle,
                    },
                    () = &mut errors, if !errors_ended => errors_ended = true,
                    () = sender.gone() => break Ended::Gone,
                    _ = report.tick() => {
                        lock.report(talk.received(), talk.percent());
                        if movement.0 != talk.moved() {
                            movement = (talk.moved(), Instant::now());
                        } else if movement.1.elapsed() > STANDSTILL_LIMIT {
                            break Ended::Standstill;
                        }
                    }
                }
            }
            // The feed ends here, and with it fwup's stdin is closed, for which it waits.
        };
        let mut last_words = Vec::new();
        let exit = {
            let limit = if ended == Ended::Done { EXIT_LIMIT } else { GONE_LIMIT };
            let errors = async {
                if !errors_ended {
                    errors.await;
                }
            };
            let hearing = async { tokio::join!(talk.hear_out(&mut stdout, &mut last_words), errors) };
            see_out(&mut process, limit, hearing).await
        };
        // Success needs all of it: fwup's word, nothing after its word, and its exit status.
        let installed = talk.handshake() == Handshake::Ended(0) && exit.is_some_and(|exit| exit.success());
        settle(lock, &config, installed, exit.is_some()).await;
        let status = match ended {
            Ended::Done if installed => 0,
            Ended::Done => failure_status(talk.handshake(), exit),
            Ended::Gone | Ended::Idle | Ended::Standstill => 1,
        };
        match ended {
            Ended::Idle => last_words.push(abandoned("no data", idle_limit)),
            Ended::Standstill => last_words.push(abandoned("no progress", STANDSTILL_LIMIT)),
            Ended::Done | Ended::Gone => {}
        }
        let _ = timeout(LAST_WORDS_LIMIT, async {
            for text in last_words {
                sender.stdout(text).await;
            }
        })
        .await;
        if ended == Ended::Done {
            let _ = timeout(DRAIN_LIMIT, sender.drain()).await;
        }
        Outcome { status, bytes: talk.received(), last_line: talk.last_line() }
    }
}

/// Waits for fwup's end, or brings it about, and hears what it still says meanwhile.
async fn see_out(process: &mut Process, limit: Duration, hearing: impl Future) -> Option<ExitStatus> {
    let exited = Notify::new();
    let ending = async {
        let exit = process.end(limit).await;
        exited.notify_one();
        exit
    };
    let hearing = async {
        tokio::select! {
            _ = hearing => {}
            () = async { exited.notified().await; sleep(LINGER).await } => {}
        }
    };
    tokio::join!(ending, hearing).0
}

fn abandoned(why: &str, limit: Duration) -> Bytes {
    format!("Error: {why} for {} s: update abandoned\n", limit.as_secs()).into()
}

/// What fwup said, else how it ended; never 0, for it was no success.
fn failure_status(handshake: Handshake, exit: Option<ExitStatus>) -> u32 {
    let said = if let Handshake::Ended(status @ 1..) = handshake { Some(u32::from(status)) } else { None };
    let code = || exit?.code().map(i32::cast_unsigned).filter(|code| *code != 0);
    said.or_else(code).unwrap_or(1)
}

/// The lock, and what the store says under it; refused while another update runs or waits for the reboot.
async fn take_lock(config: &Config, holder: &str) -> Result<(UpdateLock, Option<Environment>), Refusal> {
    let (config, holder) = (config.clone(), holder.to_owned());
    let refuse = |error: LockError| Refusal::new(&error, error.exit_status());
    aside(move || {
        let lock = UpdateLock::for_update(&config.runtime_dir, &holder).map_err(refuse)?;
        let environment = store::read(&config.firmware).ok();
        let boot = Boot::current(&config.runtime_dir, environment.as_ref());
        match environment.as_ref().and_then(|environment| status::chosen_since_boot(&boot, environment)) {
            Some(installed) => Err(refuse(LockError::WaitsForReboot { installed })),
            None => Ok((lock, environment)),
        }
    })
    .await?
}

/// Marks a firmware that was installed, also when nobody is there any more to hear of it, and frees the lock, unless fwup
/// cannot be ended and still has it.
async fn settle(lock: UpdateLock, config: &Config, installed: bool, ended: bool) {
    let config = config.clone();
    let settled = aside(move || {
        if installed && let Some(installed) = status::installed_now(&config) {
            lock.set_installed(&installed);
        }
        if ended {
            lock.free();
        }
    });
    if let Err(Refusal { text, .. }) = settled.await {
        tracing::error!(text, "cannot mark the installed firmware");
    }
}

/// A panic of the work refuses the update.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tasks::aside(work).await.map_err(|error| Refusal::new(error, 1_u32))
}
