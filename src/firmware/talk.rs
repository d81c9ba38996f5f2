//! The talk with fwup: what the sender sends goes in, what fwup says goes back, and its last word is heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::ChildStdin;
use tokio::time::timeout;
use tracing::info;

use super::handshake::Handshake;
use super::progress::Progress;
use super::update::Sender;
use crate::pipe;

const READ_SIZE: usize = 32 << 10;
/// What is kept of the words of a fwup that is being ended.
const MAX_LAST_WORDS: usize = 64 << 10;
/// The longest line of fwup's stderr that is logged.
const MAX_LOG_LINE: usize = 256;

/// How far the talk is, for whoever looks on.
#[derive(Default)]
pub struct Talk {
    received: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    bytes: u64,
    handshake: Handshake,
    progress: Progress,
}

/// How feeding ended.
pub enum Fed {
    /// Everything was given to fwup, or it takes no more.
    All,
    /// The sender paused for too long.
    Idle,
}

impl Talk {
    /// Gives fwup what was read already and what the sender sends, as fast as it takes it.
    pub async fn feed(
        &self,
        mut stdin: ChildStdin,
        head: Vec<Bytes>,
        sender: &dyn Sender,
        idle_limit: Duration,
    ) -> Fed {
        let mut head = Some(head).filter(|head| !head.is_empty());
        loop {
            let next = match head.take() {
                Some(head) => Some(head),
                None => match timeout(idle_limit, sender.next()).await {
                    Ok(next) => next,
                    Err(_) => return Fed::Idle,
                },
            };
            let Some(mut pieces) = next else { return Fed::All };
            let bytes: usize = pieces.iter().map(Bytes::len).sum();
            self.received.fetch_add(bytes as u64, Ordering::Relaxed);
            if pipe::write_all(&mut stdin, &mut pieces).await.is_err() {
                // fwup reads no more; its own words say why.
                return Fed::All;
            }
        }
    }

    /// Passes on what fwup says, until it has said how it ended, or nobody is left who could say it: the end of
    /// its stdout, or `exited`, for which is only waited while there is nothing to read.
    pub async fn relay(
        &self,
        stdout: &mut (impl AsyncRead + Unpin),
        sender: &dyn Sender,
        exited: impl Future<Output = ()>,
    ) {
        tokio::pin!(exited);
        let mut buffer = BytesMut::new();
        while !self.handshake().is_over() {
            buffer.reserve(READ_SIZE);
            let read = tokio::select! {
                biased;
                read = stdout.read_buf(&mut buffer) => read,
                () = &mut exited => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            let text = self.hear(buffer.split().freeze());
            if !text.is_empty() {
                sender.stdout(text).await;
            }
        }
    }

    /// Hears a fwup that is done or to be ended, to the end of its stdout, without waiting for the sender.
    pub async fn hear_out(&self, stdout: &mut (impl AsyncRead + Unpin), last_words: &mut Vec<Bytes>) {
        let mut buffer = BytesMut::new();
        let mut kept = 0;
        loop {
            buffer.reserve(READ_SIZE);
            if !matches!(stdout.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
            let text = self.hear(buffer.split().freeze());
            if !text.is_empty() && kept + text.len() <= MAX_LAST_WORDS {
                kept += text.len();
                last_words.push(text);
            }
        }
    }

    fn hear(&self, read: Bytes) -> Bytes {
        let mut said = self.said();
        said.bytes += read.len() as u64;
        let text = said.handshake.take(read);
        said.progress.see(&text);
        text
    }

    pub fn handshake(&self) -> Handshake {
        self.said().handshake
    }

    pub fn percent(&self) -> Option<u8> {
        self.said().progress.percent()
    }

    /// fwup's last line that was not its progress bar.
    pub fn last_line(&self) -> String {
        self.said().progress.last_line().into()
    }

    /// Bytes from the sender.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A number that grows with everything that moves.
    pub fn moved(&self) -> u64 {
        self.received() + self.said().bytes
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// fwup's stderr: to the sender as it is, and line by line to the log.
pub async fn relay_stderr(mut stderr: impl AsyncRead + Unpin, sender: &dyn Sender) {
    let mut buffer = BytesMut::new();
    let mut line = Vec::new();
    loop {
        buffer.reserve(READ_SIZE);
        match stderr.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => return log_line(&mut line),
        }
        let text = buffer.split().freeze();
        for &byte in &text {
            match byte {
                b'\n' => log_line(&mut line),
                _ if line.len() < MAX_LOG_LINE => line.push(byte),
                _ => {}
            }
        }
        sender.stderr(text).await;
    }
}

fn log_line(line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line);
    if !text.trim().is_empty() {
        info!(line = text.trim(), "fwup");
    }
    line.clear();
}
