//! From a job to its client: data, then EOF, how it ended, CLOSE, in this order and from one place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::time::{Instant, sleep, timeout};

use super::flow::Flow;
use crate::tasks;

/// The extended data type of stderr (RFC 4254 section 5.2).
const STDERR: u32 = 1;
/// How long a job waits until its last messages have a place in the connection's queue.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// A client that takes no output for so long while it has filled everything we may hold is in a deadlock.
const DEADLOCK: Duration = Duration::from_secs(10);

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(u32),
    /// Killed by this signal; `true` if it left a core file.
    Signal(i32, bool),
}

/// The way to the client. A client that is gone swallows everything at once.
#[derive(Clone)]
pub struct Output {
    writer: Arc<ChannelWriteHalf<Msg>>,
    handle: Handle,
    flow: Arc<Flow>,
    waiting: Waiting,
}

/// Since when output has been waiting for the client's window, if it has.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<Instant>>>);

impl Waiting {
    pub fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Output {
    pub fn new(writer: Arc<ChannelWriteHalf<Msg>>, handle: Handle, flow: Arc<Flow>) -> Self {
        Self { writer, handle, flow, waiting: Waiting::default() }
    }

    /// Sends to the client's stdout, as its window allows; false when it is gone.
    pub async fn stdout(&self, data: Bytes) -> bool {
        self.send(self.writer.data_bytes(data)).await
    }

    /// The same to its stderr.
    pub async fn stderr(&self, data: Bytes) -> bool {
        self.send(self.writer.extended_data_bytes(STDERR, data)).await
    }

    /// Says that no more data follows; the other way stays open.
    pub async fn eof(&self) {
        // A connection that has ended needs no word of it.
        let _ = self.writer.eof().await;
    }

    /// Closes the channel without a word on how it ended. Send nothing afterwards.
    pub async fn close(&self) {
        let _ = self.writer.close().await;
    }

    /// Waits until the client has been stopped for long, with every queue full, and takes no output either.
    pub async fn deadlock(&self) {
        loop {
            let since = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() >= DEADLOCK);
            if since(self.flow.stopped_since()) && since(self.waiting.since()) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Says how the job ended and closes the channel. Send nothing afterwards.
    ///
    /// Returns once that is on its way, or when the connection has had no place for it for long: it then
    /// follows as soon as there is one (another channel may hold up the whole connection for minutes).
    pub async fn finish(&self, exit: Exit) {
        let Self { writer, handle, .. } = self.clone();
        // An error is the end of the connection, and of all this with it.
        let ending = tasks::spawn(async move {
            if writer.eof().await.is_err() {
                return;
            }
            let told = match exit {
                Exit::Status(status) => writer.exit_status(status).await.is_ok(),
                Exit::Signal(number, core) => {
                    let name = signal_name(number);
                    handle
                        .exit_signal_request(writer.id(), name, core, String::new(), "en".into())
                        .await
                        .is_ok()
                }
            };
            if told {
                let _ = writer.close().await;
            }
        });
        let _ = timeout(FINISH_LIMIT, ending).await;
    }

    /// A writer that waits for window is not woken when the channel closes, so both are waited for.
    async fn send(&self, sending: impl Future<Output = Result<(), russh::Error>>) -> bool {
        self.waiting.set(Some(Instant::now()));
        let sent = tokio::select! {
            biased;
            sent = sending => sent.is_ok(),
            () = self.flow.gone() => false,
        };
        self.waiting.set(None);
        self.flow.touch();
        sent
    }
}

/// The name without `SIG` (RFC 4254 section 6.10).
fn signal_name(number: i32) -> Sig {
    let name = nix::sys::signal::Signal::try_from(number).map_or("KILL", |signal| signal.as_str());
    Sig::Custom(name.strip_prefix("SIG").unwrap_or(name).into())
}
