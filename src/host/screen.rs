//! What the user sees during an upload: our own lines, the progress bar, the device's output.
//!
//! Our lines and the bar go to stderr, the device's output unchanged to stdout. Only where both are the
//! same terminal is the device's output cut into lines, so that it does not tear the bar apart.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

/// Where things go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Normal,
    /// Nothing but errors; the device's output is shown when it refuses.
    Quiet,
    /// One JSON object on stdout at the end; everything else on stderr.
    Json,
}

pub struct Screen {
    mode: Mode,
    /// The bar and the device's output share one terminal.
    shared_terminal: bool,
    stderr_is_terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    /// The device's line that has not ended yet.
    partial: Vec<u8>,
    /// The end of the device's output, for `Quiet`.
    tail: Vec<u8>,
    next_report: Option<(Instant, u64)>,
    started: Option<Instant>,
}

/// How much of the device's output is kept for an error.
const TAIL: usize = 16 * 1024;
/// Longest line of the device that waits for its end.
const LINE: usize = 4096;
/// ssh reads nothing before the session stands; so much fits into the pipe to it.
pub const PIPE: u64 = 64 * 1024;
/// Without a terminal: a line so often, or each tenth of the file.
const REPORT_EVERY: Duration = Duration::from_secs(10);

impl Screen {
    pub fn new(mode: Mode) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let output_is_terminal =
            if mode == Mode::Json { stderr_is_terminal } else { io::stdout().is_terminal() };
        Self {
            mode,
            shared_terminal: stderr_is_terminal && output_is_terminal,
            stderr_is_terminal,
            state: Mutex::default(),
        }
    }

    /// A line of ours, or of ssh.
    pub fn note(&self, line: &str) {
        if self.mode != Mode::Quiet {
            self.error(line);
        }
    }

    /// A line that is shown in any mode.
    pub fn error(&self, line: &str) {
        let state = self.lock();
        above(state.bar.as_ref(), || eprintln!("{line}"));
    }

    /// Bytes that the device wrote.
    pub fn device(&self, bytes: &[u8]) {
        let mut state = self.lock();
        match self.mode {
            Mode::Quiet => {
                state.tail.extend_from_slice(bytes);
                let excess = state.tail.len().saturating_sub(TAIL);
                state.tail.drain(..excess);
            }
            _ if self.shared_terminal && state.bar.is_some() => self.device_lines(&mut state, bytes),
            _ => self.write(bytes),
        }
    }

    /// How far the file is, `sent` of `total` bytes.
    pub fn progress(&self, sent: u64, total: u64) {
        if self.mode == Mode::Quiet {
            return;
        }
        let mut state = self.lock();
        // A password prompt of ssh must not meet a bar.
        if sent <= PIPE {
            return;
        }
        if self.stderr_is_terminal {
            let bar = state.bar.get_or_insert_with(|| new_bar(total));
            bar.set_position(sent);
            return;
        }
        let started = *state.started.get_or_insert_with(Instant::now);
        let tenth = sent * 10 / total.max(1);
        let due = state.next_report.is_none_or(|(time, part)| Instant::now() >= time || tenth > part);
        if due {
            state.next_report = Some((Instant::now() + REPORT_EVERY, tenth));
            eprintln!("{}", report(sent, total, started.elapsed()));
        }
    }

    /// Something that takes long and has no measure.
    pub fn waiting(&self, text: &str) {
        if self.mode == Mode::Quiet {
            return;
        }
        if !self.stderr_is_terminal {
            eprintln!("{text}");
            return;
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.lock().bar = Some(bar);
    }

    /// Takes the bar away and shows what the device left unfinished.
    pub fn end_bar(&self) {
        let mut state = self.lock();
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        let partial = std::mem::take(&mut state.partial);
        if !partial.is_empty() {
            self.write(&partial);
            self.write(b"\n");
        }
    }

    /// The end of the device's output, if it was not shown.
    pub fn take_hidden(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.lock().tail)).into_owned()
    }

    /// Full lines go above the bar; what ends in a carriage return is the device's own progress.
    fn device_lines(&self, state: &mut State, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let mut line = std::mem::take(&mut state.partial);
                    line.push(b'\n');
                    above(state.bar.as_ref(), || self.write(&line));
                }
                b'\r' => {
                    let text = String::from_utf8_lossy(&state.partial).trim().to_owned();
                    state.partial.clear();
                    if let Some(bar) = state.bar.as_ref().filter(|_| !text.is_empty()) {
                        bar.set_message(format!("device: {text}"));
                    }
                }
                _ if state.partial.len() < LINE => state.partial.push(*byte),
                _ => {}
            }
        }
    }

    fn write(&self, bytes: &[u8]) {
        // A reader of our output that went away does not stop an update that runs.
        let _ = match self.mode {
            Mode::Json => io::stderr().write_all(bytes),
            _ => {
                let mut stdout = io::stdout();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn above(bar: Option<&ProgressBar>, print: impl FnOnce()) {
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

fn new_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn report(sent: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let percent = sent * 100 / total.max(1);
    let start = format!("sent {} of {} ({percent} %)", HumanBytes(sent), HumanBytes(total));
    if seconds < 0.5 {
        return start;
    }
    let speed = sent as f64 / seconds;
    let left = Duration::from_secs_f64(total.saturating_sub(sent) as f64 / speed);
    format!("{start}, {}/s, {} left", HumanBytes(speed as u64), HumanDuration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_share_speed_and_time_left() {
        let text = report(10 << 20, 40 << 20, Duration::from_secs(5));
        assert_eq!(text, "sent 10.00 MiB of 40.00 MiB (25 %), 2.00 MiB/s, 15 seconds left");
    }

    #[test]
    fn a_quiet_screen_keeps_the_end_of_what_the_device_said() {
        let screen = Screen::new(Mode::Quiet);
        screen.device(&vec![b'x'; TAIL]);
        screen.device(b"Error: no");
        let hidden = screen.take_hidden();
        assert_eq!(hidden.len(), TAIL);
        assert!(hidden.ends_with("Error: no"));
    }
}
