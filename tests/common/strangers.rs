//! Strangers who connect and do not log in.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::PATIENCE;

/// A connection from an address of its own in 127/8.
pub async fn connect_from(number: u16, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let [high, low] = number.to_be_bytes();
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0)))?;
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

/// A connection of a stranger, and what it runs on.
pub type Held = (russh::client::Handle<Anybody>, Arc<tokio::net::TcpStream>);

/// So many connections, two from each address, that exchange keys and then send the most of a packet of 256 KiB. Says how
/// many got that far; they end with what is returned.
pub async fn half_sent_packets(port: u16, connections: u16) -> (usize, Vec<Held>) {
    // With GCM the length of a packet is sent in clear (RFC 5647 section 7.3), so that it can be announced
    // after the key exchange without the keys.
    let preferred = russh::Preferred {
        kex: vec![russh::kex::CURVE25519].into(),
        cipher: vec![russh::cipher::AES_128_GCM].into(),
        ..russh::Preferred::default()
    };
    let config = Arc::new(russh::client::Config { preferred, ..Default::default() });
    let (mut announced, mut held) = (0, Vec::new());
    for number in 0..connections {
        let stream = Arc::new(connect_from(number / 2, port).await.unwrap());
        let client = russh::client::connect_stream(Arc::clone(&config), Shared(Arc::clone(&stream)), Anybody);
        // Some give way to others before they get that far.
        let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, client).await else { continue };
        let half = [&(256_u32 << 10).to_be_bytes()[..], &[0; 200 << 10]].concat();
        let mut rest = &half[..];
        let sending = async {
            while !rest.is_empty() {
                stream.writable().await?;
                match stream.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            std::io::Result::Ok(())
        };
        if matches!(tokio::time::timeout(PATIENCE, sending).await, Ok(Ok(()))) {
            announced += 1;
        }
        held.push((client, stream));
    }
    (announced, held)
}

/// A client that trusts everybody.
pub struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// The client's side of a connection that anybody else may write to as well.
struct Shared(Arc<tokio::net::TcpStream>);

impl tokio::io::AsyncRead for Shared {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(out.initialize_unfilled()) {
                Ok(read) => {
                    out.advance(read);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return std::task::Poll::Ready(Err(error)),
            }
        }
    }
}

impl tokio::io::AsyncWrite for Shared {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return std::task::Poll::Ready(result),
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
