//! A program of the image's own that may veto an update before fwup starts, or change its options
//! (spec ssh.md 2.2.12).

use std::io;
use std::time::Duration;

use super::program::Overrides;
use super::update::Refusal;
use crate::hook::Question;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of its output is read.
const MAX_OUTPUT: u64 = 4 << 10;

/// Asks the program. Exit 0 accepts, with `task=`, `devpath=` and `extra=` lines taken over; anything else
/// refuses, with its output as the reason. No program accepts everything.
pub async fn ask(words: &[String], environment: &[(&str, String)]) -> Result<Overrides, Refusal> {
    let Some(program) = words.first() else { return Ok(Overrides::default()) };
    let no = |text: String| Refusal::new(text, 1_u32);
    let question =
        Question { words, environment, input: b"", user: None, time_limit: LIMIT, max_output: MAX_OUTPUT };
    let (output, status) = question.ask().await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => {
            no(format!("the pre-check {program} did not answer within {} s", LIMIT.as_secs()))
        }
        _ => no(format!("the pre-check {program} cannot be run: {error}")),
    })?;
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
