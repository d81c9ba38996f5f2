//! Where an archive comes from: a file, stdin, or frames on stdin. Counts what was read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

pub struct Input {
    source: Box<dyn Read>,
    count: Rc<Cell<u64>>,
}

impl Input {
    /// Opens an archive; no path or `-` is stdin, which alone can be framed.
    pub fn open(path: Option<&Path>, framed: bool, count: Rc<Cell<u64>>) -> io::Result<Self> {
        let source: Box<dyn Read> = match path.filter(|path| *path != Path::new("-")) {
            Some(path) => Box::new(File::open(path)?),
            None if framed => Box::new(Frames::new(io::stdin())),
            None => Box::new(io::stdin()),
        };
        Ok(Self { source, count })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

/// Takes frames off a stream: a length (4 bytes, big endian), so many bytes; a length of 0 is the end.
struct Frames<R> {
    stream: R,
    /// Left of the current frame.
    left: u32,
    ended: bool,
}

impl<R: Read> Frames<R> {
    fn new(stream: R) -> Self {
        Self { stream, left: 0, ended: false }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            self.left = u32::from_be_bytes(length);
            self.ended = self.left == 0;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let room = buffer.len().min(self.left as usize);
        let length = self.stream.read(&mut buffer[..room])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u32;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_joined_and_an_early_end_is_an_error() {
        let stream = b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\0rest";
        let mut text = String::new();
        Frames::new(&stream[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcd");
        for cut in [2, 5, 9] {
            assert!(Frames::new(&stream[..cut]).read_to_end(&mut Vec::new()).is_err(), "cut at {cut}");
        }
    }
}
