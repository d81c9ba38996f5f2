//! Lines, answers and bytes between the two halves.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

/// The longest line: a mode, a size and a name, with much to spare.
const MAX_LINE: u64 = 8 << 10;
const BUFFER: usize = 64 << 10;

/// The kinds of answers.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

pub struct Wire {
    input: BufReader<File>,
    output: File,
    /// What went wrong, on either side.
    pub errors: u32,
}

/// The next thing that a sender says.
pub enum Line {
    Record(Vec<u8>),
    /// It could not read something.
    Warning,
    End,
}

impl Wire {
    pub fn new() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self::over(input, output))
    }

    pub fn over(input: File, output: File) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, input), output, errors: 0 }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    pub fn accept(&mut self) -> io::Result<()> {
        self.write(&[0])
    }

    /// Tells the other side what is wrong; it goes on with the next file.
    pub fn complain(&mut self, about: &[u8], what: &str) -> io::Result<()> {
        self.errors += 1;
        self.write(&[b"\x01scp: ", about, b": ", what.as_bytes(), b"\n"].concat())
    }

    /// The same, and there is nothing more to be said.
    pub fn give_up(&mut self, about: &[u8], what: &str) -> io::Result<()> {
        self.complain(about, what)?;
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits for an answer; false when the other side refused.
    pub fn is_accepted(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        let [kind] = byte;
        if kind == 0 {
            return Ok(true);
        }
        self.rest_of_line()?;
        self.errors += 1;
        if kind == WARNING { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub fn line(&mut self) -> io::Result<Line> {
        let line = self.rest_of_line()?;
        match line.first() {
            None => Ok(Line::End),
            Some(&WARNING) => {
                self.errors += 1;
                Ok(Line::Warning)
            }
            Some(&FATAL) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(_) => Ok(Line::Record(line)),
        }
    }

    /// Up to and with the line's end; empty at the end of the input.
    fn rest_of_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let count = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if count > 0 && line.last() != Some(&b'\n') {
            return Err(io::Error::other("a line that does not end"));
        }
        Ok(line)
    }

    /// Hands the next `size` bytes to `take`, in pieces.
    pub fn take(&mut self, size: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            take(bytes.get(..count).unwrap_or_default());
            self.input.consume(count);
            left -= count as u64;
        }
        Ok(())
    }
}
