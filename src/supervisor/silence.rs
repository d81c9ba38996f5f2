//! What the silence of a worker means: that it hangs, or that the machine leaves it no time. Killing one that waits for
//! the processor or for the disk only costs its connections, and the next one would wait too. Pure, but for a look into
//! /proc.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::files;

/// One that has run for so long since the last look has had its chance, in ticks of USER_HZ, which is 100 everywhere.
const CHANCE: u64 = 100;
/// After so long without a sign of life the reason makes no difference.
const LIMIT: Duration = Duration::from_secs(120);
/// A line of /proc/PID/stat is shorter.
const MAX_STAT: u64 = 1024;

/// A silence that has been excused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excuse {
    since: Instant,
    ran: u64,
}

/// What the kernel says of a process (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// For the processor or the disk: states R and D.
    waits: bool,
    /// Ticks of processor time so far.
    ran: u64,
}

impl Usage {
    pub fn of(pid: Pid) -> Option<Self> {
        let path: PathBuf = ["/proc", &pid.to_string(), "stat"].iter().collect();
        Self::parse(&files::read_limited(&path, MAX_STAT).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name in parentheses may hold anything, spaces and parentheses included.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let text = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let ticks = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(Self { waits: ["R", "D"].contains(words.first()?), ran: ticks(11)?.checked_add(ticks(12)?)? })
    }
}

/// Whether to wait on for a worker that should have said something by `now`; `before` is what it was excused with the
/// last time.
pub fn excuse(usage: Option<Usage>, before: Option<Excuse>, now: Instant) -> Option<Excuse> {
    let usage = usage.filter(|usage| usage.waits)?;
    let Some(before) = before else { return Some(Excuse { since: now, ran: usage.ran }) };
    let in_vain = usage.ran.saturating_sub(before.ran) >= CHANCE || now.duration_since(before.since) >= LIMIT;
    (!in_vain).then_some(Excuse { ran: usage.ran, ..before })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(15);

    fn waits(ran: u64) -> Option<Usage> {
        Some(Usage { waits: true, ran })
    }

    #[test]
    fn lines_of_proc_are_understood() {
        let stat = b"145 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 1 0 99 1 2\n";
        assert_eq!(Usage::parse(stat), Some(Usage { waits: false, ran: 100 }));
        let stat = b"145 (myelin: ssh) D 1 2 3 4 5 6 7 8 9 10 1 2 0 0 20 0 1 0 99 1 2\n";
        assert_eq!(Usage::parse(stat), waits(3));
        for wrong in
            [&b""[..], b"145 (x", b"145 (x)", b"145 (x) R 1 2 3", b"1 (x) R 1 2 3 4 5 6 7 8 9 10 -1 2"]
        {
            assert_eq!(Usage::parse(wrong), None);
        }
        // Of this thread, which runs; the process stands for its main thread, which waits for the tests.
        assert!(Usage::of(nix::unistd::gettid()).unwrap().waits);
    }

    #[test]
    fn one_that_sleeps_or_is_gone_hangs() {
        let now = Instant::now();
        assert_eq!(excuse(Some(Usage { waits: false, ran: 0 }), None, now), None);
        assert_eq!(excuse(None, None, now), None);
    }

    #[test]
    fn one_that_runs_all_the_time_hangs() {
        let now = Instant::now();
        let first = excuse(waits(500), None, now);
        assert!(first.is_some());
        assert_eq!(excuse(waits(1900), first, now + STEP), None);
    }

    #[test]
    fn one_that_gets_no_time_is_waited_for_but_not_for_ever() {
        let began = Instant::now();
        let (mut now, mut excused, mut ran) = (began, None, 500);
        loop {
            excused = excuse(waits(ran), excused, now);
            if excused.is_none() {
                break;
            }
            (now, ran) = (now + STEP, ran + 20);
        }
        assert_eq!(now - began, LIMIT);
    }
}
