//! The end of a trial that nobody ended with "valid": `myelin firmware end-trial`. The supervisor runs it when the
//! time is over, or a timer of systemd; it must work without any other process of ours.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{error, info, warn};

use super::lock::kernel_boot_id;
use super::operation::{self, OperationError};
use super::success;
use crate::config::{Config, Source, TrialAction};
use crate::files;

/// An update that runs at the end of the trial may be what saves the device.
const PATIENCE: Duration = Duration::from_secs(120);

/// Without effect when the firmware is valid. Else as configured, and when that fails an error, after which
/// whoever called reboots the machine.
pub fn end(config: &Config, source: &Source) -> Result<(), TrialError> {
    let on_trial = match operation::is_on_trial(config) {
        _ if config.firmware.validation.gates.is_empty() => false,
        Ok(on_trial) => on_trial,
        Err(error) => {
            // What is not known counts as valid: a device must not reboot for ever because of a damaged store.
            warn!(%error, "the store does not tell whether the firmware is on trial");
            false
        }
    };
    if !on_trial {
        info!("the firmware is not on trial");
        return Ok(());
    }
    match config.firmware.validation.action {
        TrialAction::None => {
            error!("the firmware did not prove itself in time; it stays (action = \"none\")");
            return Ok(());
        }
        TrialAction::Reboot => error!("the firmware did not prove itself in time; rebooting"),
        TrialAction::Revert => {
            error!("the firmware did not prove itself in time; going back to the other slot");
            if !operation::revert_if_on_trial(config, PATIENCE)? {
                info!("the trial has just ended otherwise");
                return Ok(());
            }
        }
    }
    success::reboot(config, source).map_err(TrialError::Reboot)
}

/// How much of the time limit is left: it counts from the first start of the daemon after the boot, whatever
/// happens to the daemon since.
pub fn time_left(config: &Config) -> Duration {
    let limit = config.firmware.validation.time_limit.duration();
    let Some(now) = uptime() else { return limit };
    let path = config.runtime_dir.join("trial.json");
    let kept = files::read_limited(&path, MAX_FILE).ok();
    let kept: Option<Begun> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let boot = kernel_boot_id();
    if let Some(begun) = kept.filter(|begun| begun.boot == boot && begun.uptime <= now) {
        let gone = Duration::from_secs(now - begun.uptime);
        return limit.saturating_sub(gone).max(LEAST_LEFT.min(limit));
    }
    let begun = serde_json::to_vec(&Begun { boot, uptime: now }).unwrap_or_default();
    let written =
        files::make_dir(&config.runtime_dir, 0o755).and_then(|()| files::replace(&path, &begun, 0o644));
    if let Err(error) = written {
        warn!(%error, "a daemon that is started again will not know when the trial began");
    }
    limit
}

/// When the trial of this boot began.
#[derive(Serialize, Deserialize)]
struct Begun {
    boot: Option<String>,
    uptime: u64,
}

/// Seconds since the boot, suspension included (proc(5)).
fn uptime() -> Option<u64> {
    let text = files::read_limited(Path::new("/proc/uptime"), MAX_FILE).ok()?;
    std::str::from_utf8(&text).ok()?.split('.').next()?.parse().ok()
}

const MAX_FILE: u64 = 4096;
/// A daemon that was just started again can still do its part.
const LEAST_LEFT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum TrialError {
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error("the reboot failed: {0}")]
    Reboot(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_on_when_the_daemon_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { runtime_dir: folder.path().join("run"), ..Config::default() };
        let limit = Duration::from_secs(60);
        config.firmware.validation = toml::from_str("time_limit = 60").unwrap();
        assert_eq!(time_left(&config), limit);
        let put = |boot: Option<String>, ago: u64| {
            let begun = Begun { boot, uptime: uptime().unwrap().saturating_sub(ago) };
            let path = folder.path().join("run/trial.json");
            files::replace(&path, &serde_json::to_vec(&begun).unwrap(), 0o644).unwrap();
        };
        put(kernel_boot_id(), 20);
        assert!((LEAST_LEFT..=limit - Duration::from_secs(20)).contains(&time_left(&config)));
        // What is left of another boot says nothing.
        put(Some("another".into()), 20);
        assert_eq!(time_left(&config), limit);
        // There is always time for an attempt.
        put(kernel_boot_id(), 50);
        assert_eq!(time_left(&config), LEAST_LEFT);
        config.runtime_dir = "/dev/null/none".into();
        assert_eq!(time_left(&config), limit);
    }
}
