//! Runs the system's ssh: one thread writes the file into it and two read what comes back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Ssh, trouble};
use crate::host::remote::{Call, End, Ended, Input, MAX_MESSAGES, Output, Remote, Trouble};
use crate::tasks;

/// Options of a question after the reboot: a connection of its own, that gives up soon.
const QUICK: &[&str] = &[
    "ControlMaster=no",
    "ControlPath=none",
    "ConnectTimeout=5",
    "ServerAliveInterval=3",
    "ServerAliveCountMax=2",
];

/// How long output may follow ssh's end: a connection that it left in the background may hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

impl Remote for Ssh {
    fn run(&self, call: Call<'_>) -> io::Result<Ended> {
        let input = if call.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = self
            .subsystem(call.subsystem, if call.quick { QUICK } else { &[] })
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Threads of their own, not scoped ones: what ssh leaves in the background may hold the pipes for ever.
        let (end, printed) = mpsc::channel();
        let (lines, messages) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            tasks::thread(move || {
                pass_on(stdout, call.output);
                let _ = end.send(());
            })?;
        }
        if let Some(stderr) = child.stderr.take() {
            tasks::thread(move || _ = lines.send(collect_messages(stderr, call.message)))?;
        }
        let sent = match (call.input, child.stdin.take()) {
            (Some(input), Some(stdin)) => feed(input, stdin, &mut child)?,
            _ => 0,
        };
        let status = wait_for(&mut child, call.deadline)?;
        let _ = printed.recv_timeout(DRAIN);
        let messages = messages.recv_timeout(DRAIN).unwrap_or_default();
        Ok(Ended { end: end_of(status, &messages), messages, sent })
    }

    fn describe(&self) -> String {
        let command = self.subsystem("fwup", &[]);
        let words = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        format!("ssh {words}")
    }
}

fn end_of(status: ExitStatus, messages: &str) -> End {
    match status.code() {
        Some(255) => End::Without(trouble(messages)),
        Some(status) => End::Status(status),
        // A signal ended it.
        None => End::Without(Some(trouble(messages).unwrap_or(Trouble::Lost))),
    }
}

fn wait_for(child: &mut Child, deadline: Option<Instant>) -> io::Result<ExitStatus> {
    let Some(deadline) = deadline else { return child.wait() };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the file into ssh until all is sent or ssh wants no more.
fn feed(input: Input<'_>, mut stdin: ChildStdin, child: &mut Child) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut sent = 0;
    loop {
        let count = match input.file.read(&mut buffer) {
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
                    (input.progress)(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ssh has ended or closed its input; its status says why.
                Err(_) => return Ok(sent),
            }
        }
    }
}

/// Hands on what the device printed, as long as it is wanted.
fn pass_on(mut stdout: impl Read, mut output: Output) {
    let mut buffer = [0; 8192];
    while let Ok(count) = stdout.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() || !output(bytes) {
            break;
        }
    }
}

/// Reads ssh's messages, shows each line, and returns them all.
fn collect_messages(stderr: impl Read, mut show: impl FnMut(&str)) -> String {
    let mut messages = String::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(count) = (&mut reader).take(MAX_MESSAGES as u64).read_until(b'\n', &mut line) {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        show(text);
        if messages.len() + text.len() < MAX_MESSAGES {
            messages.push_str(text);
            messages.push('\n');
        }
        line.clear();
    }
    messages
}
