//! Waiting for what the network brings, in a program that otherwise does one thing after the other.
//!
//! The client is no set of tasks: it logs in, sends, and is done. So its own code is plain functions, and only what
//! russh does between two of our steps runs in here. (Written with `async` all through, it was twice as much program.)

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout_at;

/// Runs futures, until the call's deadline and no longer.
pub struct Waits {
    runtime: Runtime,
    deadline: Instant,
}

/// The deadline is over, or the time of one wait.
#[derive(Clone, Copy, Debug)]
pub struct Over;

/// What stands for no deadline.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Waits {
    pub fn new(deadline: Option<Instant>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, deadline: deadline.unwrap_or_else(|| Instant::now() + FOREVER) })
    }

    /// Waits for this, and for nothing longer than the deadline.
    pub fn on<T>(&self, future: impl Future<Output = T>) -> Result<T, Over> {
        self.until(self.deadline, future)
    }

    /// The same with less time.
    pub fn at_most<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Over> {
        self.until(self.deadline.min(Instant::now() + limit), future)
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn until<T>(&self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, Over> {
        let mut result = Err(Over);
        self.drive(deadline, Box::pin(async { result = Ok(future.await) }));
        result
    }

    /// One for all futures.
    fn drive(&self, deadline: Instant, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        let _ = self.runtime.block_on(async { timeout_at(deadline.into(), future).await });
    }

    /// For streams that belong to the runtime.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }
}
