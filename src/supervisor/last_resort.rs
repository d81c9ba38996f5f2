//! What the supervisor does itself when a firmware has not proved itself in time: it starts the program that ends
//! the trial, and when that fails it reboots the machine.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tracing::{error, info};

use crate::config::SuccessAction;
use crate::sys;

/// The program that ends a trial, and the reboot behind it.
pub struct LastResort {
    arguments: Vec<OsString>,
    /// What stands in for the reboot, where something does.
    stand_in: Option<Vec<String>>,
    child: Option<Child>,
}

impl LastResort {
    /// `file` are the words that name our configuration.
    pub fn new(file: Vec<OsString>, success_action: &SuccessAction) -> Self {
        let stand_in = match success_action {
            SuccessAction::Command(words) => Some(words.clone()),
            SuccessAction::Reboot | SuccessAction::None => None,
        };
        let arguments = file.into_iter().chain(["firmware".into(), "end-trial".into()]).collect();
        Self { arguments, stand_in, child: None }
    }

    /// Starts `myelin firmware end-trial`.
    pub fn start(&mut self) -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = command.spawn()?;
        info!(pid = child.id(), "the time of the trial is over; ending it");
        self.child = Some(child);
        Ok(())
    }

    /// Whether it ended well, once it has ended.
    pub fn reap(&mut self) -> Option<bool> {
        let well = match self.child.as_mut()?.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.success(),
            Err(_) => false,
        };
        self.child = None;
        Some(well)
    }

    pub fn kill(&self) {
        error!("ending the trial takes too long");
        if let Some(pid) = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            // It may have ended just now.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Reboots without anybody's help, or runs what stands in for that.
    pub fn reboot(&mut self) {
        error!("the trial of the firmware could not be ended; rebooting the machine");
        let failure = match self.stand_in.as_deref().and_then(<[String]>::split_first) {
            Some((program, arguments)) => {
                Command::new(program).args(arguments).stdin(Stdio::null()).spawn().map(drop).err()
            }
            None => Some(sys::reboot(None)),
        };
        if let Some(error) = failure {
            error!(%error, "the reboot failed");
        }
    }
}
