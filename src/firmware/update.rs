//! One update: from the lock to fwup's last word.
//!
//! Whoever sends the bytes (SSH, the legacy protocol, later the fleet server) is a `Sender`; fwup is a process
//! that is spoken to on its standard streams. Nothing here writes to the disk: fwup does, and it switches the
//! slot as its very last step.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::handshake::Handshake;
use super::lock::UpdateLock;
use super::program::FwupCommand;
use super::progress::Progress;
use super::{precheck, status, store};
use crate::config::Config;
use crate::uboot_env::Environment;
use crate::{pipe, sys};

/// Room for input between us and a fwup that is busy with its disk.
const PIPE_SIZE: libc::c_int = 1 << 20;
const READ_SIZE: usize = 32 << 10;
/// How long the sender may go on after fwup is done; what it sends is dropped.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long fwup has after its stdin was closed: when it is done, and when its sender is gone.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
const GONE_LIMIT: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// How often the progress file is written.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// The longest line of fwup's stderr that is logged.
const MAX_LOG_LINE: usize = 256;

/// The way to whoever sends an update.
pub trait Sender: Sync {
    /// The next bytes; `None` at their end, also when the sender is gone.
    fn next(&self) -> impl Future<Output = Option<Vec<Bytes>>> + Send;
    /// Waits until the sender is gone.
    fn gone(&self) -> impl Future<Output = ()> + Send;
    /// Throws away what still comes, and waits for its end.
    fn drain(&self) -> impl Future<Output = ()> + Send;
    /// Shows fwup's output; false when the sender is gone.
    fn stdout(&self, text: Bytes) -> impl Future<Output = bool> + Send;
    fn stderr(&self, text: Bytes) -> impl Future<Output = bool> + Send;
}

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
    fn new(text: impl std::fmt::Display, status: u32) -> Self {
        Self { text: format!("Error: {text}"), status }
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

/// An update that may begin: it holds the lock, and fwup runs.
pub struct Update {
    lock: UpdateLock,
    child: Child,
    group: Pid,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    config: Config,
}

impl Update {
    /// Takes the lock, asks the pre-check and starts fwup.
    pub async fn begin(config: &Config, holder: &Holder) -> Result<Self, Refusal> {
        let lock = take_lock(config, &holder.name).await?;
        let environment = store::read(&config.firmware).ok();
        let asked = [
            ("MYELIN_USER", holder.user.clone()),
            ("MYELIN_PEER", holder.peer.clone()),
            ("MYELIN_KEY", holder.fingerprint.clone()),
            ("MYELIN_TASK", config.firmware.task.clone()),
            ("MYELIN_DEVPATH", devpath_text(config, environment.as_ref())),
        ];
        let overrides = precheck::ask(&config.firmware.precheck, &asked).await?;
        let fwup = FwupCommand::for_update(&config.firmware, environment.as_ref(), overrides)
            .map_err(|error| Refusal::new(&error, error.exit_status().into()))?;
        let mut child = start(&fwup, &lock).map_err(|error| {
            Refusal::new(format!("cannot start {}: {error}", fwup.program.display()), 126)
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(pid), (Some(stdin), Some(stdout), Some(stderr))) = (pid, streams) else {
            return Err(Refusal::new("fwup ended at once", 1));
        };
        sys::set_pipe_size(stdin.as_fd(), PIPE_SIZE);
        let config = config.clone();
        Ok(Self { config, lock, child, group: Pid::from_raw(pid), stdin, stdout, stderr })
    }

    /// Streams the sender's bytes into fwup and its words back, until fwup is done. The lock is free when this
    /// returns; after a success every further update is refused until the reboot.
    pub async fn run(self, sender: &impl Sender) -> Outcome {
        let Self { lock, mut child, group, stdin, mut stdout, stderr, config } = self;
        let idle_limit = config.firmware.update_idle_timeout.duration();
        let mut relay = Relay::default();
        let counter = std::sync::atomic::AtomicU64::new(0);
        let errors = relay_stderr(stderr, sender);
        tokio::pin!(errors);
        let mut errors_ended = false;
        let ended = {
            let feed = feed(stdin, sender, &counter, idle_limit);
            tokio::pin!(feed);
            let mut fed = false;
            let mut report = tokio::time::interval(PROGRESS_INTERVAL);
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(READ_SIZE);
                tokio::select! {
                    read = stdout.read_buf(&mut buffer) => {
                        if !matches!(read, Ok(1..)) {
                            break Ended::Done;
                        }
                        relay.pass_on(buffer.split().freeze(), sender).await;
                        if relay.handshake != Handshake::Output && relay.handshake != Handshake::Marked {
                            break Ended::Done;
                        }
                    }
                    end = &mut feed, if !fed => match end {
                        Fed::All => fed = true,
                        Fed::Idle => break Ended::Idle,
                    },
                    () = &mut errors, if !errors_ended => errors_ended = true,
                    () = sender.gone() => break Ended::Gone,
                    _ = report.tick() => {
                        let bytes = counter.load(std::sync::atomic::Ordering::Relaxed);
                        lock.report(bytes, relay.progress.percent());
                    }
                }
            }
            // The feed ends here, and with it fwup's stdin is closed, for which it waits.
        };
        let limit = if matches!(ended, Ended::Done) { EXIT_LIMIT } else { GONE_LIMIT };
        let status = relay.see_out(&mut child, group, &mut stdout, sender, limit).await;
        if !errors_ended {
            let _ = timeout(KILL_AFTER, &mut errors).await;
        }
        let status = match (&ended, relay.handshake, status) {
            (Ended::Idle, ..) => {
                let seconds = idle_limit.as_secs();
                let text = format!("Error: no data for {seconds} s: update abandoned\n");
                sender.stdout(text.into()).await;
                1
            }
            // Success needs all three: fwup's word, its exit status, and nothing after its word.
            (Ended::Done, Handshake::Ended(0), Some(exit)) if exit.success() => 0,
            (_, Handshake::Ended(status @ 1..), _) => u32::from(status),
            (_, _, Some(exit)) => failure_status(exit),
            (_, _, None) => 1,
        };
        let bytes = counter.into_inner();
        if status == 0
            && let Some(installed) = status::installed_now(&config)
        {
            lock.set_installed(&installed);
        }
        drop(lock);
        let _ = timeout(DRAIN_LIMIT, sender.drain()).await;
        Outcome { status, bytes, last_line: relay.progress.last_line().into() }
    }
}

/// Why the streaming ended.
enum Ended {
    /// fwup said so, or closed its stdout.
    Done,
    /// The sender has vanished.
    Gone,
    /// The sender paused for too long.
    Idle,
}

enum Fed {
    /// Everything was given to fwup, or it takes no more.
    All,
    Idle,
}

/// fwup's exit status, never 0: what came before was no success.
fn failure_status(exit: ExitStatus) -> u32 {
    exit.code().map(i32::cast_unsigned).filter(|code| *code != 0).unwrap_or(1)
}

/// Another program may hold the lock for an instant, for which is waited on another thread.
async fn take_lock(config: &Config, holder: &str) -> Result<UpdateLock, Refusal> {
    let (runtime_dir, holder) = (config.runtime_dir.clone(), holder.to_owned());
    let taken = tokio::task::spawn_blocking(move || UpdateLock::for_update(&runtime_dir, &holder)).await;
    match taken {
        Ok(lock) => lock.map_err(|error| Refusal::new(&error, error.exit_status().into())),
        Err(error) => Err(Refusal::new(error, 1)),
    }
}

fn devpath_text(config: &Config, environment: Option<&Environment>) -> String {
    store::devpath(&config.firmware, environment).unwrap_or_default().to_string_lossy().into_owned()
}

fn start(fwup: &FwupCommand, lock: &UpdateLock) -> io::Result<Child> {
    let mut command = Command::from(fwup.to_command());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let parent = nix::unistd::getpid().as_raw();
    let lock_fd = lock.as_fd().as_raw_fd();
    let prepare = move || {
        // The lock stays taken while fwup writes, even if this worker is killed.
        sys::clear_cloexec(lock_fd)?;
        sys::set_oom_score(b"0");
        sys::die_with_parent(libc::SIGKILL, parent)
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Gives fwup what the sender sends, as fast as it takes it.
async fn feed(
    mut stdin: ChildStdin,
    sender: &impl Sender,
    counter: &std::sync::atomic::AtomicU64,
    idle_limit: Duration,
) -> Fed {
    loop {
        let Ok(next) = timeout(idle_limit, sender.next()).await else { return Fed::Idle };
        let Some(mut pieces) = next else { return Fed::All };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        counter.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
        if pipe::write_all(&mut stdin, &mut pieces).await.is_err() {
            // fwup reads no more; its own words say why.
            return Fed::All;
        }
    }
}

/// What fwup said so far.
#[derive(Default)]
struct Relay {
    handshake: Handshake,
    progress: Progress,
}

impl Relay {
    async fn pass_on(&mut self, read: Bytes, sender: &impl Sender) {
        let text = self.handshake.take(read);
        self.progress.see(&text);
        if !text.is_empty() {
            sender.stdout(text).await;
        }
    }

    /// Waits for fwup's end and hears what it still says. One that does not end is ended.
    async fn see_out(
        &mut self,
        child: &mut Child,
        group: Pid,
        stdout: &mut ChildStdout,
        sender: &impl Sender,
        limit: Duration,
    ) -> Option<ExitStatus> {
        let began = Instant::now();
        let mut signals = [(limit, Signal::SIGTERM), (limit + KILL_AFTER, Signal::SIGKILL)].into_iter();
        let mut next = signals.next();
        let mut open = true;
        let status = loop {
            let mut buffer = BytesMut::with_capacity(READ_SIZE);
            let deadline = next.map_or(Duration::MAX, |(after, _)| after.saturating_sub(began.elapsed()));
            tokio::select! {
                status = child.wait() => break status.ok(),
                read = stdout.read_buf(&mut buffer), if open => match read {
                    Ok(1..) => self.pass_on(buffer.freeze(), sender).await,
                    _ => open = false,
                },
                () = sleep(deadline) => {
                    if let Some((_, signal)) = next {
                        warn!(%signal, "fwup does not end; ending it");
                        let _ = killpg(group, signal);
                    }
                    next = signals.next();
                }
            }
        };
        // Whatever it started must not go on writing.
        let _ = killpg(group, Signal::SIGKILL);
        let rest = async {
            while open {
                let mut buffer = BytesMut::with_capacity(READ_SIZE);
                match stdout.read_buf(&mut buffer).await {
                    Ok(1..) => self.pass_on(buffer.freeze(), sender).await,
                    _ => open = false,
                }
            }
        };
        let _ = timeout(KILL_AFTER, rest).await;
        status
    }
}

/// fwup's stderr: to the sender as it is, and line by line to the log.
async fn relay_stderr(mut stderr: impl AsyncRead + Unpin, sender: &impl Sender) {
    let mut buffer = BytesMut::new();
    let mut line = Vec::new();
    loop {
        buffer.reserve(READ_SIZE);
        match stderr.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = buffer.split().freeze();
        for &byte in &text {
            match byte {
                b'\n' => {
                    let text = String::from_utf8_lossy(&line);
                    if !text.trim().is_empty() {
                        info!(line = text.trim(), "fwup");
                    }
                    line.clear();
                }
                _ if line.len() < MAX_LOG_LINE => line.push(byte),
                _ => {}
            }
        }
        sender.stderr(text).await;
    }
}
