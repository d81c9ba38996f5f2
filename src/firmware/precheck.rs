//! A program of the image's own that may veto an update before fwup starts, or change its options
//! (spec ssh.md 2.2.12).

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::update::Refusal;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of its output is read.
const MAX_OUTPUT: u64 = 4 << 10;

/// What the program may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub devpath: String,
    pub task: String,
    pub extra: Vec<String>,
}

/// Asks the program. Exit 0 accepts, with `task=`, `devpath=` and `extra=` lines taken over; anything else
/// refuses, with its output as the reason.
pub async fn ask(words: &[String], environment: &[(&str, String)], options: Options) -> Result<Options, Refusal> {
    let Some((program, arguments)) = words.split_first() else { return Ok(options) };
    let no = |text: String| Refusal { text: format!("Error: {text}"), status: 1 };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("MYELIN_DEVPATH", &options.devpath)
        .env("MYELIN_TASK", &options.task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| no(format!("the pre-check {program} cannot be started: {error}")))?;
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
        return Ok(override_options(options, &output));
    }
    let reason = output.trim();
    Err(no(if reason.is_empty() { format!("the pre-check {program} refuses this update") } else { reason.into() }))
}

fn override_options(mut options: Options, output: &str) -> Options {
    for line in output.lines() {
        match line.split_once('=') {
            Some(("task", value)) => options.task = value.into(),
            Some(("devpath", value)) => options.devpath = value.into(),
            Some(("extra", value)) => options.extra.extend(value.split_whitespace().map(String::from)),
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { devpath: "/dev/x".into(), task: "upgrade".into(), extra: Vec::new() }
    }

    async fn sh(script: &str) -> Result<Options, Refusal> {
        let words = ["/bin/sh", "-c", script].map(String::from);
        ask(&words, &[("MYELIN_USER", "root".into())], options()).await
    }

    #[tokio::test]
    async fn it_accepts_overrides_and_refuses() {
        assert_eq!(ask(&[], &[], options()).await.unwrap(), options());
        assert_eq!(sh("test $MYELIN_USER$MYELIN_TASK = rootupgrade").await.unwrap(), options());
        let changed = sh("echo task=upgrade.safe; echo extra=--verify-writes -q").await.unwrap();
        assert_eq!((changed.task.as_str(), changed.extra.len()), ("upgrade.safe", 2));
        assert_eq!(sh("echo the battery is low; exit 3").await.unwrap_err().text, "Error: the battery is low");
        assert!(sh("exit 1").await.unwrap_err().text.contains("refuses"));
        assert!(ask(&["/nonexistent".into()], &[], options()).await.is_err());
    }
}
