//! Bounds for what is held on behalf of clients: one for the process, one for each connection, one a channel.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// An amount that many may take from and give back to.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// Takes `amount` if that much is left.
    pub fn take(&self, amount: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let fits = used.saturating_add(amount) <= self.limit;
        if fits {
            self.take_anyway(amount);
        }
        fits
    }

    /// Takes `amount` even over the limit: whoever holds nothing yet must be able to go on.
    pub fn take_anyway(&self, amount: usize) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn give_back(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Waits until somebody gives something back. Create the future before looking whether enough is left.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
