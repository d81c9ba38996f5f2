//! What a new firmware has to show before it counts as good.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::keys::PrivateKey;
use tokio::time::timeout;

use crate::config::{Config, Gate};
use crate::ssh::probe::{self, ProbeError};
use crate::{files, launch};

/// How long the health program may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(60);
/// What the kernel keeps of a process name (TASK_COMM_LEN without its zero byte).
const MAX_NAME: usize = 15;

/// The gates, in the order in which they are tried: what costs least comes first.
pub struct Gates {
    config: Config,
    probe_key: Arc<PrivateKey>,
}

impl Gates {
    pub fn new(config: &Config) -> Result<Self, ProbeError> {
        Ok(Self { config: config.clone(), probe_key: probe::new_key()? })
    }

    /// Whether all of them hold now; if not, why.
    pub async fn all_open(&self) -> Result<(), String> {
        for gate in [Gate::Manual, Gate::Processes, Gate::Health, Gate::Login] {
            if self.config.firmware.validation.gates.contains(&gate) {
                self.is_open(gate).await?;
            }
        }
        Ok(())
    }

    async fn is_open(&self, gate: Gate) -> Result<(), String> {
        let validation = &self.config.firmware.validation;
        match gate {
            // It is opened by ending the trial.
            Gate::Manual => Err("waiting for `myelin firmware validate`".into()),
            Gate::Processes => all_run(&validation.processes, Path::new("/proc")),
            Gate::Health => health(&validation.health, HEALTH_LIMIT).await,
            Gate::Login => {
                probe::log_in(&self.config, &self.probe_key).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// Whether processes of all these names run, as `proc` says.
fn all_run(wanted: &[String], proc: &Path) -> Result<(), String> {
    if wanted.is_empty() {
        return Err("firmware.validation.processes names no process".into());
    }
    let entries = std::fs::read_dir(proc).map_err(|error| format!("cannot look at processes: {error}"))?;
    let names: BTreeSet<String> = entries
        .flatten()
        .filter_map(|entry| files::read_limited(&entry.path().join("comm"), 64).ok())
        .map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
        .collect();
    let kept = |name: &str| name.get(..MAX_NAME).unwrap_or(name).to_owned();
    match wanted.iter().find(|name| !names.contains(&kept(name))) {
        Some(missing) => Err(format!("no process {missing} runs")),
        None => Ok(()),
    }
}

/// Whether the program ends well. Nothing that it started goes on after it.
async fn health(words: &[String], limit: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("firmware.validation.health names no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let started = launch::launch(command).await;
    let mut child = started.map_err(|error| format!("cannot start {program}: {error}"))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let ended = timeout(limit, child.wait()).await;
    if let Some(group) = group {
        // The last process may have ended meanwhile.
        let _ = killpg(group, Signal::SIGKILL);
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program}: {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} did not end within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_health_program_decides_by_its_exit_status() {
        let sh = |script: &str| ["/bin/sh", "-c", script].map(String::from);
        let limit = Duration::from_millis(500);
        assert_eq!(health(&sh("exit 0"), HEALTH_LIMIT).await, Ok(()));
        assert!(health(&sh("exit 3"), HEALTH_LIMIT).await.unwrap_err().contains('3'));
        assert!(health(&sh("sleep 100"), limit).await.unwrap_err().contains("did not end"));
        assert!(health(&["/nonexistent".into()], limit).await.is_err());
        assert!(health(&[], limit).await.is_err());
    }

    #[test]
    fn processes_are_found_by_name() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name) in [("1", "init\n"), ("7", "a-very-long-nam\n")] {
            files::make_dir(&proc.path().join(pid), 0o755).unwrap();
            files::replace(&proc.path().join(pid).join("comm"), name.as_bytes(), 0o644).unwrap();
        }
        let run =
            |names: &[&str]| all_run(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), proc.path());
        assert_eq!(run(&["init", "a-very-long-name-indeed"]), Ok(()));
        assert!(run(&[]).is_err());
        assert!(run(&["init", "missing"]).unwrap_err().contains("missing"));
    }
}
