//! Where input waits that a program does not read: an unlinked file, used as a ring.
//!
//! It is a file on disk and not memory, so that a client cannot push the worker into the OOM killer; it has no
//! name, so that nothing is left over whatever happens.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::budget::Budget;
use crate::tasks::aside;

/// What one channel may keep on disk.
const CAPACITY: u64 = 64 << 20;
/// How much is read back in one go.
const BLOCK: usize = 256 << 10;

/// A first-in, first-out store of bytes on disk.
pub struct Spool {
    file: Arc<File>,
    /// Positions since the beginning of time; in the file they are taken modulo `CAPACITY`.
    read: u64,
    written: u64,
    budget: Arc<Budget>,
}

impl Spool {
    /// Opens an unnamed file in `folder`, made when missing (open(2), O_TMPFILE). A tmpfs is refused: it would be
    /// memory again.
    pub async fn open(folder: PathBuf, budget: Arc<Budget>) -> io::Result<Self> {
        let file = run(move || open_unnamed(&folder)).await?;
        Ok(Self { file: Arc::new(file), read: 0, written: 0, budget })
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.read == self.written
    }

    /// Appends `bytes` if there is room for them, and says whether there was.
    pub async fn append(&mut self, bytes: bytes::Bytes) -> io::Result<bool> {
        let length = bytes.len();
        let fits = self.written - self.read + length as u64 <= CAPACITY;
        if !fits || !self.budget.take(length) {
            return Ok(false);
        }
        let (file, at) = (Arc::clone(&self.file), self.written);
        run(move || write_ring(&file, at, &bytes)).await.inspect_err(|_| self.budget.give_back(length))?;
        self.written += length as u64;
        Ok(true)
    }

    /// Takes the oldest bytes, a block at most.
    pub async fn take(&mut self) -> io::Result<bytes::Bytes> {
        let length = usize::try_from(self.written - self.read).unwrap_or(BLOCK).min(BLOCK);
        let (file, at) = (Arc::clone(&self.file), self.read);
        let block = run(move || read_ring(&file, at, length)).await?;
        self.read += length as u64;
        self.budget.give_back(length);
        Ok(block.into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.budget.give_back(usize::try_from(self.written - self.read).unwrap_or(usize::MAX));
    }
}

fn open_unnamed(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let system = nix::sys::statfs::statfs(folder)?.filesystem_type();
    if system == nix::sys::statfs::TMPFS_MAGIC {
        return Err(io::Error::other("spool_dir lies in memory (tmpfs)"));
    }
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder)
}

/// Disks block, and everything else of the worker runs on this thread.
async fn run<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    aside(work).await.map_err(io::Error::other)?
}

fn write_ring(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let offset = at % CAPACITY;
    let until_end = usize::try_from(CAPACITY - offset).unwrap_or(usize::MAX).min(bytes.len());
    let (first, second) = bytes.split_at(until_end);
    file.write_all_at(first, offset)?;
    file.write_all_at(second, 0)
}

fn read_ring(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let offset = at % CAPACITY;
    let mut block = vec![0; length];
    let until_end = usize::try_from(CAPACITY - offset).unwrap_or(usize::MAX).min(length);
    let (first, second) = block.split_at_mut(until_end);
    file.read_exact_at(first, offset)?;
    file.read_exact_at(second, 0)?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_back_in_order_around_the_end_of_the_ring() {
        let budget = Arc::new(Budget::new(usize::MAX));
        let folder = std::env::current_dir().unwrap().join("target");
        let mut spool = Spool::open(folder, Arc::clone(&budget)).await.unwrap();
        let piece = |n: u32| bytes::Bytes::from(n.to_le_bytes().repeat(50_000));
        let (mut sent, mut taken) = (0, Vec::new());
        for _ in 0..500 {
            while spool.append(piece(sent)).await.unwrap() {
                sent += 1;
            }
            taken.extend_from_slice(&spool.take().await.unwrap());
        }
        assert!(sent > 700, "the ring went around more than twice: {sent}");
        while !spool.is_empty() {
            taken.extend_from_slice(&spool.take().await.unwrap());
        }
        assert_eq!(taken.len(), 200_000 * sent as usize);
        for (n, chunk) in taken.chunks(200_000).enumerate() {
            assert!(chunk == &piece(n as u32)[..], "piece {n}");
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_budget_bounds_it_and_gets_everything_back() {
        let budget = Arc::new(Budget::new(1000));
        let folder = std::env::current_dir().unwrap().join("target");
        let mut spool = Spool::open(folder, Arc::clone(&budget)).await.unwrap();
        assert!(spool.append(vec![1; 900].into()).await.unwrap());
        assert!(!spool.append(vec![1; 900].into()).await.unwrap());
        drop(spool);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_spool_in_memory_is_refused() {
        assert!(Spool::open("/dev/shm".into(), Arc::new(Budget::new(1))).await.is_err());
    }
}
