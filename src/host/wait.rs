//! Asks a device for its status, and waits until it is back from its reboot.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::metadata::Metadata;
use super::remote::{Call, End, Message, Remote, Trouble};
use super::screen::Screen;
use super::ssh::trouble;
use super::status::{DeviceStatus, Verdict};

/// What a question for the status brought.
#[derive(Debug)]
pub enum Answer {
    Status(DeviceStatus),
    /// The device lets us in and has no such subsystem: it is no Myelin, or an old one.
    Absent,
    Failed(Trouble),
}

/// No answer is longer.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks once, before the upload; the user may be asked for a passphrase, so there is no time limit.
pub fn ask(remote: &dyn Remote, screen: &Arc<Screen>) -> io::Result<Answer> {
    let screen = Arc::clone(screen);
    let show = move |line: &str| {
        if trouble(line) != Some(Trouble::NoSubsystem) {
            screen.note(line);
        }
    };
    ask_until(remote, None, Box::new(show)).map(|(answer, _)| answer)
}

/// With a deadline it is a quick question.
fn ask_until(
    remote: &dyn Remote,
    deadline: Option<Instant>,
    message: Message,
) -> io::Result<(Answer, String)> {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let output = {
        let answer = Arc::clone(&answer);
        Box::new(move |bytes: &[u8]| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MAX_ANSWER.saturating_sub(answer.len());
            answer.extend(bytes.iter().take(room));
            bytes.len() <= room
        })
    };
    let ended = remote.run(Call {
        subsystem: "myelin-status",
        input: None,
        quick: deadline.is_some(),
        deadline,
        output,
        message,
    })?;
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = match (ended.end, DeviceStatus::parse(&answer)) {
        (End::Status(0), Some(status)) => Answer::Status(status),
        (End::Status(_) | End::Without(Some(Trouble::NoSubsystem)), _) => Answer::Absent,
        (End::Without(trouble), _) => Answer::Failed(trouble.unwrap_or(Trouble::Connect)),
    };
    Ok((answer, ended.messages))
}

/// How the wait ended.
#[derive(Debug)]
pub enum Return {
    Back(DeviceStatus, Verdict),
    /// The time is over; what was heard last.
    NotBack(String),
}

/// Asks until the device answers from another boot than `before`.
pub fn wait(
    remote: &dyn Remote,
    before: &DeviceStatus,
    sent: &Metadata,
    limit: Duration,
) -> io::Result<Return> {
    let deadline = Instant::now() + limit;
    let mut last = "it never answered".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Return::NotBack(last));
        }
        thread::sleep(left.min(PAUSE));
        // A security key blinks until it is touched; whoever sits there must know why.
        let show = |line: &str| {
            if line.contains("user presence") {
                eprintln!("{line}");
            }
        };
        match ask_until(remote, Some(deadline), Box::new(show))? {
            (Answer::Status(status), _) => match status.judge(before, sent) {
                Verdict::SameBoot => last = "it answers and has not rebooted".into(),
                verdict => return Ok(Return::Back(status, verdict)),
            },
            (Answer::Absent, _) => last = "it answers, but no longer knows myelin-status".into(),
            (Answer::Failed(_), messages) => {
                if let Some(line) = messages.lines().rfind(|line| !line.is_empty()) {
                    last = format!("the last attempt said: {line}");
                }
            }
        }
    }
}

const PAUSE: Duration = Duration::from_secs(1);
