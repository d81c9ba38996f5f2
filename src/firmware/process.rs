//! The fwup process: it starts with the update lock in its hands, and all that it started ends with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::timeout;
use tracing::warn;

use super::lock::UpdateLock;
use super::program::FwupCommand;
use crate::{launch, sys};

/// Room for input between us and a fwup that is busy with its disk. With more, its pages are not in the cache any more
/// when they are used again, which costs more than it saves.
const PIPE_SIZE: libc::c_int = 256 << 10;
/// From SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// A process that waits for a failing disk does not even end by SIGKILL; it keeps the lock, but not us.
const KILLED_LIMIT: Duration = Duration::from_secs(2);

/// A fwup that runs, or has ended.
pub struct Process {
    child: Child,
    /// Its process group, until that has been ended.
    group: Option<Pid>,
}

/// What it is spoken to on.
pub struct Streams {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

impl Process {
    /// Starts fwup.
    pub async fn start(fwup: &FwupCommand, lock: &UpdateLock) -> io::Result<(Self, Streams)> {
        Self::attach(launch::launch(prepare(fwup, lock)?).await?)
    }

    fn attach(mut child: Child) -> io::Result<(Self, Streams)> {
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        sys::set_pipe_size(stdin.as_fd(), PIPE_SIZE);
        Ok((Self { child, group }, Streams { stdin, stdout, stderr }))
    }

    /// Waits until it has ended by itself. Nothing that it started goes on writing after that.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.wait().await.ok();
        self.kill_group();
        status
    }

    /// Waits that long for its end, then asks for it, then enforces it.
    pub async fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        for (patience, signal) in [(limit, Signal::SIGTERM), (KILL_AFTER, Signal::SIGKILL)] {
            if let Ok(status) = timeout(patience, self.ended()).await {
                return status;
            }
            warn!(%signal, "fwup does not end; ending it");
            if let Some(group) = self.group {
                // The last process may have ended just now.
                let _ = killpg(group, signal);
            }
        }
        timeout(KILLED_LIMIT, self.ended()).await.ok().flatten()
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// The program, not started yet.
fn prepare(fwup: &FwupCommand, lock: &UpdateLock) -> io::Result<Command> {
    let mut command = fwup.to_command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let parent = nix::unistd::getpid().as_raw();
    // Of the program's own, so that it is the lock even if who holds ours goes before it has started.
    let lock = lock.as_fd().try_clone_to_owned()?;
    let prepare = move || {
        // The lock stays taken while fwup writes, even if this worker is killed.
        sys::clear_cloexec(lock.as_raw_fd())?;
        sys::set_oom_score(b"0");
        sys::die_with_parent(libc::SIGKILL, parent)
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    Ok(command)
}
