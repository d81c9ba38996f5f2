//! What follows an update that ended well: the reboot, or the program that stands in for it.

use std::process::Stdio;

use tokio::process::Command;
use tracing::{error, info};

use crate::config::{Config, Source, SuccessAction};

/// Does what the configuration says. Comes back when it has begun.
pub fn act(config: &Config, source: &Source) {
    match &config.firmware.success_action {
        SuccessAction::None => info!("the new firmware waits for a reboot (success_action = \"none\")"),
        SuccessAction::Reboot => {
            // A process of its own outlives this worker, which init ends early, and sees to it that the
            // reboot happens even when init does not do it.
            let mut words = vec![String::from("/proc/self/exe")];
            if let Source::File(path) = source {
                words.extend(["--config".into(), path.to_string_lossy().into_owned()]);
            }
            words.extend(["firmware".into(), "reboot".into()]);
            run(&words);
        }
        SuccessAction::Command(words) => run(words),
    }
}

/// Starts the program in a session of its own and without the daemon's protection: it may well end the daemon,
/// as a stand-in for the reboot does.
fn run(words: &[String]) {
    let Some((program, arguments)) = words.split_first() else { return };
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
    match command.spawn() {
        Ok(mut child) => {
            tokio::spawn(async move {
                if let Ok(status) = child.wait().await
                    && !status.success()
                {
                    error!(%status, "success_action failed; reboot by hand to start the new firmware");
                }
            });
        }
        Err(error) => error!(program, %error, "cannot start success_action; reboot by hand"),
    }
}
