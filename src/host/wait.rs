//! Asks a device for its status, and waits until it is back from its reboot.

use std::io::{self, Read};
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::metadata::Metadata;
use super::push::collect_messages;
use super::screen::Screen;
use super::ssh::{Ssh, Trouble, is_ssh_own, trouble};
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
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks once, before the upload; ssh may ask the user for a passphrase, so there is no time limit.
pub fn ask(ssh: &Ssh, screen: &Arc<Screen>) -> io::Result<Answer> {
    let screen = Arc::clone(screen);
    let show = move |line: &str| {
        if trouble(line) != Some(Trouble::NoSubsystem) {
            screen.note(line);
        }
    };
    ask_until(ssh, &[], None, show).map(|(answer, _)| answer)
}

fn ask_until(
    ssh: &Ssh,
    options: &[&str],
    deadline: Option<Instant>,
    show: impl FnMut(&str) + Send + 'static,
) -> io::Result<(Answer, String)> {
    let mut child = ssh
        .subsystem("myelin-status", options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (text, answer) = mpsc::channel();
    let (lines, messages) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.take(MAX_ANSWER).read_to_end(&mut bytes);
            text.send(bytes)
        });
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || lines.send(collect_messages(stderr, show)));
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let answer = answer.recv_timeout(DRAIN).unwrap_or_default();
    let messages = messages.recv_timeout(DRAIN).unwrap_or_default();
    let trouble = if is_ssh_own(status) || status.code().is_none() {
        trouble(&messages).unwrap_or(Trouble::Connect)
    } else {
        Trouble::NoSubsystem
    };
    let answer = match DeviceStatus::parse(&answer).filter(|_| status.success()) {
        Some(status) => Answer::Status(status),
        None if trouble == Trouble::NoSubsystem => Answer::Absent,
        None => Answer::Failed(trouble),
    };
    Ok((answer, messages))
}

const DRAIN: Duration = Duration::from_secs(2);

/// How the wait ended.
#[derive(Debug)]
pub enum Return {
    Back(DeviceStatus, Verdict),
    /// The time is over; what was heard last.
    NotBack(String),
}

/// Options of a question after the reboot: a connection of its own, that gives up soon.
const QUICK: &[&str] = &[
    "ControlMaster=no",
    "ControlPath=none",
    "ConnectTimeout=5",
    "ServerAliveInterval=3",
    "ServerAliveCountMax=2",
];

/// Asks until the device answers from another boot than `before`.
pub fn wait(ssh: &Ssh, before: &DeviceStatus, sent: &Metadata, limit: Duration) -> io::Result<Return> {
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
        match ask_until(ssh, QUICK, Some(deadline), show)? {
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
