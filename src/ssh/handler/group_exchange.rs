//! Groups for diffie-hellman-group-exchange-sha256: who gets one, which, and when.

use std::sync::Arc;
use std::time::Duration;

use russh::client::GexParams;
use russh::kex::dh::groups::DhGroup;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Handler;
use crate::ssh::connection::Connection;
use crate::ssh::connection::penalties::is_exempt;
use crate::ssh::connection::turns::ASK_AGAIN;
use crate::ssh::moduli::Wanted;
use crate::ssh::server::Server;
use crate::tasks::aside;

/// How long the disk may take for moduli_file.
const READ_LIMIT: Duration = Duration::from_secs(3);

/// A connection's turn to exchange keys, or its place among those that wait for theirs.
pub struct Turn {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

impl Turn {
    /// Waits for it; false once the connection has no future.
    async fn comes(&self, login_limit: Duration) -> bool {
        while !self.server.takes_turn(&self.connection) {
            if self.connection.has_ended() || self.connection.since.elapsed() > login_limit {
                return false;
            }
            sleep(ASK_AGAIN).await;
        }
        true
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.server.end_turn(self.connection.id);
    }
}

impl Handler {
    /// The group for what the client wants; none ends the connection. The library has refused limits that are none.
    pub(super) async fn group(&mut self, wants: &GexParams) -> Option<DhGroup> {
        let ssh = &self.settings.config.ssh;
        let (min, max) = (ssh.dh_gex_min as usize, ssh.dh_gex_max as usize);
        let limits = min.max(wants.min_group_size())..=max.min(wants.max_group_size());
        if limits.is_empty() {
            debug!(peer = %self.connection.peer, ?wants, "no group: not between dh_gex_min and dh_gex_max");
            return None;
        }
        let wanted = Wanted { size: wants.preferred_group_size(), limits };
        // One that renewed its keys without a login: the end of the old turn must not end the new one.
        self.turn = None;
        if !self.connection.is_authenticated()
            && !is_exempt(self.connection.peer.ip(), self.connection.local.ip())
        {
            let turn = Turn { server: Arc::clone(&self.server), connection: Arc::clone(&self.connection) };
            if !turn.comes(ssh.login_grace_time.duration()).await {
                return None;
            }
            self.turn = Some(turn);
        }
        let mut random = [0; 2];
        // Without randomness it is the same group each time.
        let _ = getrandom::fill(&mut random);
        let random = u16::from_le_bytes(random).into();
        let Some(file) = ssh.moduli_file.clone() else { return wanted.find(None, random) };
        let in_file = wanted.clone();
        match timeout(READ_LIMIT, aside(move || in_file.find(Some(&file), random))).await {
            Ok(Ok(group)) => group,
            _ => wanted.find(None, random),
        }
    }
}
