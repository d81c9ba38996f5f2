//! Between a channel and a stream of bytes: a pipe of a program, or a socket.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::flow::Flow;
use super::output::Output;

/// What is read in one go, and the largest piece that is sent.
pub const READ_SIZE: usize = 32 << 10;

/// Writes the input of a channel to `stream`, to its end.
pub async fn feed(flow: &Flow, stream: &mut (dyn AsyncWrite + Send + Unpin)) {
    while let Some(batch) = flow.next().await {
        for piece in batch {
            if stream.write_all(&piece).await.is_err() {
                // It reads no more, which is its right.
                return flow.discard();
            }
        }
    }
}

/// Sends what `stream` says to the client, until either has ended.
pub async fn fetch(stream: &mut (dyn AsyncRead + Send + Unpin), output: &Output, is_stderr: bool) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let data = buffer.split().freeze();
        let sent = if is_stderr { output.stderr(data).await } else { output.stdout(data).await };
        if !sent {
            return;
        }
    }
}
