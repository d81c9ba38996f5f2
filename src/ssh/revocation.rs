//! Connections end when the key or the user goes with which they have logged in.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use tracing::info;

use super::authorized_keys::{FileError, KeyList, Options};
use super::connection::Proof;
use super::connection::admission::ConnectionId;
use super::passwords::Users;
use super::server::Server;
use crate::tasks;

/// Who took the key away may be logged in with it, and sees by then that it was done.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ends them, if the configuration says so, and tells which. What is missing counts as removed only where `complete`:
/// a file that cannot be read must not throw everybody out, and neither must a folder that is gone: where nobody could
/// log in any more, who is there stays.
pub fn enforce(server: &Server, complete: bool) -> Vec<ConnectionId> {
    let settings = server.settings();
    if !settings.config.ssh.revoke_ends_sessions {
        return Vec::new();
    }
    let (list, users) = (KeyList::collect(&settings.config), Users::collect(&settings.config));
    let complete = complete
        && list.file_errors.iter().all(|error| matches!(error, FileError::RevokesNothing { .. }))
        && !(list.keys.is_empty() && users.is_empty());
    let mut ended = Vec::new();
    for connection in server.connections() {
        let Some(login) = connection.login.get() else { continue };
        let is_listed = |key: &PublicKey, is_authority: bool| {
            let is_it = |options: &Options| options.is_authority() == is_authority;
            list.keys.iter().any(|entry| entry.key.matches(key) && is_it(entry.key.options()))
        };
        let holds = |proof: &Proof| match proof {
            Proof::Key(key) => !list.is_revoked(key) && (!complete || is_listed(key, false)),
            Proof::KnownElsewhere(key) => !list.is_revoked(key),
            Proof::Certificate { key, authority } => {
                !list.is_revoked(key)
                    && !list.is_revoked(authority)
                    && (!complete || is_listed(authority, true))
            }
            Proof::User(name) => !complete || users.contains(name),
        };
        if login.proofs.iter().all(holds) {
            continue;
        }
        info!(peer = %connection.peer, user = login.user, "ssh.revoked: the connection ends");
        ended.push(connection.id);
        let connection = Arc::downgrade(&connection);
        tasks::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            if let Some(connection) = connection.upgrade() {
                connection.end.tell("its key or user was removed or revoked");
            }
        });
    }
    ended
}
