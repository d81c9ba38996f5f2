//! BLAKE2b of a resource, computed beside unpacking and writing: it costs as much as they do.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use blake2::Blake2b256;
use blake2::digest::Digest;

use super::resource::CHUNK;
use crate::tasks;

pub enum Hash {
    /// Little data, or no thread to be had.
    Here(Blake2b256),
    Beside {
        work: SyncSender<(Vec<u8>, usize)>,
        /// Chunks to be used again.
        spare: Receiver<Vec<u8>>,
        thread: JoinHandle<()>,
        /// Once that has ended.
        result: Arc<Mutex<[u8; 32]>>,
    },
}

impl Hash {
    /// For data of about this size.
    pub fn new(size: u64) -> Self {
        if size <= WORTH_A_THREAD {
            return Self::Here(Blake2b256::new());
        }
        let (work, jobs) = sync_channel::<(Vec<u8>, usize)>(AHEAD);
        let (done, spare) = sync_channel(AHEAD + 2);
        let result = Arc::default();
        let finished = Arc::clone(&result);
        let builder = thread::Builder::new().name("fwup hash".into()).stack_size(STACK);
        let thread = tasks::thread_of(builder, move || {
            let mut hash = Blake2b256::new();
            for (chunk, length) in jobs {
                hash.update(&chunk[..length]);
                // Nobody may want it any more.
                let _ = done.try_send(chunk);
            }
            *lock(&finished) = hash.finalize().into();
        });
        match thread {
            Ok(thread) => Self::Beside { work, spare, thread, result },
            Err(_) => Self::Here(Blake2b256::new()),
        }
    }

    /// Adds the first bytes of a chunk; hands back a chunk to fill next.
    pub fn update(&mut self, chunk: Vec<u8>, length: usize) -> Vec<u8> {
        match self {
            Self::Here(hash) => {
                hash.update(&chunk[..length]);
                chunk
            }
            Self::Beside { work, spare, .. } => {
                // A thread that has died leaves a hash that cannot match.
                let _ = work.send((chunk, length));
                spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK])
            }
        }
    }

    pub fn finish(self) -> [u8; 32] {
        match self {
            Self::Here(hash) => hash.finalize().into(),
            Self::Beside { work, thread, result, .. } => {
                drop(work);
                // What it has not set when it has died cannot match either.
                let _ = thread.join();
                *lock(&result)
            }
        }
    }
}

fn lock(result: &Mutex<[u8; 32]>) -> MutexGuard<'_, [u8; 32]> {
    result.lock().unwrap_or_else(PoisonError::into_inner)
}

const WORTH_A_THREAD: u64 = 512 * 1024;
/// Chunks that wait to be hashed.
const AHEAD: usize = 4;
const STACK: usize = 128 * 1024;
