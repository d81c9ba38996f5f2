//! Who gets in: keys and passwords, how often they may be tried, and what is said to those who do not.

use std::sync::Arc;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PublicKey};
use russh::server::Auth;
use russh::{MethodKind, MethodSet};
use tracing::info;

use super::Handler;
use super::steps::Steps;
use crate::config::{Method, UserMode};
use crate::ssh::account::{Found, Person};
use crate::ssh::authorized_keys::{AuthorizedKey, KeyList, Options};
use crate::ssh::connection::penalties::{Offence, Standing};
use crate::ssh::connection::{Login, Proof};
use crate::ssh::passwords::{Answer, Users};
use crate::ssh::{algorithms, display};
use crate::tasks::aside;

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

/// A method that has succeeded, with what the log says of it.
pub struct Shown {
    pub method: Method,
    pub proof: Proof,
    pub key: Option<ShownKey>,
}

pub struct ShownKey {
    pub kind: String,
    pub fingerprint: String,
    /// Who says that it may log in.
    pub source: String,
    /// Name and number of a certificate.
    pub certificate: Option<(String, u64)>,
}

/// Why somebody gets in, and to do what.
pub struct Authorized {
    pub source: String,
    pub options: Options,
    pub proof: Proof,
}

/// How far somebody has come on the way in.
pub struct Entrance {
    user: Option<String>,
    person: Person,
    steps: Steps,
    /// Of the key, if one was among the steps.
    fingerprint: Option<String>,
    proofs: Vec<Proof>,
}

impl Entrance {
    pub fn new(user: Option<&str>, person: Person, lists: Vec<Vec<Method>>) -> Self {
        let user = user.map(str::to_owned);
        Self { user, person, steps: Steps::new(lists), fingerprint: None, proofs: Vec::new() }
    }

    pub fn account(&self) -> Found {
        self.person.account.clone()
    }
}

impl Handler {
    pub(super) fn reject(&self) -> Auth {
        self.go_on(false)
    }

    /// Names what may come next, each time, or russh takes a refused method off the list.
    fn go_on(&self, partial_success: bool) -> Auth {
        let kind = |method| match method {
            Method::PublicKey => MethodKind::PublicKey,
            Method::Password => MethodKind::Password,
            Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
        };
        let methods = Method::ALL.into_iter().filter(|&method| self.takes(method)).map(kind);
        let methods = MethodSet::from(&methods.collect::<Vec<_>>()[..]);
        Auth::Reject { proceed_with_methods: Some(methods), partial_success }
    }

    /// Somebody asks to be let in as `user`; for another name everything begins anew.
    pub(super) async fn begin(&mut self, user: &str) {
        if self.entrance.user.as_deref() == Some(user) {
            return;
        }
        let ssh = &self.settings.config.ssh;
        let person = if Person::is_known(ssh) {
            Person::like_us()
        } else {
            let (settings, name) = (Arc::clone(&self.settings), user.to_owned());
            let looked_up = aside(move || Person::look_up(&settings.config, &name)).await;
            looked_up.unwrap_or_else(|_| Person::unnamed()).with_own_keys(&self.settings, user).await
        };
        person.keys.warn_seldom();
        self.entrance = Entrance::new(Some(user), person, ssh.possible_methods());
        self.options = Options::default();
    }

    /// Whether `method` can succeed now.
    pub(super) fn takes(&self, method: Method) -> bool {
        let ssh = &self.settings.config.ssh;
        let can = match method {
            Method::PublicKey => ssh.pubkey_authentication || !self.passwords_exist(),
            _ => !ssh.disables(method) && self.takes_passwords(),
        };
        can && self.entrance.steps.allow(method)
    }

    fn passwords_exist(&self) -> bool {
        let ssh = &self.settings.config.ssh;
        let can_be_said = !ssh.disables(Method::Password) || !ssh.disables(Method::KeyboardInteractive);
        let exist = || !Users::collect(&self.settings.config).is_empty();
        can_be_said && self.entrance.person.passwords.unwrap_or_else(exist)
    }

    /// Whether a password can let anybody in here. With a penalty only somebody who has shown a key.
    pub(super) fn takes_passwords(&self) -> bool {
        let (peer, local) = (self.connection.peer.ip(), self.connection.local.ip());
        self.passwords_exist()
            && (self.entrance.fingerprint.is_some() || self.server.standing(peer, local) == Standing::Free)
    }

    /// Whether no password at all is enough for this user.
    pub(super) fn needs_nothing(&self, user: &str) -> bool {
        Users::collect(&self.settings.config).has_empty_password(user)
            && self.takes_passwords()
            && self.entrance.steps.any_is_enough()
            && self.may_be(user).is_ok()
    }

    /// Lets the user in after this, or asks for what is still missing.
    pub(super) fn pass(&mut self, shown: Shown) -> Auth {
        let is_enough = self.entrance.steps.pass(shown.method);
        let (key, method) = (shown.key.as_ref(), shown.method.name());
        let certificate = key.and_then(|key| key.certificate.as_ref());
        let user = display::name(self.entrance.user.as_deref().unwrap_or_default());
        info!(
            peer = %self.connection.peer,
            user,
            method,
            key_type = key.map(|key| &*key.kind),
            fingerprint = key.map(|key| &*key.fingerprint),
            source = key.map(|key| &*key.source),
            certificate = certificate.map(|(name, _)| display::name(name)),
            serial = certificate.map(|(_, serial)| serial),
            "{}",
            if is_enough { "ssh.auth.ok" } else { "ssh.auth.partial" }
        );
        self.entrance.proofs.push(shown.proof);
        if let Some(key) = shown.key {
            self.entrance.fingerprint = Some(key.fingerprint);
        }
        if !is_enough {
            return self.go_on(true);
        }
        if self.entrance.fingerprint.is_some() {
            self.server.trust(&self.connection);
        }
        self.login = Some(Login {
            user,
            fingerprint: self.entrance.fingerprint.take().unwrap_or_else(|| method.into()),
            proofs: std::mem::take(&mut self.entrance.proofs),
            account: self.entrance.account(),
        });
        Auth::Accept
    }

    pub(super) fn refuse(&self, user: &str, method: Method, reason: &str) {
        let peer = self.connection.peer;
        let is_known = self.may_be(user).is_ok();
        self.connection.note(if is_known { Offence::WrongCredentials } else { Offence::UnknownUser });
        if let Some(unnamed) = self.server.count_failure(peer.ip()) {
            let user = display::name(user);
            let method = method.name();
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

    /// Whether somebody may log in under this name, which `begin` has looked up.
    pub(super) fn may_be(&self, user: &str) -> Result<(), &'static str> {
        let ssh = &self.settings.config.ssh;
        ssh.lets_in(user)?;
        match &self.entrance.person.account {
            Err(reason) if ssh.user_mode == UserMode::System => Err(reason),
            // Without a `run_as` there are no sessions, but updates.
            _ => Ok(()),
        }
    }

    /// Goes on with the user if the password is right; else answers late, and ends the connection after a few.
    pub(super) async fn check_password(&mut self, user: &str, method: Method, password: &[u8]) -> Auth {
        let users = Users::collect(&self.settings.config);
        let answer = if self.settings.config.ssh.auth_command.is_empty() {
            self.server.check_password(users.entry(user), password.to_vec()).await
        } else {
            let peer = self.connection.peer;
            self.server.ask_auth_command(&self.settings.config, user, peer, method, password).await
        };
        let reason = match self.may_be(user).map(|()| answer) {
            Ok(Answer::Right) => {
                let proof = Proof::User(user.to_owned());
                return self.pass(Shown { method, proof, key: None });
            }
            Ok(Answer::Wrong(reason)) => users.obstacle(user).unwrap_or(reason),
            Err(reason) => reason,
            Ok(Answer::Disconnect) => {
                self.wrong_passwords = self.settings.config.ssh.password_tries;
                "auth_command ends the connection"
            }
        };
        self.refuse(user, method, reason);
        self.wrong_passwords += 1;
        // Not the same each time, so that nothing can be told from it (spec ssh.md 1.5.7).
        tokio::time::sleep(self.server.refusal_delay()).await;
        if self.wrong_passwords >= self.settings.config.ssh.password_tries {
            self.connection.disconnect("Too many authentication failures").await;
        }
        self.reject()
    }

    /// What the owner of this key may do if he logs in as this user, and who says so.
    pub(super) async fn authorize(
        &self,
        user: &str,
        key: &PublicKey,
        algorithm: &Algorithm,
    ) -> Result<Authorized, &'static str> {
        let config = &self.settings.config;
        config.ssh.lets_in(user)?;
        if !algorithms::accepted_key_algorithms(&config.ssh).contains(algorithm) {
            return Err("key type or signature not in pubkey_accepted_algorithms");
        }
        let list = KeyList::collect(config);
        self.server.report_key_faults(&list);
        self.server.remind_if_nobody_can_log_in(config, &list);
        let peer = self.connection.peer.ip();
        let authorized = |entry: &AuthorizedKey, proof| Authorized {
            source: entry.source.to_string(),
            options: entry.key.options().clone(),
            proof,
        };
        let elsewhere = |entry: &AuthorizedKey| authorized(entry, Proof::KnownElsewhere(key.clone()));
        let found = match list.authorize(key, peer) {
            Ok(entry) => Ok(authorized(entry, Proof::Key(key.clone()))),
            Err(reason) if list.is_revoked(key) => Err(reason),
            Err(reason) => match self.entrance.person.keys.authorize(key, peer) {
                Ok(entry) => Ok(elsewhere(entry)),
                Err(_) => {
                    let list = self.server.key_command.keys(config, user, key).await;
                    list.authorize(key, peer).map(elsewhere).map_err(|_| reason)
                }
            },
        };
        // Asked last, so that nobody can tell by the time which users there are.
        self.may_be(user).and(found)
    }

    /// Whether somebody with a key that is not listed may have a certificate for it, which nobody knows before
    /// he has proved to have the key (russh shows the bare key).
    pub(super) fn may_have_certificate(&mut self, user: &str, algorithm: &Algorithm) -> bool {
        let config = &self.settings.config;
        let may = self.guesses < MAX_GUESSES
            // Not whether the user exists: that would be told by it.
            && config.ssh.lets_in(user).is_ok()
            && algorithms::accepted_key_algorithms(&config.ssh).contains(algorithm)
            && KeyList::collect(config).has_authority();
        self.guesses += u32::from(may);
        may
    }

    /// What the owner of this certificate may do if he logs in as this user, and who says so.
    pub(super) fn authorize_certificate(
        &self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Authorized, &'static str> {
        self.may_be(user)?;
        let list = KeyList::collect(&self.settings.config);
        self.server.report_key_faults(&list);
        let (peer, size) = (self.connection.peer.ip(), self.settings.config.ssh.required_rsa_size);
        let (authority, options) = list.authorize_certificate(certificate, user, peer, size)?;
        let key = |data: &KeyData| PublicKey::new(data.clone(), "");
        let proof = Proof::Certificate {
            key: key(certificate.public_key()),
            authority: key(certificate.signature_key()),
        };
        Ok(Authorized { source: authority.source.to_string(), options, proof })
    }

    /// Whether a signature counts that has come now: one that was promised does, others while there are few.
    pub(super) async fn may_prove(&mut self) -> bool {
        std::mem::replace(&mut self.offer, Offer::None) != Offer::None || self.may_try().await
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
