//! Reads fwup's own progress bar and its last words out of what it prints for the client. Pure.

/// The longest line that is kept; fwup's are below 100 bytes.
const MAX_LINE: usize = 512;

/// Follows the output of fwup.
#[derive(Debug, Default)]
pub struct Progress {
    line: Vec<u8>,
    percent: Option<u8>,
    last_line: String,
}

impl Progress {
    /// Takes more output.
    pub fn see(&mut self, output: &[u8]) {
        for &byte in output {
            match byte {
                b'\r' | b'\n' => self.end_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
            if byte == b'%' {
                self.read_percent();
            }
        }
    }

    /// The newest value of the bar, 0 to 100.
    pub fn percent(&self) -> Option<u8> {
        self.percent
    }

    /// The last line of text that was not the bar.
    pub fn last_line(&self) -> &str {
        &self.last_line
    }

    fn read_percent(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let number = text.trim_end_matches('%').trim_start_matches("\u{1b}[K").trim();
        if let Ok(percent) = number.parse::<u8>()
            && percent <= 100
        {
            self.percent = Some(percent);
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text: String = text.trim_start_matches("\u{1b}[K").chars().filter(|c| !c.is_control()).collect();
        let is_bar = text.contains("% [");
        if !is_bar && !text.trim().is_empty() {
            self.last_line = text.trim().into();
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_and_the_last_words_are_read() {
        let mut progress = Progress::default();
        progress.see(b"\r  0% [                                    ]");
        assert_eq!(progress.percent(), Some(0));
        progress.see(b"\r 4");
        progress.see(b"7% [================                    ] 1.00 MB in / 2.00 MB out     \x08\x08");
        assert_eq!(progress.percent(), Some(47));
        progress.see(b"\r100% [====]\nSuccess!\nElapsed time: 0.123 s\n");
        assert_eq!((progress.percent(), progress.last_line()), (Some(100), "Elapsed time: 0.123 s"));
        progress.see(b"\r\x1b[Kfwup: no such task\n");
        assert_eq!(progress.last_line(), "fwup: no such task");
    }

    #[test]
    fn endless_lines_cost_nothing() {
        let mut progress = Progress::default();
        progress.see(&[b'x'; 1_000_000]);
        assert!(progress.line.len() <= MAX_LINE);
    }
}
