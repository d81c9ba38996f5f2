//! The tasks of an operations archive, as Nerves systems have them (spec ssh.md 2.6, fwup.md 6.1): fwup runs them,
//! with the update lock in its hands.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Operation, OperationError};
use crate::config::Firmware;
use crate::firmware::lock::UpdateLock;
use crate::firmware::program::FwupCommand;
use crate::firmware::store;
use crate::sys;
use crate::uboot_env::Environment;

/// Where Nerves systems have the archive.
const PLACES: [&str; 2] = ["/usr/share/fwup/ops.fw", "/usr/share/fwup/revert.fw"];
const DEVPATH: &str = "/dev/rootdisk0";
/// A task takes well below a second; to kill one that writes to a slow card would be worse than to wait.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// What is read of the output; messages are short.
const MAX_OUTPUT: u64 = 64 << 10;

/// The archive of this image, if it has one.
pub fn archive(firmware: &Firmware) -> Option<PathBuf> {
    let places = PLACES.iter().map(PathBuf::from);
    firmware.ops.clone().into_iter().chain(places).find(|path| path.is_file())
}

/// Runs the task of `operation` to its end.
pub fn run(
    operation: Operation,
    archive: &Path,
    firmware: &Firmware,
    environment: Option<&Environment>,
    lock: &UpdateLock,
) -> Result<(), OperationError> {
    let devpath = store::devpath(firmware, environment).unwrap_or_else(|| DEVPATH.into());
    let fwup = FwupCommand::for_task(firmware, archive, operation.name(), &devpath)?;
    let failed = |text: String| OperationError::Task { archive: archive.into(), operation, text };
    let (exit, output) = execute(&fwup, lock).map_err(|error| failed(error.to_string()))?;
    match exit {
        Some(exit) if exit.success() => Ok(()),
        Some(exit) => Err(failed(error_in(&output).unwrap_or_else(|| exit.to_string()))),
        None => Err(failed(format!("it did not end within {} s", LIMIT.as_secs()))),
    }
}

/// The exit status, or `None` when it had to be killed; and what it printed.
fn execute(fwup: &FwupCommand, lock: &UpdateLock) -> io::Result<(Option<ExitStatus>, Vec<u8>)> {
    let mut command = fwup.to_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let lock_fd = lock.as_fd().as_raw_fd();
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(move || sys::clear_cloexec(lock_fd)) };
    let mut child = command.spawn()?;
    let output = child.stdout.take().map(collect);
    let exit = wait(&mut child)?;
    let output = output.and_then(|output| output.recv_timeout(POLL * 10).ok());
    Ok((exit, output.unwrap_or_default()))
}

/// Reads beside the waiting: a full pipe would keep the program from its end.
fn collect(stdout: ChildStdout) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Without a thread nothing is known of the output.
    let _ = crate::tasks::thread(move || {
        let mut output = Vec::new();
        let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
        let _ = sender.send(output);
    });
    receiver
}

fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let give_up = Instant::now() + LIMIT;
    loop {
        if let Some(exit) = child.try_wait()? {
            return Ok(Some(exit));
        }
        if Instant::now() > give_up {
            if let Ok(pid) = i32::try_from(child.id()) {
                // It may have ended just now.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The text of the error frame (spec fwup.md 2.2).
fn error_in(mut output: &[u8]) -> Option<String> {
    while let Some((length, rest)) = output.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (frame, rest) = rest.split_at_checked(length)?;
        if let (Some(b"ER"), Some(text)) = (frame.get(..2), frame.get(4..)) {
            return Some(String::from_utf8_lossy(text).trim().to_owned());
        }
        output = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_found_among_the_frames() {
        let frame = |kind: &[u8], text: &[u8]| {
            let length = u32::try_from(text.len() + 4).unwrap().to_be_bytes();
            [&length, kind, &[0, 0], text].concat()
        };
        let output = [frame(b"PR", b""), frame(b"WN", b"a->b"), frame(b"ER", b"no way\n")].concat();
        assert_eq!(error_in(&output).as_deref(), Some("no way"));
        assert_eq!(error_in(&output[..output.len() - 1]), None);
        assert_eq!(error_in(b"\xff\xff\xff\xffER"), None);
        assert_eq!(error_in(b""), None);
    }
}
