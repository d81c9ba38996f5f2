//! The elastic queue between a client and the program that reads its input.
//!
//! russh gives a client new window as soon as data arrives, and then blocks the whole connection when its own
//! small queue for a channel is full: a program that does not read stops every other channel, keepalives
//! included, and with `cat big | ssh device cat | slow` both sides wait for each other for ever. So a pump takes
//! everything from russh at once and keeps it here: in memory within budgets, then on disk where that is
//! allowed, and only when all is used up does the pump stop and the client feels it through TCP.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::budget::Budget;
use super::output::Waiting;
use super::spool::Spool;

/// What one channel may hold in memory.
const CHANNEL_MEMORY: usize = 1 << 20;
/// What each piece costs besides its bytes.
const PIECE_COST: usize = 64;
/// Pieces below this are joined, or a flood of 1-byte packets would cost a hundred times its size.
const SMALL_PIECE: usize = 4 << 10;
const JOINED_PIECE: usize = 32 << 10;
/// How long a budget must have been used up before the disk is used.
const SPILL_AFTER: Duration = Duration::from_millis(200);
/// How often a stopped pump looks whether the client is still there.
const GONE_CHECK: Duration = Duration::from_secs(1);
/// How much a reader gets in one go.
const BATCH: usize = 256 << 10;
const BATCH_PIECES: usize = 16;

/// What the queues of one process, or one connection, share.
#[derive(Clone)]
pub struct Budgets {
    pub process: Arc<Budget>,
    pub connection: Arc<Budget>,
    pub spool: Arc<Budget>,
}

/// What happens when memory is used up.
#[derive(Clone)]
pub enum Overflow {
    /// The pump stops: right for a program that reads as fast as its disk takes it, such as fwup.
    Stop,
    /// The rest goes to an unlinked file in this folder.
    Spill(PathBuf),
    /// The same, but only when output waits for the client too and both would wait for each other: right for a program
    /// that writes its input to a disk, which would have to take everything twice.
    SpillIfStuck(PathBuf, Waiting),
}

/// Input of one channel on its way to its program: in memory the older bytes, on disk those that came later.
pub struct Flow {
    state: Mutex<State>,
    /// The pump appends, the reader takes; only one of them at a time.
    spool: tokio::sync::Mutex<Option<Spool>>,
    /// Bytes or the end have come.
    filled: Notify,
    budgets: Budgets,
    /// Says whether the client's connection still stands, when it cannot be seen by reading.
    peer_is_gone: Box<dyn Fn() -> bool + Send + Sync>,
}

struct State {
    pieces: VecDeque<Bytes>,
    /// Small pieces that were joined; newer than `pieces`.
    tail: Vec<u8>,
    charged: usize,
    /// Bytes on disk. While there are any, nothing new goes to memory.
    spooled: usize,
    overflow: Overflow,
    end: End,
    /// Nobody reads any more; what comes is thrown away.
    discard: bool,
    /// Since when the pump has been waiting for room.
    stopped_since: Option<Instant>,
    /// When the last bytes went either way.
    active: Instant,
}

/// How the input ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It has not.
    Open,
    /// The client has sent EOF; the channel stands.
    Eof,
    /// The client has closed the channel or is gone.
    Gone,
}

impl Flow {
    pub fn new(budgets: Budgets, peer_is_gone: Box<dyn Fn() -> bool + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                pieces: VecDeque::new(),
                tail: Vec::new(),
                charged: 0,
                spooled: 0,
                overflow: Overflow::Stop,
                end: End::Open,
                discard: false,
                stopped_since: None,
                active: Instant::now(),
            }),
            spool: tokio::sync::Mutex::new(None),
            filled: Notify::new(),
            budgets,
            peer_is_gone,
        })
    }

    /// Says what happens when memory is used up; until then the pump stops.
    pub fn set_overflow(&self, overflow: Overflow) {
        self.state().overflow = overflow;
    }

    /// Moves everything that russh has for the channel into the queue, until the channel ends.
    pub async fn pump(self: Arc<Self>, mut channel: ChannelReadHalf) {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => self.push(data).await,
                ChannelMsg::Eof => self.finish(End::Eof),
                ChannelMsg::Close => break,
                // Window sizes are kept by russh; the rest is answered by the handler.
                _ => {}
            }
        }
        self.finish(End::Gone);
    }

    /// The next bytes, several pieces at once; `None` at the end of the input.
    pub async fn next(&self) -> Option<Vec<Bytes>> {
        loop {
            let filled = self.filled.notified();
            let spooled = {
                let mut state = self.state();
                let (batch, freed) = state.take_batch();
                if !batch.is_empty() {
                    drop(state);
                    self.give_back(freed);
                    return Some(batch);
                }
                if state.spooled == 0 && state.end != End::Open {
                    return None;
                }
                state.spooled
            };
            if spooled == 0 {
                filled.await;
                continue;
            }
            match self.take_spooled().await {
                Ok(block) if block.is_empty() => {}
                Ok(block) => return Some(vec![block]),
                Err(error) => {
                    warn!(%error, "cannot read back input from spool_dir; its session ends");
                    self.discard();
                    self.finish(End::Gone);
                    return None;
                }
            }
        }
    }

    /// Nobody will read any more: what is here and what comes is thrown away, so that the connection flows on.
    pub fn discard(&self) {
        let freed = {
            let mut state = self.state();
            state.discard = true;
            state.pieces.clear();
            state.tail = Vec::new();
            state.spooled = 0;
            std::mem::take(&mut state.charged)
        };
        self.give_back(freed);
        if let Ok(mut spool) = self.spool.try_lock() {
            *spool = None;
        }
    }

    /// How the input has ended so far.
    pub fn end(&self) -> End {
        self.state().end
    }

    /// Waits until the client has closed the channel or is gone.
    pub async fn gone(&self) {
        self.ended(End::Gone).await;
    }

    /// Waits until the input has ended at least like `end`.
    pub async fn ended(&self, end: End) {
        loop {
            let filled = self.filled.notified();
            if self.end() >= end {
                return;
            }
            filled.await;
        }
    }

    /// Bytes have gone over the channel.
    pub fn touch(&self) {
        self.state().active = Instant::now();
    }

    /// Ends the channel, as if its client had closed it, when nothing has gone over it for so long.
    pub async fn end_when_idle(flow: Weak<Self>, limit: Duration) {
        loop {
            let Some(strong) = flow.upgrade() else { return };
            let idle = strong.state().active.elapsed();
            if idle >= limit {
                info!("a channel ends: channel_timeout is over");
                return strong.finish(End::Gone);
            }
            drop(strong);
            sleep(limit - idle).await;
        }
    }

    /// Since when the client has been stopped because nothing more can be held.
    pub fn stopped_since(&self) -> Option<Instant> {
        self.state().stopped_since
    }

    /// The client is gone, whatever russh has seen of it.
    pub fn finish(&self, end: End) {
        let mut state = self.state();
        state.end = state.end.max(end);
        drop(state);
        self.filled.notify_waiters();
    }

    async fn push(&self, piece: Bytes) {
        let began = Instant::now();
        self.touch();
        let mut looked = began;
        loop {
            let (freed, spool_freed) = (self.budgets.process.freed(), self.budgets.spool.freed());
            if self.push_to_memory(&piece) || self.push_to_spool(&piece, began).await {
                self.state().stopped_since = None;
                self.filled.notify_waiters();
                return;
            }
            self.state().stopped_since.get_or_insert(began);
            let patience = if began.elapsed() < SPILL_AFTER { SPILL_AFTER } else { GONE_CHECK };
            let room = async {
                tokio::select! {
                    () = freed => {}
                    () = spool_freed => {}
                }
            };
            // Others may free room all the time, in which we must not forget to look.
            let _ = timeout(patience, room).await;
            if looked.elapsed() >= GONE_CHECK {
                looked = Instant::now();
                if (self.peer_is_gone)() {
                    self.discard();
                    self.finish(End::Gone);
                }
            }
        }
    }

    /// Takes the piece into memory, unless older bytes lie on disk or a budget is used up.
    fn push_to_memory(&self, piece: &Bytes) -> bool {
        let mut state = self.state();
        if state.discard {
            return true;
        }
        if state.spooled > 0 {
            return false;
        }
        let joins = piece.len() < SMALL_PIECE && state.tail.len() + piece.len() <= JOINED_PIECE;
        let cost = piece.len() + if joins && !state.tail.is_empty() { 0 } else { PIECE_COST };
        if state.charged == 0 {
            // Whoever holds nothing must be able to go on, or the others could stop it for ever.
            self.budgets.process.take_anyway(cost);
            self.budgets.connection.take_anyway(cost);
        } else {
            if state.charged + cost > CHANNEL_MEMORY || !self.budgets.connection.take(cost) {
                return false;
            }
            if !self.budgets.process.take(cost) {
                self.budgets.connection.give_back(cost);
                return false;
            }
        }
        state.charged += cost;
        if joins {
            state.tail.extend_from_slice(piece);
        } else {
            state.freeze_tail();
            state.pieces.push_back(piece.clone());
        }
        true
    }

    /// Appends the piece to the disk, where that is allowed and memory has been full for long enough.
    async fn push_to_spool(&self, piece: &Bytes, began: Instant) -> bool {
        let folder = {
            let state = self.state();
            let (folder, may_begin) = match &state.overflow {
                Overflow::Stop => return false,
                Overflow::Spill(folder) => (folder, true),
                Overflow::SpillIfStuck(folder, output) => (folder, output.since().is_some()),
            };
            if state.spooled == 0 && (!may_begin || began.elapsed() < SPILL_AFTER) {
                return false;
            }
            folder.clone()
        };
        let mut spool = self.spool.lock().await;
        let appended = match &mut *spool {
            Some(spool) => spool.append(piece.clone()).await,
            None => match Spool::open(folder.clone(), Arc::clone(&self.budgets.spool)).await {
                Ok(new) => spool.insert(new).append(piece.clone()).await,
                Err(error) => Err(error),
            },
        };
        let mut state = self.state();
        if state.discard {
            // Whoever threw the rest away could not have the file while it was written.
            *spool = None;
            return true;
        }
        match appended {
            Ok(true) => state.spooled += piece.len(),
            Ok(false) => return false,
            Err(error) => {
                warn!(%error, folder = %folder.display(), "cannot keep input on disk; the client waits instead");
                state.overflow = Overflow::Stop;
                return false;
            }
        }
        true
    }

    async fn take_spooled(&self) -> std::io::Result<Bytes> {
        let mut spool = self.spool.lock().await;
        let Some(spool) = &mut *spool else { return Ok(Bytes::new()) };
        let block = spool.take().await?;
        let mut state = self.state();
        state.spooled = state.spooled.saturating_sub(block.len());
        Ok(block)
    }

    fn give_back(&self, amount: usize) {
        self.budgets.connection.give_back(amount);
        self.budgets.process.give_back(amount);
    }

    /// A panic while the lock was held leaves a state that is still sound: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let charged = self.state().charged;
        self.give_back(charged);
    }
}

impl State {
    fn freeze_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    /// The oldest pieces, and what they had cost.
    fn take_batch(&mut self) -> (Vec<Bytes>, usize) {
        if self.pieces.is_empty() {
            self.freeze_tail();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = self.pieces.pop_front() {
            bytes += piece.len();
            batch.push(piece);
            if bytes >= BATCH || batch.len() >= BATCH_PIECES {
                break;
            }
        }
        let all = self.pieces.is_empty() && self.tail.is_empty();
        let cost = if all { self.charged } else { (bytes + batch.len() * PIECE_COST).min(self.charged) };
        self.charged -= cost;
        (batch, cost)
    }
}

#[cfg(test)]
mod tests;
