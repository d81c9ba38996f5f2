//! What follows an update that ended well: the reboot, or the program that stands in for it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tracing::{error, info};

use crate::config::{Config, Source, SuccessAction};
use crate::{launch, tasks};

/// Does what the configuration says. Comes back when it has begun.
pub async fn act(config: &Config, source: &Source) {
    let words = match &config.firmware.success_action {
        SuccessAction::None => {
            return info!("the new firmware waits for a reboot (success_action = \"none\")");
        }
        SuccessAction::Reboot => reboot_words(source, &[]),
        SuccessAction::Command(words) => words.clone(),
    };
    let Some(command) = prepare(&words) else { return };
    match launch::launch_free(command).await {
        Ok(mut child) => {
            tasks::spawn(async move {
                if let Ok(status) = child.wait().await
                    && !status.success()
                {
                    error!(%status, "success_action failed; reboot by hand to start the new firmware");
                }
            });
        }
        Err(error) => error!(?words, %error, "cannot start success_action; reboot by hand"),
    }
}

/// Reboots because somebody asked for it, or runs the program that stands in for that. The argument that tries
/// the other slot once is not for this reboot. Waits until it has failed, or for the end of everything.
pub fn reboot(config: &Config, source: &Source) -> io::Result<()> {
    let words = match &config.firmware.success_action {
        SuccessAction::Command(words) => words.clone(),
        SuccessAction::Reboot | SuccessAction::None => reboot_words(source, &["--plain"]),
    };
    let status = prepare(&words).ok_or(io::ErrorKind::InvalidInput)?.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{words:?} failed: {status}"))) }
}

/// A process of its own outlives whoever starts it, whom init ends early, and sees to it that the reboot happens
/// even when init does not do it.
fn reboot_words(source: &Source, more: &[&str]) -> Vec<String> {
    let mut words = vec![String::from("/proc/self/exe")];
    if let Source::File(path) = source {
        words.extend(["--config".into(), path.to_string_lossy().into_owned()]);
    }
    words.extend(["firmware", "reboot"].iter().chain(more).map(ToString::to_string));
    words
}

/// The program, to be started in a session of its own and without the daemon's protection: it may well end the
/// daemon, as a stand-in for the reboot does.
fn prepare(words: &[String]) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    info!(?words, "success_action");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let prepare = || {
        nix::unistd::setsid()?;
        crate::sys::set_oom_score(b"0");
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(prepare) };
    Some(command)
}
