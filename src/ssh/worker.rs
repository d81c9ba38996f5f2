//! The worker process: its start, its accept loops, its signs of life, its end.

use std::io;
use std::net::TcpListener as StdListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::connection::{self, Service};
use super::host_keys::{self, HostKeys};
use super::revocation;
use super::server::{Server, Settings};
use super::{control, forward, probe};
use crate::config::{self, Source};
use crate::firmware::boot::Boot;
use crate::firmware::store;
use crate::logging::Seldom;
use crate::systemd::PassedFd;
use crate::tasks::{self, aside, task};
use crate::{files, launch, logging, sandbox, sys, systemd};

/// Between the supervisor, which goes last, and everything else.
const OOM_SCORE: &[u8] = b"-800";
/// After a failed accept: descriptors or memory are short, and a loop would make it worse.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Errors of accept(2) that go away when somebody else goes.
const SHORTAGES: [libc::c_int; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
/// After so many steps of tasks the loop looks at timers and sockets, busy or not. A step of an upload takes a slow board
/// a tenth of a second and more; with tokio's own 61 of them a sign of life came too late, and a login waited as long.
const EVENT_INTERVAL: u32 = 4;
/// A socket whose address is not bound yet is looked at again after so long.
const UNBOUND_PAUSE: Duration = Duration::from_millis(500);
/// How long sessions have to end when the worker does.
const FAREWELL: Duration = Duration::from_millis(2_500);

/// `myelin worker ssh`.
pub fn main(source: &Source) -> ExitCode {
    sys::set_process_name(c"myelin: ssh");
    let sockets = systemd::take_environment();
    let loaded = config::load(source);
    logging::start(&loaded.config);
    if sockets.is_empty() {
        error!("no sockets: start `myelin daemon`, or this worker by its systemd socket unit (LISTEN_FDS)");
        return ExitCode::FAILURE;
    }
    sys::set_oom_score(OOM_SCORE);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the event loop");
            return ExitCode::FAILURE;
        }
    };
    guard(&loaded.config, runtime.handle());
    match runtime.block_on(serve(source, loaded.config, sockets)) {
        Ok(()) => {
            // Disk work that still runs must not hold up the end.
            runtime.shutdown_background();
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "the ssh worker cannot run");
            ExitCode::FAILURE
        }
    }
}

/// From now on this thread starts no programs; others do. Where that cannot be had it serves all the same.
fn guard(config: &config::Config, runtime: &tokio::runtime::Handle) {
    let guarded = launch::begin(runtime);
    let sandbox = guarded.and_then(|()| if config.ssh.sandbox { sandbox::enter() } else { Ok(()) });
    // An error means mostly a kernel without seccomp filters.
    info!(on = config.ssh.sandbox && sandbox.is_ok(), error = ?sandbox.err(), "sandbox");
}

async fn serve(source: &Source, config: config::Config, sockets: Vec<PassedFd>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    for folder in [&config.state_dir, &config.state_dir.join("ssh")] {
        files::remove_leftovers(folder);
    }
    forward::remove_leftovers(&config);
    let keys = load_host_keys(&config);
    let pending = keys.pending.clone();
    let settings = Settings::new(source, config, keys);
    info!(fingerprints = ?settings.fingerprints, "host keys");
    let server = Server::new(settings);
    let mut loops = tokio::task::JoinSet::new();
    for socket in sockets {
        let service = if socket.name == "legacy" { Service::Legacy } else { Service::Ssh };
        let listener = StdListener::from(socket.fd);
        match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
            Ok(listener) => {
                server.add_listener(&socket.name, listener.local_addr());
                loops.spawn(task(accept(Arc::clone(&server), listener, service)));
            }
            // The others serve.
            Err(error) => error!(%error, name = socket.name, "cannot use a socket that was passed to us"),
        }
    }
    if loops.is_empty() {
        return Err(io::Error::other("none of the sockets that were passed to us can be used"));
    }
    let (greeter, watcher) = (Arc::clone(&server), Arc::clone(&server));
    loops.spawn(task(async move { greeter.greet_in_time().await }));
    loops.spawn(task(async move { watcher.watch_for_missing_keys().await }));
    loops.spawn(task(control::serve(Arc::clone(&server))));
    loops.spawn(task(systemd::give_signs_of_life()));
    loops.spawn(task(probe::keep_logging_in(Arc::clone(&server))));
    if !pending.is_empty() {
        loops.spawn(task(make_slow_keys(Arc::clone(&server), pending)));
    }
    systemd::tell("READY=1");
    sys::unmap_code();
    // Found once after boot, for the status; an update looks again under its lock. Beside the work, because a
    // disk that does not answer must not keep anybody out.
    let config = server.settings().config.clone();
    drop(aside(move || {
        let environment = store::read(&config.firmware).ok();
        let boot = Boot::current(&config.runtime_dir, environment.as_ref());
        info!(running = ?boot.running, boot_id = ?boot.id, "firmware");
    }));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&server),
            // A worker that says it lives but accepts no more would never be replaced.
            Some(ended) = loops.join_next() => ended.map_err(io::Error::other)?,
        }
    }
    systemd::tell("STOPPING=1");
    // The sockets go first, so that a new daemon can have the addresses.
    loops.shutdown().await;
    end_connections(&server).await;
    Ok(())
}

/// Accepts for ever. An error is the system's shortage, or an address that is not bound yet; it passes.
async fn accept(server: Arc<Server>, listener: TcpListener, service: Service) {
    let warnings = Seldom::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tasks::spawn(connection::serve(Arc::clone(&server), stream, peer, service));
                // Those who give way for it close before the next comes, or a burst takes every descriptor.
                tokio::task::yield_now().await;
            }
            // The supervisor has not got the address yet (accept(2)).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => sleep(UNBOUND_PAUSE).await,
            Err(error) => {
                if let Some(before) = warnings.is_due() {
                    warn!(%error, before, "cannot accept a connection; trying again");
                }
                // Whoever waits in the backlog may be the owner.
                if error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) {
                    server.shed_strangers();
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn load_host_keys(config: &config::Config) -> HostKeys {
    let keys = host_keys::load(config);
    for warning in &keys.warnings {
        warn!("host keys: {warning}");
    }
    keys
}

/// Makes keys that take long, one after the other, beside the work; then serves them too.
async fn make_slow_keys(server: Arc<Server>, pending: Vec<config::HostKeyType>) {
    for kind in pending {
        let config = server.settings().config.clone();
        match aside(move || host_keys::make(&config, kind)).await {
            Ok(Ok((_, warnings))) => {
                for warning in warnings {
                    warn!("host keys: {warning}");
                }
                reload(&server);
            }
            Ok(Err(error)) => warn!(%error, ?kind, "cannot make a host key"),
            Err(error) => warn!(%error, ?kind, "cannot make a host key"),
        }
    }
}

/// Reads configuration and host keys again. Live connections keep what they have, if their keys do.
fn reload(server: &Arc<Server>) {
    let source = server.settings().source.clone();
    let loaded = config::load(&source);
    for problem in &loaded.problems {
        warn!(%problem, "ssh.config");
    }
    let keys = load_host_keys(&loaded.config);
    server.replace_settings(Settings::new(&source, loaded.config, keys));
    revocation::enforce(server, loaded.problems.is_empty());
    info!("configuration read again; it holds for new connections");
}

/// Ends every connection and with them their programs, and waits until that has happened.
async fn end_connections(server: &Arc<Server>) {
    for connection in server.connections() {
        connection.end.tell("the daemon ends");
    }
    let all_ended = async {
        while !server.connections().is_empty() || !server.jobs().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(FAREWELL, all_ended).await.is_err() {
        for job in server.jobs() {
            job.kill(Signal::SIGKILL);
        }
    }
}
