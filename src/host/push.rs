//! Streams a file into the `fwup` subsystem of a device and says what came of it.
//!
//! The decision is a function of how the call ended and of what the device printed.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::remote::{Call, End, Input, Remote, Trouble};
use super::screen::{PIPE, Screen};

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device said so, or printed `Success!` before the connection broke.
    Done,
    /// The device refused or fwup failed, with this status.
    Refused(i32),
    /// Another update runs, or one waits for the reboot.
    Busy,
    Trouble(Trouble),
}

/// What is known at the end.
#[derive(Debug)]
struct Facts {
    end: End,
    success: bool,
    device_spoke: bool,
    sent: u64,
    total: u64,
}

/// `EX_TEMPFAIL`: what a device answers that cannot update now.
const BUSY: i32 = 75;

fn decide(facts: &Facts) -> Outcome {
    // ssh reads its input only once the session stands.
    let was_connected = facts.device_spoke || facts.sent > PIPE;
    match facts.end {
        End::Status(0) => Outcome::Done,
        End::Status(BUSY) => Outcome::Busy,
        End::Status(status) => Outcome::Refused(status),
        End::Without(_) if facts.success => Outcome::Done,
        End::Without(Some(Trouble::Connect)) if was_connected => Outcome::Trouble(Trouble::Lost),
        End::Without(Some(trouble)) => Outcome::Trouble(trouble),
        // No word of why: the device sent 255, or ended the session without any status.
        End::Without(None) if facts.device_spoke || facts.sent == facts.total => Outcome::Refused(255),
        End::Without(None) if was_connected => Outcome::Trouble(Trouble::Lost),
        End::Without(None) => Outcome::Trouble(Trouble::Connect),
    }
}

/// Sends the file. Returns the outcome and how many bytes were taken.
pub fn push(
    remote: &dyn Remote,
    file: &mut File,
    total: u64,
    screen: &Arc<Screen>,
) -> io::Result<(Outcome, u64)> {
    let watch = Arc::new(Mutex::new(SuccessWatch::default()));
    let output = {
        let (watch, screen) = (Arc::clone(&watch), Arc::clone(screen));
        Box::new(move |bytes: &[u8]| {
            watch.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes);
            screen.device(bytes);
            true
        })
    };
    let message = {
        let screen = Arc::clone(screen);
        Box::new(move |line: &str| screen.note(line))
    };
    let input = Input { file, progress: &|sent| screen.progress(sent, total) };
    let ended = remote.run(Call {
        subsystem: "fwup",
        input: Some(input),
        quick: false,
        deadline: None,
        output,
        message,
    })?;
    let watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
    let facts =
        Facts { end: ended.end, success: watch.seen, device_spoke: watch.spoke, sent: ended.sent, total };
    screen.end_bar();
    Ok((decide(&facts), facts.sent))
}

/// Finds fwup's `Success!` across the borders of reads.
#[derive(Default)]
struct SuccessWatch {
    end: Vec<u8>,
    /// Whether there was any output.
    spoke: bool,
    seen: bool,
}

impl SuccessWatch {
    const WORD: &[u8] = b"Success!";

    fn feed(&mut self, bytes: &[u8]) {
        self.spoke |= !bytes.is_empty();
        self.end.extend_from_slice(bytes);
        self.seen |= self.end.windows(Self::WORD.len()).any(|window| window == Self::WORD);
        let excess = self.end.len().saturating_sub(Self::WORD.len() - 1);
        self.end.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(end: End) -> Facts {
        Facts { end, success: false, device_spoke: false, sent: 0, total: 1 << 20 }
    }

    const UNKNOWN: End = End::Without(None);

    #[test]
    fn the_status_of_the_device_decides() {
        let decide = |status| decide(&facts(End::Status(status)));
        assert_eq!(decide(0), Outcome::Done);
        assert_eq!(decide(1), Outcome::Refused(1));
        assert_eq!(decide(127), Outcome::Refused(127));
        assert_eq!(decide(75), Outcome::Busy);
    }

    #[test]
    fn a_status_weighs_more_than_the_word_success() {
        let printed_before_it_failed = Facts { success: true, ..facts(End::Status(1)) };
        assert_eq!(decide(&printed_before_it_failed), Outcome::Refused(1));
    }

    #[test]
    fn a_connection_that_breaks_after_success_is_a_success() {
        for end in [UNKNOWN, End::Without(Some(Trouble::Lost))] {
            assert_eq!(decide(&Facts { success: true, ..facts(end) }), Outcome::Done);
        }
    }

    #[test]
    fn troubles_of_the_connection_are_told_apart() {
        for trouble in [Trouble::Connect, Trouble::Authentication, Trouble::NoSubsystem] {
            assert_eq!(decide(&facts(End::Without(Some(trouble)))), Outcome::Trouble(trouble));
        }
        let midway = Facts { sent: 500_000, ..facts(End::Without(Some(Trouble::Connect))) };
        assert_eq!(decide(&midway), Outcome::Trouble(Trouble::Lost));
    }

    #[test]
    fn a_device_that_ends_without_a_status_has_refused() {
        assert_eq!(decide(&Facts { sent: 1 << 20, ..facts(UNKNOWN) }), Outcome::Refused(255));
        assert_eq!(decide(&Facts { device_spoke: true, ..facts(UNKNOWN) }), Outcome::Refused(255));
        let midway = Facts { sent: 500_000, ..facts(UNKNOWN) };
        assert_eq!(decide(&midway), Outcome::Trouble(Trouble::Lost));
        assert_eq!(decide(&facts(UNKNOWN)), Outcome::Trouble(Trouble::Connect));
    }

    #[test]
    fn success_is_found_across_reads() {
        let mut watch = SuccessWatch::default();
        for bytes in [&b"\r100% Suc"[..], b"ces", b"s!\n"] {
            assert!(!watch.seen);
            watch.feed(bytes);
        }
        assert!(watch.seen);
    }
}
