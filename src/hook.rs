//! Programs of the image's own that are asked something: they get words, an environment and some input, and answer
//! with an exit status and some output, within a time.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// A question to a program.
pub struct Question<'a> {
    /// The program and its arguments.
    pub words: &'a [String],
    pub environment: &'a [(&'a str, String)],
    pub input: &'a [u8],
    /// As whom it runs; `None` is whoever we are.
    pub user: Option<(Uid, Gid)>,
    pub time_limit: Duration,
    /// More of its output is not read.
    pub max_output: u64,
}

impl Question<'_> {
    /// Its output and its exit status. An error is one of `io::ErrorKind::TimedOut`, or of starting it.
    ///
    /// Whatever it started ends with it. Call it on the main thread.
    pub async fn ask(&self) -> io::Result<(Vec<u8>, ExitStatus)> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, OsStr::new(value))))
            .current_dir("/")
            .stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some((uid, gid)) = self.user {
            // Its other groups are taken from it as well (std::os::unix::process::CommandExt::uid).
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        let prepare = || {
            crate::sys::set_oom_score(b"0");
            Ok(())
        };
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        let _group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let answered = async {
            if let Some(mut stdin) = stdin {
                // One that does not read it has answered all the same; what is asked fits into the pipe.
                let _ = stdin.write_all(self.input).await;
            }
            let mut output = Vec::new();
            if let Some(pipe) = stdout {
                pipe.take(self.max_output).read_to_end(&mut output).await?;
            }
            Ok((output, child.wait().await?))
        };
        timeout(self.time_limit, answered).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// Whatever the program started ends with the question.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly there is nobody left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
