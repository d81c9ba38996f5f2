//! Who gets in: keys and passwords, how often they may be tried, and what is said to those who do not.

use russh::keys::Algorithm;
use russh::server::Auth;
use russh::{MethodKind, MethodSet};
use tracing::info;

use super::Handler;
use crate::ssh::authorized_keys::{AuthorizedKey, KeyList};
use crate::ssh::connection::{Login, Proof};
use crate::ssh::passwords::Users;
use crate::ssh::{algorithms, display};

impl Handler {
    pub(super) fn reject(&self) -> Auth {
        // Named again each time, or russh takes a refused method off the list.
        let mut methods = vec![MethodKind::PublicKey];
        let ssh = &self.settings.config.ssh;
        if !Users::collect(&self.settings.config).is_empty() {
            let asked = ssh.kbd_interactive_authentication.then_some(MethodKind::KeyboardInteractive);
            methods
                .extend(asked.into_iter().chain(ssh.password_authentication.then_some(MethodKind::Password)));
        }
        Auth::Reject { proceed_with_methods: Some(MethodSet::from(&methods[..])), partial_success: false }
    }

    pub(super) fn refuse(&self, user: &str, method: &str, reason: &str) {
        let peer = self.connection.peer;
        if let Some(unnamed) = self.server.count_failure(peer.ip()) {
            let user = display::name(user);
            info!(%peer, user, method, reason, unnamed, "ssh.auth.fail");
            self.server.tell(
                "ssh.auth.fail",
                &[
                    ("MYELIN_PEER", &peer),
                    ("MYELIN_USER", &user),
                    ("MYELIN_METHOD", &method),
                    ("MYELIN_REASON", &reason),
                ],
            );
        }
    }

    pub(super) fn may_be(&self, user: &str) -> Result<(), &'static str> {
        let allowed = &self.settings.config.ssh.allow_users;
        if !allowed.is_empty() && !allowed.iter().any(|name| name == user) {
            return Err("user not in allow_users");
        }
        Ok(())
    }

    /// Lets the user in if the password is right; else answers late, and ends the connection after a few.
    pub(super) async fn check_password(&mut self, user: &str, method: &'static str, password: &[u8]) -> Auth {
        let users = Users::collect(&self.settings.config);
        if users.is_empty() {
            return self.reject();
        }
        let check = users.entry(user);
        let right = self.server.check_password(check, password.to_vec()).await;
        match self.may_be(user).and(right) {
            Ok(()) => {
                info!(peer = %self.connection.peer, user = display::name(user), method, "ssh.auth.ok");
                let (shown, proof) = (display::name(user), Proof::User(user.to_owned()));
                self.login = Some(Login { user: shown, fingerprint: method.into(), proof });
                Auth::Accept
            }
            Err(reason) => {
                self.refuse(user, method, reason);
                self.wrong_passwords += 1;
                // Not the same each time, so that nothing can be told from it (spec ssh.md 1.5.7).
                tokio::time::sleep(self.server.refusal_delay()).await;
                if self.wrong_passwords >= self.settings.config.ssh.password_tries {
                    self.connection.disconnect("Too many authentication failures").await;
                }
                self.reject()
            }
        }
    }

    /// Whether this key may log in as this user, and who says so.
    pub(super) fn authorize(
        &self,
        user: &str,
        key: &russh::keys::PublicKey,
        algorithm: &Algorithm,
    ) -> Result<AuthorizedKey, &'static str> {
        self.may_be(user)?;
        let ssh = &self.settings.config.ssh;
        if !algorithms::accepted_key_algorithms(ssh).contains(algorithm) {
            return Err("key type or signature not in pubkey_accepted_algorithms");
        }
        let list = KeyList::collect(&self.settings.config);
        self.server.report_key_faults(&list);
        if list.keys.is_empty() && Users::collect(&self.settings.config).is_empty() {
            self.server.remind_of_missing_keys();
        }
        list.authorize(key, self.connection.peer.ip()).cloned()
    }

    /// Counts an attempt to prove a key, and says whether it may be made; with one too many the connection ends.
    pub(super) async fn may_try(&mut self) -> bool {
        self.tries += 1;
        let may = self.tries <= self.settings.config.ssh.max_auth_tries;
        if !may {
            self.connection.disconnect("Too many authentication failures").await;
        }
        may
    }
}
