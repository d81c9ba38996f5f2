//! Streams a file into the `fwup` subsystem of a device and says what came of it.
//!
//! The decision is a function of ssh's exit, its messages and what the device printed; around it one
//! thread writes the file and two read what comes back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::screen::{PIPE, Screen};
use super::ssh::{Ssh, Trouble, trouble};

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
#[derive(Debug, Default)]
struct Facts {
    /// ssh's exit status; none when a signal ended it.
    status: Option<i32>,
    messages: String,
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
    match facts.status {
        Some(0) => Outcome::Done,
        Some(255) | None if facts.success => Outcome::Done,
        None => Outcome::Trouble(Trouble::Lost),
        Some(BUSY) => Outcome::Busy,
        Some(255) => match trouble(&facts.messages) {
            Some(Trouble::Connect) if was_connected => Outcome::Trouble(Trouble::Lost),
            Some(trouble) => Outcome::Trouble(trouble),
            // No word of ssh's own: the device sent 255, or ended the session without any status.
            None if facts.device_spoke || facts.sent == facts.total => Outcome::Refused(255),
            None if was_connected => Outcome::Trouble(Trouble::Lost),
            None => Outcome::Trouble(Trouble::Connect),
        },
        Some(status) => Outcome::Refused(status),
    }
}

/// Sends the file. Returns the outcome and how many bytes ssh took.
pub fn push(ssh: &Ssh, file: &mut File, total: u64, screen: &Arc<Screen>) -> io::Result<(Outcome, u64)> {
    let mut child = ssh
        .subsystem("fwup", &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Threads of their own, not scoped ones: what ssh leaves in the background may hold the pipes for ever.
    let (words, heard) = mpsc::channel();
    let (lines, messages) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let screen = Arc::clone(screen);
        thread::spawn(move || words.send(pass_on(stdout, &screen)));
    }
    if let Some(stderr) = child.stderr.take() {
        let screen = Arc::clone(screen);
        thread::spawn(move || lines.send(collect_messages(stderr, |line| screen.note(line))));
    }
    let sent = match child.stdin.take() {
        Some(stdin) => feed(file, stdin, total, screen, &mut child)?,
        None => 0,
    };
    let status = child.wait()?.code();
    let (device_spoke, success) = heard.recv_timeout(DRAIN).unwrap_or_default();
    let messages = messages.recv_timeout(DRAIN).unwrap_or_default();
    let facts = Facts { status, messages, success, device_spoke, sent, total };
    screen.end_bar();
    Ok((decide(&facts), facts.sent))
}

/// How long output may follow ssh's end: a connection that it left in the background may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// Writes the file into ssh until all is sent or ssh wants no more.
fn feed(
    file: &mut File,
    mut stdin: ChildStdin,
    total: u64,
    screen: &Screen,
    child: &mut Child,
) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut sent = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(sent),
            Ok(count) => count,
            Err(error) => {
                // Half a file must not look like a whole one.
                child.kill()?;
                return Err(error);
            }
        };
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            match stdin.write(rest) {
                Ok(taken) => {
                    rest = rest.get(taken..).unwrap_or_default();
                    sent += taken as u64;
                    screen.progress(sent, total);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ssh has ended or closed its input; its status says why.
                Err(_) => return Ok(sent),
            }
        }
    }
}

/// Hands the device's output to the screen. Returns whether there was any, and whether it says success.
fn pass_on(mut output: impl Read, screen: &Screen) -> (bool, bool) {
    let mut watch = SuccessWatch::default();
    let mut buffer = [0; 8192];
    let mut spoke = false;
    while let Ok(count) = output.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        spoke = true;
        watch.feed(bytes);
        screen.device(bytes);
    }
    (spoke, watch.seen)
}

/// Finds fwup's `Success!` across the borders of reads.
#[derive(Default)]
struct SuccessWatch {
    end: Vec<u8>,
    seen: bool,
}

impl SuccessWatch {
    const WORD: &[u8] = b"Success!";

    fn feed(&mut self, bytes: &[u8]) {
        self.end.extend_from_slice(bytes);
        self.seen |= self.end.windows(Self::WORD.len()).any(|window| window == Self::WORD);
        let excess = self.end.len().saturating_sub(Self::WORD.len() - 1);
        self.end.drain(..excess);
    }
}

/// Reads ssh's messages, shows each line, and returns them all.
pub fn collect_messages(stderr: impl Read, mut show: impl FnMut(&str)) -> String {
    const LIMIT: usize = 64 * 1024;
    let mut messages = String::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(count) = (&mut reader).take(LIMIT as u64).read_until(b'\n', &mut line) {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        show(text);
        if messages.len() + text.len() < LIMIT {
            messages.push_str(text);
            messages.push('\n');
        }
        line.clear();
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(status: Option<i32>, messages: &str) -> Facts {
        Facts { status, messages: messages.into(), total: 1 << 20, ..Default::default() }
    }

    #[test]
    fn the_status_of_the_device_decides() {
        assert_eq!(decide(&facts(Some(0), "")), Outcome::Done);
        assert_eq!(decide(&facts(Some(1), "")), Outcome::Refused(1));
        assert_eq!(decide(&facts(Some(127), "")), Outcome::Refused(127));
        assert_eq!(decide(&facts(Some(75), "")), Outcome::Busy);
        let printed_before_it_failed = Facts { success: true, ..facts(Some(1), "") };
        assert_eq!(decide(&printed_before_it_failed), Outcome::Refused(1));
    }

    #[test]
    fn a_connection_that_breaks_after_success_is_a_success() {
        for status in [Some(255), None] {
            let facts = Facts { success: true, ..facts(status, "Connection to dev closed by remote host.") };
            assert_eq!(decide(&facts), Outcome::Done);
        }
    }

    #[test]
    fn troubles_of_ssh_are_told_apart() {
        let refused = "ssh: connect to host dev port 22: Connection refused";
        assert_eq!(decide(&facts(Some(255), refused)), Outcome::Trouble(Trouble::Connect));
        let denied = "root@dev: Permission denied (publickey).";
        assert_eq!(decide(&facts(Some(255), denied)), Outcome::Trouble(Trouble::Authentication));
        let reset = "Connection reset by 10.0.0.5 port 22";
        assert_eq!(decide(&facts(Some(255), reset)), Outcome::Trouble(Trouble::Connect));
        let midway = Facts { sent: 500_000, ..facts(Some(255), reset) };
        assert_eq!(decide(&midway), Outcome::Trouble(Trouble::Lost));
    }

    #[test]
    fn a_device_that_ends_without_a_status_has_refused() {
        let all_sent = Facts { sent: 1 << 20, ..facts(Some(255), "") };
        assert_eq!(decide(&all_sent), Outcome::Refused(255));
        let spoke = Facts { device_spoke: true, ..facts(Some(255), "") };
        assert_eq!(decide(&spoke), Outcome::Refused(255));
        let midway = Facts { sent: 500_000, ..facts(Some(255), "") };
        assert_eq!(decide(&midway), Outcome::Trouble(Trouble::Lost));
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
