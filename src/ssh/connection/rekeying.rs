//! `rekey_timeout`: an exchange of new session keys that does not end.
//!
//! russh sends nothing else meanwhile, and a client that began one and goes on to say nothing of use would keep its
//! programs for ever. russh does not tell when it exchanges keys, but it takes no message from its queue then: so after
//! something was sent (an exchange begins with it, whoever wants it) a message that nobody gets is put there, and if
//! russh waits for its client all the time and does not take it, that is why.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelId;
use russh::keys::ssh_encoding::Decode;
use russh::server::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Connection;

/// How often it is looked at whether something was sent.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a message that was not taken is looked at.
const STEP: Duration = Duration::from_secs(1);

/// No bytes; tells when it is dropped.
struct Token(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>);

impl AsRef<[u8]> for Token {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

/// Ends the connection when such an exchange takes longer than `limit`. For after the login; before it there is another.
pub async fn watch(connection: Weak<Connection>, limit: Duration) {
    let mut taken_at = 0;
    loop {
        sleep(PAUSE).await;
        let Some(strong) = connection.upgrade() else { return };
        let (_, sent) = strong.traffic();
        let handle = strong.handle.get().filter(|_| sent != taken_at).cloned();
        drop(strong);
        let Some(handle) = handle else { continue };
        let taken = taken(handle);
        tokio::pin!(taken);
        let mut waited = Duration::ZERO;
        loop {
            tokio::select! {
                () = &mut taken => break,
                () = sleep(STEP) => {}
            }
            let Some(strong) = connection.upgrade() else { return };
            // Else it is busy: with a program that takes no input, or with a client that takes no output.
            let is_waiting = strong.waits_for_client.load(Ordering::Relaxed);
            waited = if is_waiting { waited + STEP } else { Duration::ZERO };
            if waited >= limit {
                return strong.end.tell("an exchange of keys did not end within rekey_timeout");
            }
        }
        taken_at = sent;
    }
}

/// Ends when russh takes a message for a channel that does not exist, or the connection has ended.
async fn taken(handle: Handle) {
    let (token, dropped) = oneshot::channel();
    // Channels are numbered from 0 on.
    let Ok(nobody) = ChannelId::decode(&mut [0xff; 4].as_slice()) else { return };
    // Of its errors the token's end tells.
    let _ = handle.data(nobody, Bytes::from_owner(Token(token))).await;
    let _ = dropped.await;
}
