//! The thread that writes segments while the next ones are unpacked. First in, first out.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::buffer::Buffer;
use super::{DiskError, Medium};
use crate::tasks;

pub struct Writer {
    shared: Arc<Shared>,
    /// Started with the first job; it ends when the sender is gone.
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

struct Job {
    index: u64,
    buffer: Arc<Buffer>,
}

struct Shared {
    medium: Medium,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Jobs handed over and not done.
    pending: usize,
    /// What went wrong first; nothing more is written until it was taken.
    error: Option<DiskError>,
    /// The thread has ended, whatever the reason.
    ended: bool,
}

impl Writer {
    pub fn new(medium: Medium) -> Self {
        let shared = Shared { medium, state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), thread: None }
    }

    pub fn medium(&self) -> &Medium {
        &self.shared.medium
    }

    /// Hands over a segment; waits while too many are under way. The error is that of an earlier one.
    pub fn submit(&mut self, index: u64, buffer: Arc<Buffer>) -> Result<(), DiskError> {
        if self.thread.is_none() {
            self.thread = Some(start(Arc::clone(&self.shared))?);
        }
        let mut state = self.shared.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        state.pending += 1;
        drop(state);
        let sent = self.thread.as_ref().and_then(|(jobs, _)| jobs.send(Job { index, buffer }).ok());
        sent.ok_or(DiskError::Writer { source: io::ErrorKind::BrokenPipe.into() })
    }

    /// Waits until everything handed over is written.
    pub fn wait_idle(&self) -> Result<(), DiskError> {
        let mut state = self.shared.lock();
        while state.pending > 0 {
            if state.ended {
                return Err(DiskError::Writer { source: io::ErrorKind::BrokenPipe.into() });
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.error.take().map_or(Ok(()), Err)
    }

    /// Waits for the rest and closes the destination.
    pub fn close(self) -> Result<(), DiskError> {
        let written = self.wait_idle();
        if let Some((jobs, thread)) = self.thread {
            drop(jobs);
            // If it panicked, wait_idle has said so.
            let _ = thread.join();
        }
        let closed = match Arc::into_inner(self.shared) {
            Some(shared) => shared.medium.close(),
            None => Err(DiskError::Close { source: io::ErrorKind::ResourceBusy.into() }),
        };
        written.and(closed)
    }
}

fn start(shared: Arc<Shared>) -> Result<(SyncSender<Job>, JoinHandle<()>), DiskError> {
    let (sender, jobs) = sync_channel(LONGEST_QUEUE);
    let thread = thread::Builder::new().name("fwup writer".into()).stack_size(STACK);
    let thread = tasks::thread_of(thread, move || work(&shared, &jobs))
        .map_err(|source| DiskError::Writer { source })?;
    Ok((sender, thread))
}

fn work(shared: &Shared, jobs: &Receiver<Job>) {
    let _ended = Ended(shared);
    let mut scratch = None;
    for Job { index, buffer } in jobs {
        let failed = shared.lock().error.is_some();
        let result = if failed { Ok(()) } else { shared.medium.write_segment(index, &buffer, &mut scratch) };
        // Before the job counts as done: the cache wants its buffer back.
        drop(buffer);
        let mut state = shared.lock();
        state.pending -= 1;
        if let Err(error) = result {
            state.error.get_or_insert(error);
        }
        shared.changed.notify_all();
    }
}

/// Says that the thread has ended, also when it panicked: nobody must wait for it for ever.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Segments that wait: enough to keep the medium busy, little enough to be nothing in memory.
const LONGEST_QUEUE: usize = 8;
const STACK: usize = 128 * 1024;
