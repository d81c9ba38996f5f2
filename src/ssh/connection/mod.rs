//! One connection: from accept to its end, with what the rest of the worker may know of it.

pub mod admission;
mod guard;
pub(super) mod observer;
pub mod penalties;
mod rekeying;
pub mod turns;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use russh::Disconnect;
use russh::keys::PublicKey;
use russh::server::Handle;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::account::Found;
use super::channel::budget::Budget;
use super::handler::Handler;
use super::server::Server;
use crate::config::Ssh;
use crate::{sys, tasks};
use admission::{ConnectionId, Progress};
use guard::Guard;
use penalties::{Offence, Standing};

/// What all channels of one connection may hold in memory.
const CONNECTION_MEMORY: usize = 4 << 20;
/// Probes of an idle TCP connection: after a minute, every 10 s, six times (tcp(7)).
const TCP_KEEPALIVE: [(libc::c_int, libc::c_int); 3] =
    [(libc::TCP_KEEPIDLE, 60), (libc::TCP_KEEPINTVL, 10), (libc::TCP_KEEPCNT, 6)];
/// A client whose line has begun but not ended is looked at again after so long.
const PEEK_AGAIN: Duration = Duration::from_millis(50);

/// How long a client has to take why its connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a connection without channels is looked at.
const UNUSED_CHECK: Duration = Duration::from_secs(5);

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Ssh,
    /// The protocol of nerves_firmware_ssh alone.
    Legacy,
}

/// Who has logged in.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    /// `SHA256:…` of the key, or the method that needed none.
    pub fingerprint: String,
    /// All of it is needed.
    pub proofs: Vec<Proof>,
    /// As whom sessions run.
    pub account: Found,
}

/// What a login stands on. Should it be taken away, the connection ends (see `revocation`).
#[derive(Clone, Debug)]
pub enum Proof {
    /// It is listed.
    Key(PublicKey),
    /// authorized_keys_command, or a file of that user alone, knows it.
    KnownElsewhere(PublicKey),
    Certificate {
        key: PublicKey,
        authority: PublicKey,
    },
    /// A password, or that none is needed.
    User(String),
}

/// What is known of a connection while it lasts.
pub struct Connection {
    pub id: ConnectionId,
    pub service: Service,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub stream: Arc<TcpStream>,
    pub since: Instant,
    pub end: EndSignal,
    pub memory: Arc<Budget>,
    pub login: OnceLock<Login>,
    handle: OnceLock<Handle>,
    server: Arc<Server>,
    authenticated: AtomicBool,
    offence: OnceLock<Offence>,
    has_room_for_the_end: AtomicBool,
    greeted: Notify,
    uses: AtomicUsize,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// russh has read everything that has come, and waits for more.
    waits_for_client: AtomicBool,
}

impl Connection {
    /// It has come further; others may have to give way for what it may now cost.
    pub fn advance(&self, progress: Progress) {
        self.server.advance(self.id, progress);
    }

    /// Under which name somebody has logged in.
    pub fn user(&self) -> &str {
        self.login.get().map(|login| login.user.as_str()).unwrap_or_default()
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// It has logged in: the limits for strangers end, its place and its token are free again.
    pub fn log_in(&self, login: Login) {
        self.login.get_or_init(|| login);
        self.authenticated.store(true, Ordering::Relaxed);
        self.server.leave_admission(self.id, true);
    }

    /// Remembers what its source is punished for, should it end without a login.
    pub fn note(&self, offence: Offence) {
        self.offence.get_or_init(|| offence);
    }

    /// Lets our identification go out.
    pub fn greet(&self) {
        self.greeted.notify_one();
    }

    /// Ends the connection, soon, with a word to the client (RFC 4253 section 11.1) if it takes one.
    pub async fn disconnect(self: &Arc<Self>, why: &'static str) {
        if let Some(handle) = self.handle.get() {
            let told = handle.disconnect(Disconnect::NoMoreAuthMethodsAvailable, why.into(), "en".into());
            // The session reads its queue when its handler, which calls this, has returned.
            let _ = timeout(LAST_WORDS, told).await;
        }
        let connection = Arc::clone(self);
        tasks::spawn(async move {
            sleep(LAST_WORDS).await;
            connection.end.tell(why);
        });
    }

    /// Sets the class of our packets: whether somebody types on one of its channels.
    pub fn set_class(&self, ssh: &Ssh, is_interactive: bool) {
        set_class(&self.stream, if is_interactive { ssh.ipqos.interactive } else { ssh.ipqos.bulk });
    }

    /// Says that it serves for something, until what is returned is dropped.
    pub fn in_use(self: &Arc<Self>) -> InUse {
        self.uses.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    /// Ends the connection when it has had no channel for `unused_connection_timeout`. Holds neither it nor its
    /// socket meanwhile: a thousand short logins must not leave a thousand descriptors behind.
    pub fn end_when_unused(self: &Arc<Self>, ssh: &Ssh) -> impl Future<Output = ()> + Send + 'static {
        let limit = ssh.unused_connection_timeout.duration();
        let connection = Arc::downgrade(self);
        async move {
            let step = limit.min(UNUSED_CHECK);
            let mut unused = Duration::ZERO;
            while !limit.is_zero() {
                sleep(step).await;
                let Some(connection) = connection.upgrade() else { return };
                let is_used = connection.uses.load(Ordering::Relaxed) > 0;
                unused = if is_used { Duration::ZERO } else { unused + step };
                if unused >= limit {
                    return connection.end.tell("no channel for unused_connection_timeout");
                }
            }
        }
    }

    /// Ends the connection when an exchange of new session keys takes longer than `rekey_timeout`.
    pub fn end_when_rekeying_stalls(
        self: &Arc<Self>,
        ssh: &Ssh,
    ) -> impl Future<Output = ()> + Send + 'static {
        rekeying::watch(Arc::downgrade(self), ssh.rekey_timeout.duration())
    }

    /// Runs `task` beside the connection. Should it panic, the connection ends: its client would wait for ever.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = tasks::spawn(task);
        let handle = task.abort_handle();
        let connection = Arc::downgrade(self);
        tasks::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic())
                && let Some(connection) = connection.upgrade()
            {
                connection.end.tell("a task of it panicked");
            }
        });
        handle
    }

    /// Whether it has no future: it was told to end, or the client is gone. For those who do not read from it.
    pub fn is_over(&self) -> bool {
        if !self.has_room_for_the_end.swap(true, Ordering::Relaxed) {
            self.make_room_for_the_end();
        }
        self.has_ended()
    }

    /// The same for one that has taken nothing yet.
    pub fn has_ended(&self) -> bool {
        self.end.reason.get().is_some() || sys::peer_is_gone(self.stream.as_fd())
    }

    /// While nobody reads, the client's FIN waits behind the data that the kernel has no room for, and the kernel
    /// of a killed client goes on to offer both for minutes. The client may send no more than the window that
    /// russh has given it, so with room for that the FIN comes through.
    fn make_room_for_the_end(&self) {
        let window = self.server.settings().config.ssh.window_size.0;
        // Twice: a packet of each size costs the kernel more than its bytes.
        let room = libc::c_int::try_from(window * 2).unwrap_or(libc::c_int::MAX);
        let socket = self.stream.as_fd();
        // Above net.core.rmem_max only root may; up to there everybody (socket(7)).
        let _ = sys::set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room)
            .or_else(|_| sys::set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, room));
        let _ = sys::set_socket_option(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, room);
    }

    fn set_waits_for_client(&self, waits: bool) {
        self.waits_for_client.store(waits, Ordering::Relaxed);
    }

    pub fn count_read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn count_written(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes read and written on the wire.
    pub fn traffic(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }
}

/// A session or a forward of a connection.
pub struct InUse(Arc<Connection>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends a connection from outside: the stream under russh fails, which is the only end that is sure.
#[derive(Debug, Default)]
pub struct EndSignal {
    reason: OnceLock<&'static str>,
    waker: Mutex<Option<Waker>>,
    told: Notify,
}

impl EndSignal {
    /// Ends the connection; `reason` stands in the log.
    pub fn tell(&self, reason: &'static str) {
        self.reason.get_or_init(|| reason);
        self.told.notify_waiters();
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// Waits until the connection is told to end.
    async fn wait(&self) -> &'static str {
        loop {
            let told = self.told.notified();
            if let Some(reason) = self.reason.get() {
                return reason;
            }
            told.await;
        }
    }

    /// Fails if the connection was told to end, else wakes the task of `cx` when it is.
    fn watch(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.reason.get() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, *reason));
        }
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Ok(())
    }
}

/// Serves one accepted socket to its end.
pub async fn serve(server: Arc<Server>, stream: TcpStream, peer: SocketAddr, service: Service) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let local = stream.local_addr().unwrap_or(peer);
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    if server.standing(peer.ip(), local.ip()) == Standing::Closed {
        debug!(%peer, "closed: its source has a penalty");
        return;
    }
    let settings = server.settings();
    set_options(&stream, &settings.config.ssh);
    let connection = Arc::new(Connection {
        id: server.next_id(),
        service,
        peer,
        local,
        stream: Arc::new(stream),
        since: Instant::now(),
        end: EndSignal::default(),
        memory: Arc::new(Budget::new(CONNECTION_MEMORY)),
        login: OnceLock::new(),
        handle: OnceLock::new(),
        server: Arc::clone(&server),
        authenticated: AtomicBool::new(false),
        offence: OnceLock::new(),
        has_room_for_the_end: AtomicBool::new(false),
        greeted: Notify::new(),
        uses: AtomicUsize::new(0),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
        waits_for_client: AtomicBool::new(false),
    });
    debug!(%peer, id = connection.id, "ssh.connect");
    let entry = server.enter(&connection);
    let result = run(&server, &connection).await;
    drop(entry);
    if matches!(result, Err(super::handler::Error::Protocol(russh::Error::Join(_)))) {
        connection.note(Offence::Crash);
    }
    if let Some(&offence) = connection.offence.get()
        && !connection.is_authenticated()
    {
        server.punish(&connection, offence);
    }
    let reason = match result {
        Ok(()) => String::from("closed"),
        Err(error) => error.to_string(),
    };
    let (bytes_in, bytes_out) = connection.traffic();
    let seconds = connection.since.elapsed().as_secs();
    // The probe has shown nothing that could be taken away; nobody wants to hear of it each minute.
    if let Some(login) = connection.login.get().filter(|login| !login.proofs.is_empty()) {
        info!(%peer, user = login.user, seconds, bytes_in, bytes_out, reason, "ssh.disconnect");
        server.tell(
            "ssh.disconnect",
            &[
                ("MYELIN_PEER", &peer),
                ("MYELIN_USER", &login.user),
                ("MYELIN_KEY", &login.fingerprint),
                ("MYELIN_REASON", &reason),
                ("MYELIN_SECONDS", &seconds),
                ("MYELIN_BYTES_IN", &bytes_in),
                ("MYELIN_BYTES_OUT", &bytes_out),
            ],
        );
    } else {
        debug!(%peer, seconds, bytes_in, bytes_out, reason, "ssh.disconnect");
    }
}

async fn run(server: &Arc<Server>, connection: &Arc<Connection>) -> Result<(), super::handler::Error> {
    let settings = server.settings();
    let login_deadline = connection.since + settings.config.ssh.login_grace_time.duration();
    tokio::select! {
        () = wait_for_greeting(connection) => {}
        reason = connection.end.wait() => return Err(io::Error::other(reason).into()),
        () = tokio::time::sleep_until(login_deadline) => {
            return Err(io::Error::other("login_grace_time is over").into());
        }
    }
    let guard = Guard::new(Arc::clone(connection), login_deadline);
    let handler = Handler::new(Arc::clone(server), Arc::clone(connection), Arc::clone(&settings));
    let hello = settings.config.ssh.hello_timeout.duration();
    let session = timeout(hello, russh::server::run_stream(settings.russh_config(), guard, handler))
        .await
        .map_err(|_| io::Error::other("no identification within hello_timeout"))??;
    connection.handle.get_or_init(|| session.handle());
    session.await
}

/// Waits until the rate of this source allows our identification, and notes meanwhile when the client's comes.
async fn wait_for_greeting(connection: &Connection) {
    let greeted = connection.greeted.notified();
    connection.server.greet_waiting();
    tokio::select! {
        () = greeted => {}
        () = watch_for_identification(connection) => {}
    }
}

/// Tells when the client's line has come; never ends while the client is there.
async fn watch_for_identification(connection: &Connection) {
    // The longest line of RFC 4253 section 4.2.
    let mut line = [0; 255];
    loop {
        match connection.stream.peek(&mut line).await {
            // It has gone: russh will see the same and end.
            Ok(0) | Err(_) => return,
            Ok(length) if line.get(..length).is_some_and(|line| line.contains(&b'\n')) => {
                connection.advance(Progress::Identified);
                connection.server.greet_waiting();
                return connection.greeted.notified().await;
            }
            Ok(_) => sleep(PEEK_AGAIN).await,
        }
    }
}

fn set_options(stream: &TcpStream, ssh: &Ssh) {
    // None of these is worth a connection: the kernel's defaults serve as well, only slower to notice an end.
    let _ = stream.set_nodelay(ssh.no_delay);
    let socket = stream.as_fd();
    if ssh.tcp_keep_alive {
        let _ = sys::set_socket_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        for (name, value) in TCP_KEEPALIVE {
            let _ = sys::set_socket_option(socket, libc::IPPROTO_TCP, name, value);
        }
    }
    let milliseconds =
        libc::c_int::try_from(ssh.tcp_user_timeout.duration().as_millis()).unwrap_or(libc::c_int::MAX);
    let _ = sys::set_socket_option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds);
    set_class(stream, ssh.ipqos.interactive);
}

/// Both families: a socket of one may carry the other.
fn set_class(stream: &TcpStream, class: Option<u8>) {
    let Some(class) = class.map(libc::c_int::from) else { return };
    let _ = sys::set_socket_option(stream.as_fd(), libc::IPPROTO_IP, libc::IP_TOS, class);
    let _ = sys::set_socket_option(stream.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class);
}
