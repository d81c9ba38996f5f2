//! Who gets in: keys and passwords, how often they may be tried, and what is said to those who do not.

use russh::keys::{Algorithm, Certificate};
use russh::server::Auth;
use russh::{MethodKind, MethodSet};
use tracing::info;

use super::Handler;
use crate::ssh::authorized_keys::{AuthorizedKey, KeyList, Options, Source};
use crate::ssh::connection::Login;
use crate::ssh::connection::penalties::{Offence, Standing};
use crate::ssh::passwords::Users;
use crate::ssh::{algorithms, display};

/// Keys of one connection that are not listed and may be proved all the same, for one may have a certificate.
const MAX_GUESSES: u32 = 20;

/// What the client was told about the key that it offered last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    None,
    /// The key may log in, and the signature that is to follow is counted already.
    Good,
    /// It may have a certificate.
    Guess,
}

impl Handler {
    pub(super) fn reject(&self) -> Auth {
        // Named again each time, or russh takes a refused method off the list.
        let mut methods = vec![MethodKind::PublicKey];
        let ssh = &self.settings.config.ssh;
        if self.takes_passwords() {
            let asked = ssh.kbd_interactive_authentication.then_some(MethodKind::KeyboardInteractive);
            methods
                .extend(asked.into_iter().chain(ssh.password_authentication.then_some(MethodKind::Password)));
        }
        Auth::Reject { proceed_with_methods: Some(MethodSet::from(&methods[..])), partial_success: false }
    }

    /// Whether a password can let anybody in here.
    pub(super) fn takes_passwords(&self) -> bool {
        let (peer, local) = (self.connection.peer.ip(), self.connection.local.ip());
        !Users::collect(&self.settings.config).is_empty()
            && self.server.standing(peer, local) == Standing::Free
    }

    pub(super) fn refuse(&self, user: &str, method: &str, reason: &str) {
        let peer = self.connection.peer;
        let is_known = self.may_be(user).is_ok();
        self.connection.note(if is_known { Offence::WrongCredentials } else { Offence::UnknownUser });
        if let Some(unnamed) = self.server.count_failure(peer.ip()) {
            let user = display::name(user);
            info!(%peer, user, method, reason, unnamed, "ssh.auth.fail");
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
        if !self.takes_passwords() {
            return self.reject();
        }
        let check = Users::collect(&self.settings.config).entry(user);
        let right = self.server.check_password(check, password.to_vec()).await;
        match self.may_be(user).and(right) {
            Ok(()) => {
                info!(peer = %self.connection.peer, user = display::name(user), method, "ssh.auth.ok");
                self.login = Some(Login { user: display::name(user), fingerprint: method.into() });
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

    /// Whether somebody with a key that is not listed may have a certificate for it, which nobody knows before
    /// he has proved to have the key (russh shows the bare key).
    pub(super) fn may_have_certificate(&mut self, user: &str, algorithm: &Algorithm) -> bool {
        let config = &self.settings.config;
        let may = self.guesses < MAX_GUESSES
            && self.may_be(user).is_ok()
            && algorithms::accepted_key_algorithms(&config.ssh).contains(algorithm)
            && KeyList::collect(config).has_authority();
        self.guesses += u32::from(may);
        may
    }

    /// Whether this certificate lets in this user, who says so, and what he may do.
    pub(super) fn authorize_certificate(
        &self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<(Source, Options), &'static str> {
        self.may_be(user)?;
        let list = KeyList::collect(&self.settings.config);
        self.server.report_key_faults(&list);
        let (peer, size) = (self.connection.peer.ip(), self.settings.config.ssh.required_rsa_size);
        let (authority, options) = list.authorize_certificate(certificate, user, peer, size)?;
        Ok((authority.source.clone(), options))
    }

    /// What was said of the key that is proved now.
    pub(super) fn take_offer(&mut self) -> Offer {
        std::mem::replace(&mut self.offer, Offer::None)
    }

    /// Counts an attempt to prove a key, and says whether it may be made; with one too many the connection ends.
    pub(super) async fn may_try(&mut self) -> bool {
        self.tries += 1;
        let may = self.tries <= self.settings.config.ssh.max_auth_tries;
        if !may {
            self.connection.note(Offence::WrongCredentials);
            self.connection.disconnect("Too many authentication failures").await;
        }
        may
    }
}
