//! One connection of an SSH client, for whoever needs one: the probe on a device, `myelin upload --builtin`.
//!
//! russh's client is generic over its handler and its stream, and every pair of those would be another copy of it in
//! the program. There is one pair here, and what differs is behind it.

use std::borrow::Cow;
use std::sync::Arc;

use russh::client::{self, DisconnectReason, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::algorithms::Kind;

/// What a connection runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection whose server has proved its key. It ends when this is dropped.
pub type Handle = client::Handle<Handler>;

/// Hears what the server says about itself.
pub trait Judge: Send {
    /// Whether this is the server that is meant. It has proved that it has the key.
    fn accepts(&mut self, key: &PublicKey) -> bool;
    /// A text that is shown before the login.
    fn banner(&mut self, _text: &str) {}
    /// Why it ends the connection.
    fn disconnected(&mut self, _text: &str) {}
}

pub struct Handler(Box<dyn Judge>);

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(self.0.accepts(key))
    }

    async fn auth_banner(&mut self, text: &str, _: &mut Session) -> Result<(), russh::Error> {
        self.0.banner(text);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.0.disconnected(&info.message);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// Exchanges keys, and asks the judge about the server's.
pub async fn connect(
    mut config: client::Config,
    stream: Box<dyn Stream>,
    judge: Box<dyn Judge>,
) -> Result<Handle, russh::Error> {
    // The largest group, which is russh's choice, costs a small board half a minute.
    config.gex = client::GexParams::new(2048, 3072, 8192)?;
    client::connect_stream(Arc::new(config), stream, Handler(judge)).await
}

/// What a client of ours offers: all that any configuration of our server can leave.
pub fn everything() -> Preferred {
    let of = |kind: Kind| kind.known().iter();
    let mut kex: Vec<_> = of(Kind::Kex).filter_map(|name| kex::Name::try_from(*name).ok()).collect();
    kex.extend([kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT]);
    Preferred {
        kex: kex.into(),
        key: of(Kind::PublicKey).filter_map(|name| name.parse().ok()).collect(),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: of(Kind::Cipher).filter_map(|name| cipher::Name::try_from(*name).ok()).collect(),
        mac: of(Kind::Mac).filter_map(|name| mac::Name::try_from(*name).ok()).collect(),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}
