//! The stream under russh: what it reads and writes passes here, so that limits hold which russh lacks.
//!
//! Before login: a deadline, a bound for the bytes each way, and the observer. Always: a write without progress
//! ends, a connection that was told to end does, and small reads are served from a buffer, because russh reads
//! each packet in two steps.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Connection;
use super::observer::Observer;
use crate::sys;

/// Bytes each way before login: a key exchange and twenty keys offered fit ten times.
const MAX_BYTES_BEFORE_LOGIN: usize = 256 << 10;
/// A peer that takes nothing for so long is not there.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// The read buffer: small for strangers and for people who type, large once a read fills it.
const SMALL_BUFFER: usize = 4 << 10;
const LARGE_BUFFER: usize = 64 << 10;

/// Wraps the socket of one connection. Dropping it ends the connection for the peer.
pub struct Guard {
    stream: Arc<TcpStream>,
    connection: Arc<Connection>,
    observer: Observer,
    read_before_login: usize,
    written_before_login: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    login_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl Guard {
    pub fn new(connection: Arc<Connection>, login_deadline: Instant) -> Self {
        Self {
            stream: Arc::clone(&connection.stream),
            connection,
            observer: Observer::default(),
            read_before_login: 0,
            written_before_login: 0,
            buffer: vec![0; SMALL_BUFFER],
            start: 0,
            end: 0,
            login_deadline: Some(Box::pin(sleep_until(login_deadline))),
            write_deadline: None,
        }
    }

    /// What ends a connection whatever it does: it was told to, or its time to log in is over.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.connection.end.watch(cx)?;
        if self.connection.is_authenticated() {
            self.login_deadline = None;
        } else if let Some(deadline) = &mut self.login_deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "login_grace_time is over"));
        }
        Ok(())
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn count_before_login(&mut self, read: usize) -> io::Result<()> {
        // The client sends two small packets in a row before it switches Nagle's algorithm off; without an
        // immediate acknowledgement of the first, the second waits 40 ms for ours.
        let _ = sys::set_socket_option(self.stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1);
        self.read_before_login += read;
        if self.read_before_login > MAX_BYTES_BEFORE_LOGIN {
            return Err(io::Error::other("too many bytes before login"));
        }
        self.observer.see(self.buffer.get(..read).unwrap_or_default())?;
        self.connection.advance(self.observer.progress());
        Ok(())
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check(cx)?;
        if this.start == this.end {
            let filled = this.fill(cx);
            this.connection.set_waits_for_client(filled.is_pending());
            let read = ready!(filled)?;
            this.connection.count_read(read);
            if !this.connection.is_authenticated() {
                this.count_before_login(read)?;
            }
            (this.start, this.end) = (0, read);
        }
        let available = this.buffer.get(this.start..this.end).unwrap_or_default();
        let taken = available.get(..available.len().min(out.remaining())).unwrap_or_default();
        out.put_slice(taken);
        this.start += taken.len();
        if this.start == this.buffer.len()
            && this.buffer.len() < LARGE_BUFFER
            && this.connection.is_authenticated()
        {
            this.buffer = vec![0; LARGE_BUFFER];
            (this.start, this.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check(cx)?;
        loop {
            match this.stream.poll_write_ready(cx)? {
                Poll::Pending => break,
                Poll::Ready(()) => match this.stream.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(written) => {
                        this.write_deadline = None;
                        this.connection.count_written(written);
                        if !this.connection.is_authenticated() {
                            this.written_before_login += written;
                            if this.written_before_login > MAX_BYTES_BEFORE_LOGIN {
                                return Poll::Ready(Err(io::Error::other("too many bytes before login")));
                            }
                        }
                        return Poll::Ready(Ok(written));
                    }
                },
            }
        }
        this.connection.set_waits_for_client(false);
        let deadline =
            this.write_deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.stream, Shutdown::Write))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Others hold the socket too, to see whether the peer is still there; its end is here.
        let _ = shutdown(&self.stream, Shutdown::Both);
    }
}

fn shutdown(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    use nix::sys::socket::Shutdown as How;
    let how = match how {
        Shutdown::Read => How::Read,
        Shutdown::Write => How::Write,
        Shutdown::Both => How::Both,
    };
    match nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(stream), how) {
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
