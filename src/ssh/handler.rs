//! What a client asks for, and what it gets: the callbacks of russh for one connection.
//!
//! Each of them runs inside the loop that reads and writes the connection, so nothing here waits once it has
//! logged in: sessions run in tasks of their own.

mod authentication;
mod group_exchange;
mod sessions;
mod steps;

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use russh::client::GexParams;
use russh::kex::dh::groups::DhGroup;
use russh::keys::{Certificate, HashAlg};
use russh::server::{
    Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, Session as RusshSession, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty, Sig};
use thiserror::Error;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use self::authentication::{Authorized, Entrance, Offer, Shown, ShownKey};
use self::group_exchange::Turn;
use self::sessions::{Prepared, Slot, answer};
use super::account::Person;
use super::authorized_keys::Options;
use super::channel::flow::Flow;
use super::channel::pty::Terminal;
use super::channel::{Job, environment};
use super::connection::admission::Progress;
use super::connection::{Connection, Login, Proof, Service};
use super::display;
use super::forward::{Asked, Forwards, Target};
use super::server::{Server, Settings};
use super::subsystem::{self, Subsystem};
use crate::config::Method;
use crate::tasks;

/// Why a connection ended. Plain, so that an attacker's connection costs no backtrace.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Protocol(#[from] russh::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One connection's callbacks and channels.
pub struct Handler {
    server: Arc<Server>,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    tries: u32,
    entrance: Entrance,
    offer: Offer,
    guesses: u32,
    login: Option<Login>,
    wrong_passwords: u32,
    /// What the key that logged in may do.
    options: Options,
    /// A login of our own that may do nothing (see `probe`).
    is_probe: bool,
    /// While keys are exchanged.
    turn: Option<Turn>,
    channels: HashMap<ChannelId, Slot>,
    forwards: Forwards,
}

impl Handler {
    pub fn new(server: Arc<Server>, connection: Arc<Connection>, settings: Arc<Settings>) -> Self {
        let entrance = Entrance::new(None, Person::unnamed(), settings.config.ssh.possible_methods());
        let forwards = Forwards::new(Arc::clone(&server), Arc::clone(&connection), Arc::clone(&settings));
        Self {
            server,
            connection,
            settings,
            tries: 0,
            entrance,
            offer: Offer::None,
            guesses: 0,
            login: None,
            wrong_passwords: 0,
            options: Options::default(),
            is_probe: false,
            turn: None,
            channels: HashMap::new(),
            forwards,
        }
    }
}

impl russh::server::Handler for Handler {
    type Error = Error;

    async fn lookup_dh_gex_group(&mut self, wants: &GexParams) -> Result<Option<DhGroup>, Error> {
        // In a box, as nobody needs it by default: russh would have it in the state of each connection.
        let group: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(self.group(wants));
        Ok(group.await)
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, Error> {
        self.turn = None;
        self.connection.advance(Progress::Authenticating);
        Ok(self.settings.config.ssh.banner.clone())
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Error> {
        #[cfg(debug_assertions)]
        super::provoke::fault_if_asked(user, &self.connection);
        self.begin(user).await;
        if !self.needs_nothing(user) {
            return Ok(self.reject());
        }
        warn!(peer = %self.connection.peer, user = display::name(user), method = "none", "ssh.auth.ok: without a password");
        let (shown, proofs) = (display::name(user), vec![Proof::User(user.to_owned())]);
        let account = self.entrance.account();
        self.login = Some(Login { user: shown, fingerprint: "none".into(), proofs, account });
        Ok(Auth::Accept)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        self.begin(user).await;
        if !self.takes(Method::Password) {
            return Ok(self.reject());
        }
        Ok(self.check_password(user, Method::Password, password.as_bytes()).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        self.begin(user).await;
        if !self.takes(Method::KeyboardInteractive) {
            return Ok(self.reject());
        }
        let ssh = &self.settings.config.ssh;
        let Some(mut response) = response else {
            let said = |text: &str| Cow::Owned(text.replace("%u", &display::name(user)));
            return Ok(Auth::Partial {
                name: said(&ssh.kbd_interactive_name),
                instructions: said(&ssh.kbd_interactive_instruction),
                prompts: Cow::Owned(vec![(said(&ssh.kbd_interactive_prompt), false)]),
            });
        };
        let password = Zeroizing::new(response.next().unwrap_or_default().to_vec());
        Ok(self.check_password(user, Method::KeyboardInteractive, &password).await)
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        if self.server.probe.is_probe(offer.public_key, &self.connection) {
            return Ok(Auth::Accept);
        }
        self.begin(user).await;
        if !self.takes(Method::PublicKey) {
            return Ok(self.reject());
        }
        match self.authorize(user, offer.public_key, offer.algorithm).await {
            // Nothing is heard of a wrong signature, so what may follow counts here.
            Ok(_) if self.may_try().await => {
                self.offer = Offer::Good;
                Ok(Auth::Accept)
            }
            Ok(_) => Ok(self.reject()),
            Err(_) if self.may_have_certificate(user, offer.algorithm) => {
                self.offer = Offer::Guess;
                Ok(Auth::Accept)
            }
            Err(reason) => {
                self.refuse(user, Method::PublicKey, reason);
                Ok(self.reject())
            }
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        self.is_probe = self.server.probe.take(key.public_key, &self.connection);
        if self.is_probe {
            let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
            debug!(peer = %self.connection.peer, user = display::name(user), source = "probe", "ssh.auth.ok");
            let (user, account) = (display::name(user), Person::like_us().account);
            self.login = Some(Login { user, fingerprint, proofs: Vec::new(), account });
            return Ok(Auth::Accept);
        }
        self.begin(user).await;
        if !self.takes(Method::PublicKey) || !self.may_prove().await {
            return Ok(self.reject());
        }
        match self.authorize(user, key.public_key, key.algorithm).await {
            Ok(Authorized { source, options, proof }) => {
                self.options = options;
                let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
                let kind = key.algorithm.to_string();
                let key = Some(ShownKey { kind, fingerprint, source, certificate: None });
                Ok(self.pass(Shown { method: Method::PublicKey, proof, key }))
            }
            Err(reason) => {
                self.refuse(user, Method::PublicKey, reason);
                Ok(self.reject())
            }
        }
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Error> {
        self.begin(user).await;
        if !self.takes(Method::PublicKey) || !self.may_prove().await {
            return Ok(self.reject());
        }
        match self.authorize_certificate(user, certificate) {
            Ok(Authorized { source, options, proof }) => {
                self.options = options;
                let fingerprint = certificate.public_key().fingerprint(HashAlg::Sha256).to_string();
                let kind = certificate.algorithm().to_certificate_type();
                let certificate = Some((certificate.key_id().to_owned(), certificate.serial()));
                let key = Some(ShownKey { kind, fingerprint, source, certificate });
                Ok(self.pass(Shown { method: Method::PublicKey, proof, key }))
            }
            Err(reason) => {
                self.refuse(user, Method::PublicKey, reason);
                Ok(self.reject())
            }
        }
    }

    async fn auth_succeeded(&mut self, session: &mut RusshSession) -> Result<(), Error> {
        let Some(login) = self.login.take() else { return Ok(()) };
        // Not the probe: a device full of people who are logged in must not count as one that lets nobody in.
        if !self.is_probe && self.server.logged_in() >= self.settings.config.ssh.max_connections {
            warn!(peer = %self.connection.peer, "refused after login: max_connections is reached");
            let text = "too many connections on this device: end one, or raise max_connections";
            session.disconnect(Disconnect::TooManyConnections, text, "en")?;
            return Ok(());
        }
        if !self.is_probe {
            let method =
                if login.fingerprint.starts_with("SHA256:") { "publickey" } else { &login.fingerprint };
            self.server.tell(
                "ssh.auth.ok",
                &[
                    ("MYELIN_METHOD", &method),
                    ("MYELIN_PEER", &self.connection.peer),
                    ("MYELIN_USER", &login.user),
                    ("MYELIN_KEY", &login.fingerprint),
                ],
            );
        }
        self.connection.log_in(login);
        self.server.note_login();
        tasks::spawn(self.connection.end_when_unused(&self.settings.config.ssh));
        tasks::spawn(self.connection.end_when_rekeying_stalls(&self.settings.config.ssh));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut RusshSession,
    ) -> Result<(), Error> {
        let smallest = self.settings.config.ssh.min_remote_packet_size;
        // The library refuses 0 itself, with which a writer would wait for ever.
        if channel.writable_packet_size().await < smallest as usize {
            info!(peer = %self.connection.peer, smallest, "channel refused: the client takes smaller packets only");
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        // russh does not tell of the end of a channel that we have closed.
        self.channels
            .retain(|_, slot| !matches!(slot, Slot::Running(controls) if controls.strong_count() == 0));
        if self.channels.len() >= self.settings.config.ssh.max_sessions {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        let (reader, writer) = channel.split();
        let peer = Arc::clone(&self.connection);
        let flow = Flow::new(self.server.budgets(&self.connection), Box::new(move || peer.is_over()));
        self.connection.spawn(Arc::clone(&flow).pump(reader));
        let prepared = Prepared {
            in_use: self.connection.in_use(),
            writer,
            flow,
            environment: environment::Requested::default(),
            terminal: None,
        };
        self.channels.insert(id, Slot::Prepared(Box::new(prepared)));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let target = Target::Port { host: host.to_owned(), port };
        self.forwards.open(&self.options, target, channel, reply, session.handle());
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let target = Target::Socket(path.to_owned());
        self.forwards.open(&self.options, target, channel, reply, session.handle());
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut RusshSession,
    ) -> Result<bool, Error> {
        let bound = self.forwards.listen(&self.options, address, *port, &session.handle());
        *port = bound.map_or(*port, u32::from);
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut RusshSession,
    ) -> Result<bool, Error> {
        Ok(self.forwards.end(&Asked::Port { address: address.to_owned(), port }).await)
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut RusshSession) -> Result<bool, Error> {
        Ok(self.forwards.listen_at(&self.options, path, &session.handle()))
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut RusshSession,
    ) -> Result<bool, Error> {
        Ok(self.forwards.end(&Asked::Socket(path.to_owned())).await)
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut RusshSession) -> Result<bool, Error> {
        if self.prepared(id).is_none() {
            return Ok(false);
        }
        let socket = self.forwards.agent(&self.options, &session.handle());
        let given = socket.is_some();
        if let Some(prepared) = self.prepared(id) {
            prepared.environment.agent = socket;
        }
        Ok(given)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let terminal = Terminal::new(term, (columns, rows, width, height), modes);
        let allowed = self.options.allow_pty();
        let prepared = self.prepared(id).filter(|prepared| allowed && prepared.terminal.is_none());
        let yes = prepared.map(|prepared| prepared.terminal = Some(terminal)).is_some();
        answer(session, id, yes)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let settings = Arc::clone(&self.settings);
        let accepted = self.prepared(id).is_some_and(|prepared| {
            prepared.environment.accept(&settings.config.ssh.accept_env, name, value)
        });
        answer(session, id, accepted)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut RusshSession) -> Result<(), Error> {
        let job = match self.connection.service {
            Service::Legacy => Some(Job::Text(subsystem::legacy::NO_SHELL.into())),
            Service::Ssh => self.program(id, None, Job::shell),
        };
        self.start(id, job, "session:shell", None, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let job = match self.connection.service {
            Service::Legacy => Some(Job::Text(subsystem::legacy::NO_EXEC.into())),
            Service::Ssh => self.program(id, Some(command), |ssh, shell| Job::exec(ssh, shell, command)),
        };
        self.start(id, job, "session:command", Some(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        #[cfg(debug_assertions)]
        if super::provoke::fault_if_asked(name, &self.connection) {
            return answer(session, id, true);
        }
        #[cfg(debug_assertions)]
        if let Some(text) = super::provoke::forbidden_start(name).await {
            return self.start(id, Some(Job::Text(text.into())), "session:command", None, session);
        }
        if self.options.command().is_some() && self.connection.service == Service::Ssh {
            let job = self.program(id, Some(name.as_bytes()), |_, _| None);
            return self.start(id, job, "session:command", Some(name.as_bytes()), session);
        }
        let config = &self.settings.config;
        let added = subsystem::command::added(config);
        let found = Subsystem::find(name, &config.ssh, &added, self.connection.service);
        if found.is_none() {
            info!(peer = %self.connection.peer, name = display::name(name), "no such subsystem");
        }
        // On the listener of the legacy protocol a key's own command has no place, so it is not a key for it.
        let may = self.options.allow_subsystem(name) && self.options.command().is_none();
        if !may {
            info!(peer = %self.connection.peer, name = display::name(name), "the key's options forbid this subsystem");
        }
        let kind = format!("session:subsystem:{}", display::name(name));
        self.start(id, found.filter(|_| may).map(Job::Subsystem), &kind, None, session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        match self.channels.get_mut(&id) {
            Some(Slot::Running(controls)) => {
                if let Some(controls) = controls.upgrade() {
                    controls.resize((columns, rows, width, height));
                }
            }
            Some(Slot::Prepared(prepared)) => {
                if let Some(terminal) = &mut prepared.terminal {
                    terminal.resize((columns, rows, width, height));
                }
            }
            None => {}
        }
        answer(session, id, true)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _session: &mut RusshSession) -> Result<(), Error> {
        if let Some(Slot::Running(controls)) = self.channels.get(&id)
            && let Some(controls) = controls.upgrade()
        {
            controls.signal(&signal);
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        answer(session, id, false)
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut RusshSession) -> Result<(), Error> {
        debug!(peer = %self.connection.peer, channel = %id, "channel closed");
        self.channels.remove(&id);
        self.set_class();
        Ok(())
    }
}
