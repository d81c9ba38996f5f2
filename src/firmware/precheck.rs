//! A program of the image's own that may veto an update before fwup starts, or change its options
//! (spec ssh.md 2.2.12).

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::program::Overrides;
use super::update::Refusal;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of its output is read.
const MAX_OUTPUT: u64 = 4 << 10;

/// Asks the program. Exit 0 accepts, with `task=`, `devpath=` and `extra=` lines taken over; anything else
/// refuses, with its output as the reason. No program accepts everything.
pub async fn ask(words: &[String], environment: &[(&str, String)]) -> Result<Overrides, Refusal> {
    let Some((program, arguments)) = words.split_first() else { return Ok(Overrides::default()) };
    let no = |text: String| Refusal::new(text, 1_u32);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let prepare = || {
        crate::sys::set_oom_score(b"0");
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(prepare) };
    let mut child =
        command.spawn().map_err(|error| no(format!("the pre-check {program} cannot be started: {error}")))?;
    let _group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
    let asked = async {
        let mut output = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            pipe.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((output, child.wait().await?))
    };
    let (output, status) = timeout(LIMIT, asked)
        .await
        .map_err(|_| no(format!("the pre-check {program} did not answer within {} s", LIMIT.as_secs())))?
        .map_err(|error| no(format!("the pre-check {program} failed: {error}")))?;
    let output = String::from_utf8_lossy(&output);
    if status.success() {
        return Ok(overrides(&output));
    }
    let reason = output.trim();
    Err(no(if reason.is_empty() {
        format!("the pre-check {program} refuses this update")
    } else {
        reason.into()
    }))
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

fn overrides(output: &str) -> Overrides {
    let mut overrides = Overrides::default();
    for line in output.lines() {
        match line.split_once('=') {
            Some(("task", value)) => overrides.task = Some(value.into()),
            Some(("devpath", value)) => overrides.devpath = Some(value.into()),
            Some(("extra", value)) => {
                let words = value.split_whitespace().map(String::from);
                overrides.extra.get_or_insert_default().extend(words);
            }
            _ => {}
        }
    }
    overrides
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<Overrides, Refusal> {
        let words = ["/bin/sh", "-c", script].map(String::from);
        ask(&words, &[("MYELIN_USER", "root".into())]).await
    }

    #[tokio::test]
    async fn it_accepts_overrides_and_refuses() {
        assert_eq!(ask(&[], &[]).await.unwrap(), Overrides::default());
        assert_eq!(sh("test $MYELIN_USER = root").await.unwrap(), Overrides::default());
        let changed = sh("echo task=upgrade.safe; echo extra=--verify-writes -q").await.unwrap();
        assert_eq!((changed.task.as_deref(), changed.extra.unwrap().len()), (Some("upgrade.safe"), 2));
        assert_eq!(
            sh("echo the battery is low; exit 3").await.unwrap_err().text,
            "Error: the battery is low"
        );
        assert!(sh("exit 1").await.unwrap_err().text.contains("refuses"));
        assert!(ask(&["/nonexistent".into()], &[]).await.is_err());
    }
}
