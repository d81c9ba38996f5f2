//! Programs of the image's own that are asked something: they get words, an environment and some input, and answer
//! with an exit status and some output, within a time.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{launch, sys};

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
    /// Whatever it started ends with it.
    pub async fn ask(&self) -> io::Result<(Vec<u8>, ExitStatus)> {
        timeout(self.time_limit, self.hear()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn hear(&self) -> io::Result<(Vec<u8>, ExitStatus)> {
        let mut child = launch::launch(self.prepare()?).await?;
        let _group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it has answered all the same; what is asked fits into the pipe.
            let _ = stdin.write_all(self.input).await;
        }
        let mut output = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            pipe.take(self.max_output).read_to_end(&mut output).await?;
        }
        Ok((output, child.wait().await?))
    }

    /// The program, not started yet.
    fn prepare(&self) -> io::Result<Command> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, OsStr::new(value))))
            .current_dir("/")
            .stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .process_group(0);
        if let Some((uid, gid)) = self.user {
            // Its other groups are taken from it as well (std::os::unix::process::CommandExt::uid).
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        let prepare = || {
            sys::set_oom_score(b"0");
            Ok(())
        };
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(prepare) };
        Ok(command)
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

/// Fails unless only root, or who we are, can change the program or put another in its place.
pub fn check_program(path: &str) -> Result<(), String> {
    let real = Path::new(path).canonicalize().map_err(|error| format!("{path}: {error}"))?;
    let ours = nix::unistd::geteuid().as_raw();
    let folders = real.ancestors().skip(1);
    for (place, may_be_sticky) in
        [(real.as_path(), false)].into_iter().chain(folders.map(|folder| (folder, true)))
    {
        let metadata = place.metadata().map_err(|error| format!("{}: {error}", place.display()))?;
        let (mode, owner) = (metadata.permissions().mode(), metadata.uid());
        let is_safe = mode & 0o022 == 0 || (may_be_sticky && mode & 0o1000 != 0);
        if !is_safe || (owner != 0 && owner != ours) {
            return Err(format!(
                "{}: others than root may write it, so {path} is not run: chmod go-w, chown root",
                place.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, input: &[u8]) -> io::Result<(Vec<u8>, ExitStatus)> {
        let words = ["/bin/sh", "-c", script].map(String::from);
        let environment = [("MYELIN_USER", String::from("ada"))];
        let time_limit = Duration::from_secs(5);
        let question = Question {
            words: &words,
            environment: &environment,
            input,
            user: None,
            time_limit,
            max_output: 100,
        };
        question.ask().await
    }

    #[tokio::test]
    async fn it_is_told_and_answers() {
        let (output, status) = sh("read word; echo $MYELIN_USER $word; exit 3", b"secret\n").await.unwrap();
        assert_eq!((output.as_slice(), status.code()), (&b"ada secret\n"[..], Some(3)));
        let (output, _) = sh("yes", b"").await.unwrap();
        assert_eq!(output.len(), 100);
        assert!(sh("exit 0", &[b'x'; 4096]).await.unwrap().1.success());
        assert_eq!(sh("sleep 60 & sleep 60", b"").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_program_that_others_may_change_is_not_run() {
        assert!(check_program("/bin/sh").is_ok());
        assert!(check_program("/nonexistent/program").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::copy("/bin/sh", &path).unwrap();
        assert!(check_program(path.to_str().unwrap()).is_ok());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o775)).unwrap();
        assert!(check_program(path.to_str().unwrap()).unwrap_err().contains("chmod"));
    }
}
