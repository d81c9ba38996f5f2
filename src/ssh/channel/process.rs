//! Programs on behalf of a client: shells, commands, subsystems of the image's own.
//!
//! Each is the leader of a session and process group of its own. When the client goes while it runs, the whole
//! group is ended; when it has ended by itself, what it left behind (`nohup`) lives on.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::environment;
use super::flow::{Flow, Overflow};
use super::output::{Exit, Output};
use super::pty::{self, Master};
use super::relay::{self, READ_SIZE};
use super::{Controls, Session, motd};
use crate::config::{DEFAULT_SHELL, Program};
use crate::ssh::account::Account;
use crate::tasks::{self, Task};
use crate::{launch, sys};

/// Room for input between us and a program that is busy.
const PIPE_SIZE: libc::c_int = 256 << 10;
/// How long open pipes of an ended program are still read: what it left behind may hold them for ever.
const LINGER: Duration = Duration::from_secs(1);
/// From SIGHUP to SIGTERM, and from there to SIGKILL, for the group of a client that is gone.
const TERM_AFTER: Duration = Duration::from_secs(1);
const KILL_AFTER: Duration = Duration::from_secs(4);
/// How long the client may take for the word that ends a deadlock.
const LAST_WORD: Duration = Duration::from_secs(10);
const DEADLOCK_TEXT: &str = "myelin: ended: the command and the client waited for each other, and all input that may \
                             be held was there; read the output sooner, or give the device a spool_dir on a disk\n";

/// A program and what it is called.
struct Recipe {
    words: Vec<OsString>,
    /// What the program sees as its own name; a login shell has a hyphen in front (login(1)).
    name: Option<OsString>,
    what: &'static str,
    /// Its input ends on the disk.
    writes_to_disk: bool,
}

pub async fn shell(session: Session, words: Vec<String>) {
    let base = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or("sh");
    let name = Some(format!("-{base}").into());
    let words = words.into_iter().map(OsString::from).collect();
    run(session, Recipe { words, name, what: "shell", writes_to_disk: false }).await;
}

pub async fn exec(session: Session, words: Vec<String>, command: Vec<u8>) {
    let words = words.into_iter().map(OsString::from).chain([OsString::from_vec(command)]).collect();
    run(session, Recipe { words, name: None, what: "exec", writes_to_disk: false }).await;
}

pub async fn subsystem(session: Session, words: Vec<String>) {
    let words = words.into_iter().map(OsString::from).collect();
    run(session, Recipe { words, name: None, what: "subsystem", writes_to_disk: false }).await;
}

/// A part of this program by its first word.
pub async fn applet(session: Session, name: &'static str, args: Vec<OsString>) {
    let words = ["/proc/self/exe".into(), name.into()].into_iter().chain(args).collect();
    // For those who look at the list of processes.
    run(session, Recipe { words, name: Some("myelin".into()), what: name, writes_to_disk: true }).await;
}

async fn run(session: Session, recipe: Recipe) {
    let output = session.output();
    let config = &session.settings.config;
    let spool = config.spool_dir();
    session.flow.set_overflow(if recipe.writes_to_disk {
        Overflow::SpillIfStuck(spool, output.waiting().clone())
    } else {
        Overflow::Spill(spool)
    });
    if recipe.what == "shell" && session.terminal.is_some() && config.ssh.print_motd {
        output.stdout(motd::text(config).await.into()).await;
    }
    let exit = match start(&session, &recipe).await {
        Ok(running) => running.see_through(&session, &output).await,
        Err(error) => {
            let program =
                recipe.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            warn!(program, %error, "cannot start it");
            output.stderr(format!("myelin: cannot start {program}: {error}\n").into()).await;
            // What a shell answers: not found, or not executable.
            Exit::Status(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    };
    session.flow.discard();
    output.finish(exit).await;
    let (peer, user) = (session.connection.peer, session.connection.user());
    info!(%peer, user, kind = recipe.what, ?exit, "ssh.session.close");
}

/// A program that runs, and our ends of what it reads and writes.
struct Running {
    child: Child,
    controls: Arc<Controls>,
    ends: Ends,
}

enum Ends {
    Pipes { stdin: ChildStdin, stdout: tokio::process::ChildStdout, stderr: tokio::process::ChildStderr },
    Terminal(Arc<Master>),
}

async fn start(session: &Session, recipe: &Recipe) -> io::Result<Running> {
    let (command, master) = prepare(session, recipe)?;
    let child = launch::launch(command).await?;
    attach(session, child, master)
}

/// The program, not started yet, and our side of its terminal.
fn prepare(session: &Session, recipe: &Recipe) -> io::Result<(Command, Option<OwnedFd>)> {
    let login = session.connection.login.get().ok_or(io::ErrorKind::PermissionDenied)?;
    let account = login.account.as_ref().map_err(|reason| io::Error::other(*reason))?;
    let shell = match (&account.shell, session.settings.config.ssh.shell()) {
        (Some(shell), _) => shell.clone(),
        (None, Program::Command(words)) => words.into_iter().next().unwrap_or_default(),
        (None, _) => DEFAULT_SHELL.into(),
    };
    let (connection, source) = (&session.connection, &session.settings.source);
    let (program, arguments) = recipe.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment::build(
        account,
        &shell,
        connection,
        source,
        &session.environment,
    ));
    if let Some(name) = &recipe.name {
        command.arg0(name);
    }
    let master = match &session.terminal {
        Some(terminal) => {
            let (master, slave) = terminal.open()?;
            command.env("TERM", &terminal.term);
            if let Some(rights) = &account.rights {
                pty::give(&slave, rights.of_terminal())?;
            }
            if let Ok(path) = nix::unistd::ttyname(&slave) {
                command.env("SSH_TTY", path);
            }
            set_streams(&mut command, &slave)?;
            // A second handle for the size, which the handler changes without waiting.
            session.controls.set_terminal(master.try_clone()?);
            Some(master)
        }
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            None
        }
    };
    become_leader(&mut command, master.is_some(), account);
    Ok((command, master))
}

fn attach(session: &Session, mut child: Child, master: Option<OwnedFd>) -> io::Result<Running> {
    let controls = Arc::clone(&session.controls);
    controls.set_group(child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0));
    let ends = match master {
        Some(master) => Ends::Terminal(Arc::new(Master::new(master)?)),
        None => {
            let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
            let stdin = child.stdin.take().ok_or_else(missing)?;
            sys::set_pipe_size(stdin.as_fd(), PIPE_SIZE);
            let stdout = child.stdout.take().ok_or_else(missing)?;
            Ends::Pipes { stdin, stdout, stderr: child.stderr.take().ok_or_else(missing)? }
        }
    };
    Ok(Running { child, controls, ends })
}

fn set_streams(command: &mut Command, slave: &OwnedFd) -> io::Result<()> {
    let end = || slave.try_clone().map(Stdio::from);
    command.stdin(end()?).stdout(end()?).stderr(end()?);
    Ok(())
}

/// Gives the program a session and group of its own, an end with the worker's, and no share in the protection
/// that the worker has from the kernel's out-of-memory killer; then the rights and the folder of its user.
fn become_leader(command: &mut Command, has_terminal: bool, account: &Account) {
    let take_on = account.taker();
    let parent = nix::unistd::getpid().as_raw();
    let prepare = move || {
        nix::unistd::setsid()?;
        if has_terminal {
            sys::set_controlling_terminal(io::stdin().as_raw_fd())?;
        }
        sys::set_oom_score(b"0");
        take_on()?;
        // Last, because the kernel forgets it when the user changes (PR_SET_PDEATHSIG(2const)).
        sys::die_with_parent(libc::SIGHUP, parent)
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

impl Running {
    /// Moves bytes both ways until the program ends, its client goes, or both wait for each other.
    async fn see_through(self, session: &Session, output: &Output) -> Exit {
        let Self { mut child, controls, ends } = self;
        let flow = &session.flow;
        let (input, mut relay): (JoinHandle<()>, Task) = match ends {
            Ends::Pipes { mut stdin, mut stdout, mut stderr } => {
                let flow = Arc::clone(flow);
                // The end of the pipe closes with the input.
                let input = tasks::spawn(async move { relay::feed(&flow, &mut stdin).await });
                let (out, err) = (output.clone(), output.clone());
                let relay = async move {
                    tokio::join!(
                        relay::fetch(&mut stdout, &out, false),
                        relay::fetch(&mut stderr, &err, true)
                    );
                };
                (input, Box::pin(relay))
            }
            Ends::Terminal(master) => {
                let input = tasks::spawn(feed_terminal(Arc::clone(flow), Arc::clone(&master)));
                let out = output.clone();
                (input, Box::pin(async move { relay_terminal(&master, &out).await }))
            }
        };
        let (mut relayed, mut deadlocked) = (false, false);
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = &mut relay, if !relayed => relayed = true,
                () = flow.gone() => break end_group(&mut child, &controls).await,
                () = output.deadlock() => {
                    warn!(peer = %session.connection.peer, "a session is in a deadlock; ending it");
                    deadlocked = true;
                    break end_group(&mut child, &controls).await;
                }
            }
        };
        controls.set_group(0);
        input.abort();
        if deadlocked {
            // The client's news of its window stand behind input that nobody takes: first that, then the word.
            flow.discard();
            let _ = timeout(LAST_WORD, output.stderr(DEADLOCK_TEXT.into())).await;
        } else if !relayed {
            let _ = timeout(LINGER, relay).await;
        }
        exit_of(status)
    }
}

async fn end_group(child: &mut Child, controls: &Controls) -> io::Result<ExitStatus> {
    let began = Instant::now();
    controls.kill(Signal::SIGHUP);
    // A stopped group would take no signal.
    controls.kill(Signal::SIGCONT);
    let waits = [(TERM_AFTER, Signal::SIGTERM), (TERM_AFTER + KILL_AFTER, Signal::SIGKILL)];
    for (after, signal) in waits {
        tokio::select! {
            status = child.wait() => {
                // The leader has ended; whoever of its group ignored SIGHUP has to go too.
                controls.kill(Signal::SIGTERM);
                sleep_until(began + TERM_AFTER).await;
                controls.kill(Signal::SIGKILL);
                return status;
            }
            () = sleep_until(began + after) => controls.kill(signal),
        }
    }
    child.wait().await
}

fn exit_of(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Status(code.cast_unsigned()),
            (None, Some(signal)) => Exit::Signal(signal, status.core_dumped()),
            (None, None) => Exit::Status(255),
        },
        Err(_) => Exit::Status(255),
    }
}

async fn feed_terminal(flow: Arc<Flow>, master: Arc<Master>) {
    while let Some(batch) = flow.next().await {
        for piece in batch {
            if master.write_all(&piece).await.is_err() {
                return flow.discard();
            }
        }
    }
}

async fn relay_terminal(master: &Master, output: &Output) {
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(length) = master.read(&mut buffer).await {
        let data = buffer.get(..length).unwrap_or_default();
        if data.is_empty() || !output.stdout(Bytes::copy_from_slice(data)).await {
            return;
        }
    }
}
