//! Memory for one segment, aligned to pages as O_DIRECT wants it.

use std::ops::{Deref, DerefMut};

use super::SEGMENT;

pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn new() -> Self {
        let memory = vec![0; SEGMENT + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, start }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + SEGMENT]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + SEGMENT]
    }
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        let buffers: Vec<_> = (0..8).map(|_| Buffer::new()).collect();
        assert!(buffers.iter().all(|buffer| buffer.as_ptr().addr() % PAGE == 0 && buffer.len() == SEGMENT));
    }
}
