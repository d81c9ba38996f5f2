//! An open forward: bytes both ways between a channel and a socket, each way to its own end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::server::{Handle, Msg};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Shared;
use crate::config::ChannelTimeout;
use crate::ssh::channel::Output;
use crate::ssh::channel::flow::{Flow, Overflow};
use crate::ssh::channel::relay;
use crate::tasks;

/// How long a client has to close a channel that has ended both ways. russh forgets one that the client closes; of
/// one that we close it keeps some kilobytes as long as the connection lasts. But `ssh -W` leaves it to us.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);
/// The same once a connection has left us so many, be it over a slow line.
const PATIENT_CLOSE_LIMIT: Duration = Duration::from_secs(5);
const MANY_LEFT: usize = 256;
/// How long a socket may take for the rest, once the client has closed the channel.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// The two ways of a socket. Dropping the writer ends its way alone.
pub struct Ends {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl From<TcpStream> for Ends {
    fn from(stream: TcpStream) -> Self {
        // Without it typing is slow, and nothing else.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

impl From<UnixStream> for Ends {
    fn from(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

/// Moves bytes until both ways have ended or one side is gone, and closes the channel.
pub async fn carry(
    shared: &Arc<Shared>,
    kind: &str,
    channel: russh::Channel<Msg>,
    handle: Handle,
    ends: Ends,
) {
    let (reader, writer) = channel.split();
    let peer = Arc::clone(&shared.connection);
    let flow = Flow::new(shared.server.budgets(&shared.connection), Box::new(move || peer.is_over()));
    flow.set_overflow(Overflow::Spill(shared.settings.config.spool_dir()));
    if let Some(limit) = ChannelTimeout::find(&shared.settings.config.ssh.channel_timeout, kind) {
        tasks::spawn(Flow::end_when_idle(Arc::downgrade(&flow), limit));
    }
    let output = Output::new(Arc::new(writer), handle, Arc::clone(&flow));
    // In this task, so that it ends with it: russh does not tell of the end of a channel that we close.
    let mut pump = std::pin::pin!(Arc::clone(&flow).pump(reader));
    let mut work = std::pin::pin!(both_ways(&flow, &output, ends));
    tokio::select! {
        () = &mut pump => return work.await,
        () = &mut work => {}
        () = output.deadlock() => {
            warn!(peer = %shared.connection.peer, "a forward is in a deadlock; ending it");
            flow.discard();
        }
    }
    let left = shared.left_to_us.load(Ordering::Relaxed);
    let limit = if left < MANY_LEFT { CLOSE_LIMIT } else { PATIENT_CLOSE_LIMIT };
    if tokio::select! {
        () = &mut pump => false,
        () = sleep(limit) => true,
    } {
        shared.left_to_us.fetch_add(1, Ordering::Relaxed);
        output.close().await;
    }
}

async fn both_ways(flow: &Flow, output: &Output, ends: Ends) {
    let Ends { mut reader, mut writer } = ends;
    let out = async {
        relay::feed(flow, &mut *writer).await;
        // What it has not read is lost with an error of its own.
        let _ = writer.shutdown().await;
    };
    let back = async {
        tokio::select! {
            () = relay::fetch(&mut *reader, output, false) => output.eof().await,
            () = flow.gone() => {}
        }
    };
    let out = async {
        tokio::pin!(out);
        tokio::select! {
            () = &mut out => {}
            () = flow.gone() => {
                let _ = timeout(DRAIN_LIMIT, out).await;
            }
        }
    };
    tokio::join!(out, back);
}
