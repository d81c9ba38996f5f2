//! What the program says on stdout: plain text, or frames that another program reads.
//!
//! Errors go to stdout too: callers of fwup read one stream. Failing to print is no reason to stop an
//! update, so errors of stdout are dropped.

use std::fmt::Display;
use std::io::{self, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Progress,
    Warning,
    Error,
    Ok,
}

impl Kind {
    fn code(self) -> &'static [u8; 2] {
        match self {
            Self::Progress => b"PR",
            Self::Warning => b"WN",
            Self::Error => b"ER",
            Self::Ok => b"OK",
        }
    }
}

#[derive(Debug, Default)]
pub struct Output {
    framed: bool,
    /// A progress bar stands on the current line and must be cleared before text.
    bar: bool,
}

impl Output {
    pub fn use_frames(&mut self) {
        self.framed = true;
    }

    pub fn is_framed(&self) -> bool {
        self.framed
    }

    /// From here on a progress bar is on the screen.
    pub fn bar_begins(&mut self) {
        self.bar = true;
    }

    /// Something worth knowing that stops nothing.
    pub fn info(&self, text: impl AsRef<[u8]>) {
        self.message(Kind::Warning, text.as_ref());
    }

    /// The error that ends the run.
    pub fn error(&self, error: &dyn Display) {
        self.message(Kind::Error, error.to_string().as_bytes());
    }

    /// What the command was asked for; with frames also the sign that it succeeded.
    pub fn result(&self, text: impl AsRef<[u8]>) {
        if self.framed {
            self.frame(Kind::Ok, 0, text.as_ref());
        } else {
            self.plain(text.as_ref());
        }
    }

    pub fn progress_frame(&self, value: u16) {
        self.frame(Kind::Progress, value, &[]);
    }

    /// Bytes as they are, outside of any frame.
    pub fn plain(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    fn message(&self, kind: Kind, text: &[u8]) {
        if self.framed {
            return self.frame(kind, 0, text);
        }
        let clear: &[u8] = if self.bar { CLEAR_LINE } else { b"" };
        self.plain(&[clear, b"fwup: ", text, b"\n"].concat());
    }

    fn frame(&self, kind: Kind, code: u16, text: &[u8]) {
        let length = u32::try_from(text.len() + 4).unwrap_or(u32::MAX);
        self.plain(&[&length.to_be_bytes(), kind.code().as_slice(), &code.to_be_bytes(), text].concat());
    }
}

const CLEAR_LINE: &[u8] = b"\r\x1b[K";
