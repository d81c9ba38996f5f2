//! How far an apply is: units done of units to do, shown as a bar, as numbers or as frames.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::output::Output;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Bar,
    Numeric,
    Quiet,
    Framed,
}

pub struct Progress {
    style: Style,
    low: i64,
    high: i64,
    total: u64,
    done: u64,
    reported: Option<i64>,
    /// Bytes of the archive read so far; the input counts them.
    input: Rc<Cell<u64>>,
    started: Instant,
}

impl Progress {
    pub fn new(style: Style, low: i64, high: i64, input: Rc<Cell<u64>>) -> Self {
        Self { style, low, high, total: 0, done: 0, reported: None, input, started: Instant::now() }
    }

    /// Shows the first value.
    pub fn begin(&mut self, output: &mut Output) {
        if self.style == Style::Bar {
            output.bar_begins();
        }
        self.report(self.low, output);
    }

    pub fn set_total(&mut self, units: u64) {
        self.total = units;
    }

    /// Adds what an action did. The last value is kept back until everything is on the medium.
    pub fn add(&mut self, units: u64, output: &Output) {
        self.done = self.done.saturating_add(units);
        if self.total == 0 {
            return;
        }
        let span = i128::from(self.high) - i128::from(self.low);
        let share = i128::from(self.done) * span / i128::from(self.total);
        let value = i64::try_from(i128::from(self.low) + share).unwrap_or(self.low);
        self.report(value.min(self.high.saturating_sub(1)), output);
    }

    /// Everything is written and the destination closed.
    pub fn finish(&mut self, output: &Output) {
        self.report(self.high, output);
        if self.style == Style::Bar {
            let mut text = String::from("\nSuccess!\n");
            if self.total > 0 {
                text += &elapsed(self.started.elapsed());
            }
            output.plain(text.as_bytes());
        }
    }

    fn report(&mut self, value: i64, output: &Output) {
        if self.reported.is_some_and(|last| value <= last) {
            return;
        }
        self.reported = Some(value);
        match self.style {
            Style::Quiet => {}
            Style::Framed => output.progress_frame(value.clamp(0, u16::MAX.into()) as u16),
            Style::Numeric => output.plain(format!("{value}\n").as_bytes()),
            Style::Bar => output.plain(self.bar(value).as_bytes()),
        }
    }

    fn bar(&self, value: i64) -> String {
        let filled = (value.clamp(0, 100) * BAR_WIDTH / 100) as usize;
        let mut bar = format!("\r{value:3}% [{:<width$}]", "=".repeat(filled), width = BAR_WIDTH as usize);
        if self.total > 0 {
            let (read, done) = (amount(self.input.get()), amount(self.done));
            bar += &format!(" {read} in / {done} out     \x08\x08\x08\x08\x08");
        }
        bar
    }
}

/// `12.34 MB`: the largest unit that does not exceed the number.
fn amount(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

fn elapsed(time: Duration) -> String {
    if time > Duration::from_secs(60) {
        format!("Elapsed time: {} min {:02} s\n", time.as_secs() / 60, time.as_secs() % 60)
    } else {
        format!("Elapsed time: {}.{:03} s\n", time.as_secs(), time.subsec_millis())
    }
}

const BAR_WIDTH: i64 = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_use_the_largest_unit_that_fits() {
        assert_eq!(amount(585), "585.00 bytes");
        assert_eq!(amount(4_917), "4.92 KB");
        assert_eq!(amount(2_000_000), "2.00 MB");
    }
}
