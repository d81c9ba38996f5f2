//! A view of the next bytes of a stream: look ahead a little, take what is understood.

use std::io::{self, Read};

pub struct Window<R> {
    stream: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: vec![0; SIZE].into(), start: 0, end: 0, ended: false }
    }

    /// What is here already.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The next `count` bytes (few), or fewer where the stream ends before.
    pub fn look(&mut self, count: usize) -> io::Result<&[u8]> {
        debug_assert!(count <= MOST_AHEAD);
        while self.end - self.start < count && !self.ended {
            if self.buffer.len() - self.start < count {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            self.read_more()?;
        }
        Ok(self.bytes())
    }

    pub fn take(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The next `N` bytes, taken; an error when the stream ends before.
    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let array = self.look(N)?.first_chunk::<N>().copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.take(N);
        Ok(array)
    }

    /// The next `count` bytes, taken; the caller has limited the count.
    pub fn vec(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let here = self.look(1)?;
            if here.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part = here.len().min(count - bytes.len());
            bytes.extend_from_slice(&here[..part]);
            self.take(part);
        }
        Ok(bytes)
    }

    fn read_more(&mut self) -> io::Result<()> {
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(length) => {
                    self.ended = length == 0;
                    self.end += length;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

const SIZE: usize = 64 * 1024;
const MOST_AHEAD: usize = 1024;
