//! A worker that leaks is replaced before the kernel ends others for it: it is protected from that, they are not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};
use tracing::error;

use super::worker::Worker;
use crate::files;

/// What a worker gets to end its sessions in.
const FAREWELL: Duration = Duration::from_secs(4);
/// A line of /proc/PID/statm is shorter.
const MAX_STATM: u64 = 256;

/// Looks at a worker that has just given a sign of life. Zero is no limit.
pub fn check(worker: &mut Worker, limit: u64, now: Instant) {
    if let Some(asked) = worker.asked_to_end {
        if now.saturating_duration_since(asked) >= FAREWELL {
            worker.signal(Signal::SIGKILL);
        }
        return;
    }
    let Some(resident) = resident(worker.pid).filter(|&bytes| limit != 0 && bytes > limit) else { return };
    error!(
        pid = worker.pid.as_raw(),
        resident, limit, "the ssh worker has grown beyond ssh.max_memory; replacing it"
    );
    worker.asked_to_end = Some(now);
    worker.signal(Signal::SIGTERM);
}

/// What a process has in memory, in bytes (proc(5), statm).
fn resident(pid: Pid) -> Option<u64> {
    let path: PathBuf = ["/proc", &pid.to_string(), "statm"].iter().collect();
    let text = String::from_utf8(files::read_limited(&path, MAX_STATM).ok()?).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_something_in_memory() {
        let bytes = resident(Pid::this()).unwrap();
        assert!((1 << 20..1 << 32).contains(&bytes), "{bytes}");
        assert_eq!(resident(Pid::from_raw(i32::MAX)), None);
    }
}
