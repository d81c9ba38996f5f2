//! What all connections of the worker share: settings, places, budgets, and the list of who is there.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::authorized_keys::command::KeyCommand;
use super::authorized_keys::{self, KeyList, Reported};
use super::channel::Controls;
use super::channel::budget::Budget;
use super::channel::flow::Budgets;
use super::connection::Connection;
use super::connection::admission::{self, Admission, ConnectionId, Progress};
use super::connection::penalties::{self, Offence, Penalties, Standing};
use super::connection::turns::{self, Turns};
use super::events::Events;
use super::failures::Failures;
use super::host_keys::HostKeys;
use super::passwords::{self, Answer, Check, Users};
use super::{algorithms, probe};
use crate::config::{self, Config, Method, Source, UserMode};
use crate::tasks::aside;
use crate::{sys, systemd};

/// What all queues together may hold in memory and on disk.
const PROCESS_MEMORY: usize = 16 << 20;
const PROCESS_SPOOL: usize = 128 << 20;
/// Strangers get a quarter of the descriptors; a session needs several.
const STRANGERS_SHARE: usize = 4;
/// Descriptors that strangers do not get: what the owner's session needs when all others are in use.
const DESCRIPTORS_KEPT: usize = 16;
/// How often the log says that nobody can log in.
const NO_KEYS_REMINDER: Duration = Duration::from_secs(60);
/// Passwords that are checked at the same time.
const MAX_PASSWORD_CHECKS: usize = 4;

/// Names that are looked up at the same time; each takes a thread until the resolver gives up.
const MAX_LOOKUPS: usize = 8;

/// The addresses of a name, from a resolver that waits.
type LookUp = Box<dyn FnOnce() -> io::Result<std::vec::IntoIter<SocketAddr>> + Send>;

/// The configuration in force, and what was made of it. New connections get the newest.
pub struct Settings {
    pub source: Source,
    pub config: Config,
    pub russh: Arc<russh::server::Config>,
    /// `TYPE SHA256:…` of each host key.
    pub fingerprints: Vec<String>,
}

impl Settings {
    pub fn new(source: &Source, config: Config, keys: HostKeys) -> Arc<Self> {
        let fingerprints = keys.fingerprints();
        if config.ssh.possible_methods().is_empty() && !config.ssh.authentication_methods.0.is_empty() {
            warn!("authentication_methods are all switched off by other keys: any method is enough");
        }
        let user = nix::unistd::geteuid();
        if config.ssh.user_mode == UserMode::System && !user.is_root() {
            warn!(%user, "user_mode is \"system\", and the daemon does not run as root: only its own user can log in");
        }
        let russh = Arc::new(algorithms::server_config(&config.ssh, keys.keys, keys.certificates));
        Arc::new(Self { source: source.clone(), config, russh, fingerprints })
    }

    /// For one connection: it may have a name of its own.
    pub fn russh_config(&self) -> Arc<russh::server::Config> {
        match config::random_name(&self.config.ssh.version_string) {
            Some(letters) => {
                let mut config = algorithms::server_config(
                    &self.config.ssh,
                    self.russh.keys.clone(),
                    self.russh.certificates.clone(),
                );
                config.server_id = algorithms::random_id(letters);
                Arc::new(config)
            }
            None => Arc::clone(&self.russh),
        }
    }
}

/// The worker's state. Nothing in it must outlive a restart.
pub struct Server {
    pub started: Instant,
    pub probe: probe::Expected,
    pub key_command: KeyCommand,
    settings: RwLock<Arc<Settings>>,
    admission: Mutex<Admission>,
    connections: Mutex<HashMap<ConnectionId, Arc<Connection>>>,
    ids: AtomicU64,
    process_memory: Arc<Budget>,
    spool: Arc<Budget>,
    greet: Notify,
    last_no_keys_reminder: Mutex<Option<Instant>>,
    reported: Mutex<Reported>,
    failures: Mutex<Failures>,
    penalties: Mutex<Penalties>,
    turns: Mutex<Turns>,
    events: Events,
    password_checks: Semaphore,
    lookups: Arc<Semaphore>,
    jobs: Mutex<Vec<Weak<Controls>>>,
    served: AtomicBool,
    listening: Mutex<Vec<String>>,
}

impl Server {
    pub fn new(settings: Arc<Settings>) -> Arc<Self> {
        let max_startups = settings.config.ssh.max_startups;
        Arc::new(Self {
            started: Instant::now(),
            probe: probe::Expected::default(),
            key_command: KeyCommand::default(),
            settings: RwLock::new(settings),
            admission: Mutex::new(Admission::new(max_startups.min(descriptors() / STRANGERS_SHARE))),
            connections: Mutex::default(),
            ids: AtomicU64::new(1),
            process_memory: Arc::new(Budget::new(PROCESS_MEMORY)),
            spool: Arc::new(Budget::new(PROCESS_SPOOL)),
            greet: Notify::new(),
            last_no_keys_reminder: Mutex::new(None),
            reported: Mutex::default(),
            failures: Mutex::default(),
            penalties: Mutex::default(),
            turns: Mutex::default(),
            events: Events::default(),
            password_checks: Semaphore::new(MAX_PASSWORD_CHECKS),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            jobs: Mutex::default(),
            served: AtomicBool::new(false),
            listening: Mutex::default(),
        })
    }

    /// Remembers a socket for `myelin status`.
    pub fn add_listener(&self, name: &str, address: io::Result<SocketAddr>) {
        let address = address.map_or_else(|error| error.to_string(), |address| address.to_string());
        lock(&self.listening).push(if name == "ssh" { address } else { format!("{address} ({name})") });
    }

    /// The sockets that are served.
    pub fn listening(&self) -> Vec<String> {
        lock(&self.listening).clone()
    }

    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New connections get these; live ones keep theirs.
    pub fn replace_settings(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub fn next_id(&self) -> ConnectionId {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub fn budgets(&self, connection: &Connection) -> Budgets {
        Budgets {
            process: Arc::clone(&self.process_memory),
            connection: Arc::clone(&connection.memory),
            spool: Arc::clone(&self.spool),
        }
    }

    /// Takes a newcomer in, until what is returned is dropped, be it by a panic.
    pub fn enter(self: &Arc<Self>, connection: &Arc<Connection>) -> Entry {
        lock(&self.connections).insert(connection.id, Arc::clone(connection));
        let now = Instant::now();
        let mut admission = lock(&self.admission);
        let mut victims = admission.enter(connection.id, connection.peer.ip(), now);
        // The kernel gives the lowest number that is free, so a high one says that few are.
        let limit = descriptors();
        if usize::try_from(connection.stream.as_raw_fd()).is_ok_and(|fd| fd + DESCRIPTORS_KEPT >= limit) {
            victims.extend(admission.shrink(limit / STRANGERS_SHARE, Some(connection.id), now));
        }
        drop(admission);
        self.close(&victims);
        Entry { server: Arc::clone(self), id: connection.id }
    }

    pub fn advance(&self, id: ConnectionId, progress: Progress) {
        let victims = lock(&self.admission).advance(id, progress, Instant::now());
        self.close(&victims);
    }

    pub fn leave_admission(&self, id: ConnectionId, logged_in: bool) {
        lock(&self.admission).leave(id, logged_in);
    }

    /// Greets those whose turn it is, and sees to it that the others are not forgotten.
    pub fn greet_waiting(&self) {
        let greeted = lock(&self.admission).greet(Instant::now());
        let connections = lock(&self.connections);
        for connection in greeted.iter().filter_map(|id| connections.get(id)) {
            connection.greet();
        }
        self.greet.notify_one();
    }

    /// Greets those who have to wait, as their sources' rates allow. Runs as long as the worker.
    pub async fn greet_in_time(&self) {
        loop {
            let next = lock(&self.admission).next_greeting(Instant::now());
            match next {
                Some(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    let greeted = lock(&self.admission).greet(Instant::now());
                    let connections = lock(&self.connections);
                    for connection in greeted.iter().filter_map(|id| connections.get(id)) {
                        connection.greet();
                    }
                }
                None => self.greet.notified().await,
            }
        }
    }

    /// Everybody who is connected.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).values().cloned().collect()
    }

    /// How many have logged in.
    pub fn logged_in(&self) -> usize {
        lock(&self.connections).values().filter(|connection| connection.is_authenticated()).count()
    }

    /// Descriptors or memory are short: those who have not logged in make room.
    pub fn shed_strangers(&self) {
        let places = descriptors() / STRANGERS_SHARE;
        let victims = lock(&self.admission).shrink(places, None, Instant::now());
        self.close(&victims);
    }

    /// How many hold a place of those that have not logged in.
    pub fn strangers(&self) -> usize {
        lock(&self.admission).places()
    }

    /// Somebody has logged in: should this worker die, the next may start at once.
    pub fn note_login(&self) {
        if !self.served.swap(true, Ordering::Relaxed)
            && let Err(error) = systemd::notify("X_MYELIN_SERVED=1")
        {
            // The next login tells it.
            self.served.store(false, Ordering::Relaxed);
            info!(%error, "cannot tell the supervisor of the first login");
        }
    }

    /// Remembers a job for the end of the worker.
    pub fn add_job(&self, controls: &Arc<Controls>) {
        let mut jobs = lock(&self.jobs);
        jobs.retain(|job| job.strong_count() > 0);
        jobs.push(Arc::downgrade(controls));
    }

    /// The jobs that run.
    pub fn jobs(&self) -> Vec<Arc<Controls>> {
        lock(&self.jobs).iter().filter_map(Weak::upgrade).collect()
    }

    /// Names in the log what is wrong with authorized keys, each fault once.
    pub fn report_key_faults(&self, list: &KeyList) {
        lock(&self.reported).warn_new(list);
    }

    /// Counts a refused login, and says whether to log it, and how many were not logged before it.
    pub fn count_failure(&self, address: IpAddr) -> Option<u64> {
        lock(&self.failures).count(admission::Source::of(address), Instant::now())
    }

    /// How somebody from `peer` is met.
    pub fn standing(&self, peer: IpAddr, local: IpAddr) -> Standing {
        if !self.settings().config.ssh.per_source_penalties || penalties::is_exempt(peer, local) {
            return Standing::Free;
        }
        lock(&self.penalties).standing(admission::Source::of(peer), Instant::now())
    }

    /// The connection ended without a login, and did this before.
    pub fn punish(&self, connection: &Connection, offence: Offence) {
        let is_on = self.settings().config.ssh.per_source_penalties;
        if !is_on || penalties::is_exempt(connection.peer.ip(), connection.local.ip()) {
            return;
        }
        let source = admission::Source::of(connection.peer.ip());
        if let Some(length) = lock(&self.penalties).punish(source, offence, Instant::now()) {
            warn!(%source, seconds = length.as_secs(), reason = offence.name(), "ssh.penalty");
        }
    }

    /// Whether a connection that has not logged in may exchange keys in a group of its choice now; else it asks again.
    pub fn takes_turn(&self, connection: &Connection) -> bool {
        let source = admission::Source::of(connection.peer.ip());
        let turns::Answer::Go(ended) = lock(&self.turns).ask(connection.id, source, Instant::now()) else {
            return false;
        };
        if let Some(ended) = ended.and_then(|id| lock(&self.connections).get(&id).cloned()) {
            ended.end.tell("its key exchange took long, and others waited");
        }
        true
    }

    /// It has exchanged its keys, or waits no longer.
    pub fn end_turn(&self, id: ConnectionId) {
        lock(&self.turns).leave(id, Instant::now());
    }

    /// A key has logged in from there: a penalty leaves it the way in by keys.
    pub fn trust(&self, connection: &Connection) {
        lock(&self.penalties).trust(admission::Source::of(connection.peer.ip()), Instant::now());
    }

    /// Tells the program of `on_event`.
    pub fn tell(&self, event: &str, fields: &[(&'static str, &dyn std::fmt::Display)]) {
        self.events.tell(&self.settings().config.ssh.on_event, event, fields);
    }

    /// Checks a password beside the work; refused while too many are being checked, so that a flood of them
    /// costs a bounded share of the processors.
    pub async fn check_password(&self, check: Check, password: Vec<u8>) -> Answer {
        let Ok(_place) = self.password_checks.try_acquire() else { return Answer::TOO_MANY };
        let password = Zeroizing::new(password);
        let checked = aside(move || check.is_right(&password)).await;
        if checked.unwrap_or(false) {
            Answer::Right
        } else {
            Answer::Wrong("wrong password, or no such user")
        }
    }

    /// The same by a program of the image's own.
    pub async fn ask_auth_command(
        &self,
        config: &Config,
        user: &str,
        peer: SocketAddr,
        method: Method,
        password: &[u8],
    ) -> Answer {
        let Ok(_place) = self.password_checks.try_acquire() else { return Answer::TOO_MANY };
        passwords::ask(&config.ssh.auth_command, user, peer, method, password).await
    }

    /// Asks the resolver beside the work, where few do so at the same time: whoever waits no longer for it leaves
    /// its thread behind.
    pub async fn look_up(&self, ask: LookUp) -> io::Result<std::vec::IntoIter<SocketAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let asked = aside(move || {
            let _place = place;
            ask()
        });
        asked.await.map_err(io::Error::other)?
    }

    /// How long a wrong password waits for its answer: a second, more or less by a fifth. Fuzzing has no time for that.
    pub fn refusal_delay(&self) -> Duration {
        if cfg!(any(test, fuzzing)) {
            return Duration::ZERO;
        }
        let mut random = [0; 2];
        // Without randomness it is the shortest.
        let _ = getrandom::fill(&mut random);
        Duration::from_millis(800 + u64::from(u16::from_le_bytes(random)) * 400 / u64::from(u16::MAX))
    }

    /// Says how to add a key, at most once a minute, if these are all and there are no passwords either.
    pub fn remind_if_nobody_can_log_in(&self, config: &Config, list: &KeyList) {
        if !list.keys.is_empty()
            || !config.ssh.authorized_keys_command.is_empty()
            || authorized_keys::are_personal(&config.ssh)
            || !Users::collect(config).is_empty()
        {
            return;
        }
        let mut last = lock(&self.last_no_keys_reminder);
        let now = Instant::now();
        if last.is_none_or(|at| now.duration_since(at) >= NO_KEYS_REMINDER) {
            *last = Some(now);
            error!(
                "no key may log in: add one with `myelin keys add 'ssh-ed25519 AAAA…'` on the device, or as \
                 authorized_keys in its configuration"
            );
        }
    }

    /// Says so as long as nobody can log in, tried or not. Runs as long as the worker.
    pub async fn watch_for_missing_keys(&self) {
        loop {
            let config = &self.settings().config;
            self.remind_if_nobody_can_log_in(config, &KeyList::collect(config));
            tokio::time::sleep(NO_KEYS_REMINDER).await;
        }
    }

    fn close(&self, victims: &[ConnectionId]) {
        let connections = lock(&self.connections);
        for connection in victims.iter().filter_map(|id| connections.get(id)) {
            connection.end.tell("gave way to a newer connection before it logged in");
        }
    }
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    limits.map_or(usize::MAX, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// That a connection is on the server's lists.
pub struct Entry {
    server: Arc<Server>,
    id: ConnectionId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.server.leave_admission(self.id, false);
        let mut connections = lock(&self.server.connections);
        connections.remove(&self.id);
        if connections.is_empty() {
            sys::unmap_code();
        }
    }
}

/// A panic while a lock was held leaves maps that are still sound.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
