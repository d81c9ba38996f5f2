//! `raw_write`: a stream of bytes becomes whole blocks at an offset of the destination.

use crate::fwup::disk::cache::Cache;
use crate::fwup::disk::{BLOCK, DiskError};

/// Gathers bytes into blocks. What is missing of a block, at the end or around a hole, is zeros.
pub struct RawWriter {
    first_block: u64,
    /// The block that is not complete yet, and its number counted from the first one.
    partial: [u8; BLOCK],
    number: Option<u64>,
}

impl RawWriter {
    pub fn new(first_block: u64) -> Self {
        Self { first_block, partial: [0; BLOCK], number: None }
    }

    /// Bytes at a place counted from the start of the resource; places only grow.
    pub fn write(&mut self, cache: &mut Cache, at: u64, mut bytes: &[u8]) -> Result<(), DiskError> {
        let mut number = at / BLOCK as u64;
        let within = (at % BLOCK as u64) as usize;
        if self.number.is_some_and(|open| open != number) {
            self.flush(cache)?;
        }
        if within > 0 || self.number.is_some() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - within));
            self.partial[within..within + head.len()].copy_from_slice(head);
            self.number = Some(number);
            if within + head.len() < BLOCK {
                return Ok(());
            }
            self.flush(cache)?;
            bytes = rest;
            number += 1;
        }
        let (whole, tail) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
        if !whole.is_empty() {
            cache.write_blocks(self.block(number)?, whole, true)?;
            number += (whole.len() / BLOCK) as u64;
        }
        if !tail.is_empty() {
            self.partial[..tail.len()].copy_from_slice(tail);
            self.number = Some(number);
        }
        Ok(())
    }

    /// Writes the block that is not complete, filled with zeros.
    pub fn flush(&mut self, cache: &mut Cache) -> Result<(), DiskError> {
        if let Some(number) = self.number.take() {
            cache.write_blocks(self.block(number)?, &self.partial, true)?;
            self.partial = [0; BLOCK];
        }
        Ok(())
    }

    fn block(&self, number: u64) -> Result<u64, DiskError> {
        let block = self.first_block.checked_add(number);
        block.ok_or(DiskError::Absurd { block: self.first_block })
    }
}
