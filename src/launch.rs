//! Programs are started by threads of their own, which read nothing that a peer sends and do nothing else.
//!
//! Whoever starts a program waits until the kernel has opened it (exec), so a disk that does not answer would stop the
//! one thread that serves everybody. And that thread may not start programs at all (`sandbox.rs`), which whatever it
//! starts would inherit. A process that has not called `begin`, such as a command, starts its programs itself.

use std::ffi::OsString;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::{sys, tasks};

/// How long whoever wants a program waits for its start.
const LIMIT: Duration = Duration::from_secs(10);
/// After so many seconds between fork and exec a process is ended, and gives its thread back. Longer than `LIMIT`, so
/// that nobody takes its end for that of a program that ran.
const EXEC_LIMIT: u8 = 12;
/// There is one thread, and one more each time that all wait for an exec, up to this. Those that a dead disk holds are
/// lost for ever, `MAX_SAME` for each program on it: enough for every hook, subsystem and shell that a device has.
const MAX_THREADS: usize = 32;
/// Threads for one program: one that hangs, be it for every stranger who wants to log in, leaves the others some.
const MAX_SAME: usize = 2;
/// How often a thread that blocks looks for its answer.
const POLL: Duration = Duration::from_millis(10);

/// Starts the first of the threads, for programs that `runtime` watches. They never end: what they have started would
/// end with them (`sys::die_with_parent`).
pub fn begin(runtime: &Handle) -> io::Result<()> {
    LAUNCHER.state().threads = 1;
    LAUNCHER.add_thread(runtime.clone())
}

/// Starts a program, which ends when what is returned is dropped.
pub fn launch(command: std::process::Command) -> impl Future<Output = io::Result<Child>> + Send {
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    start(command)
}

/// Starts a program that lives on without us. It is ended if the caller goes before it has begun.
pub fn launch_free(command: std::process::Command) -> impl Future<Output = io::Result<Child>> + Send {
    start(command.into())
}

#[expect(clippy::disallowed_methods, reason = "no launchers here")]
async fn start(mut command: Command) -> io::Result<Child> {
    if !LAUNCHER.is_there() {
        return command.spawn();
    }
    match timeout(LIMIT, LAUNCHER.ask(command)).await {
        Ok(Ok(started)) => started?.take(),
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

/// The same as `launch` for a thread that may wait, for so long at most.
pub fn launch_blocking(mut command: std::process::Command, limit: Duration) -> io::Result<Launched> {
    if !LAUNCHER.is_there() {
        return command.spawn().map(Launched::ByUs);
    }
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    let mut answer = LAUNCHER.ask(command);
    let give_up = Instant::now() + limit;
    loop {
        match answer.try_recv() {
            Ok(started) => return Ok(Launched::ByOthers { _child: started?.take()? }),
            Err(oneshot::error::TryRecvError::Empty) if Instant::now() < give_up => thread::sleep(POLL),
            Err(_) => return Err(late()),
        }
    }
}

/// A program that ends when this is dropped.
pub enum Launched {
    ByUs(std::process::Child),
    ByOthers { _child: Child },
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Self::ByUs(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn late() -> io::Error {
    let text = "it does not start: its disk does not answer, or programs before it hang so; try again later";
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// A program that nobody has taken over yet: without a taker it ends.
struct Started(Option<Child>);

impl Started {
    fn take(mut self) -> io::Result<Child> {
        self.0.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // Most lead a group, in which is what they have started meanwhile.
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // The runtime waits for it.
        let _ = child.start_kill();
    }
}

struct Job {
    command: Command,
    answer: oneshot::Sender<io::Result<Started>>,
}

impl Job {
    #[expect(clippy::disallowed_methods, reason = "this is the place for it")]
    fn run(mut self) {
        if self.answer.is_closed() {
            return;
        }
        let prepare = || {
            sys::end_without_exec(EXEC_LIMIT);
            Ok(())
        };
        // SAFETY: the closure makes system calls only.
        unsafe { self.command.pre_exec(prepare) };
        let started = self.command.spawn();
        // With it goes our side of the program's terminal, before anybody waits for its end.
        drop(self.command);
        let _ = self.answer.send(started.map(|child| Started(Some(child))));
    }
}

static LAUNCHER: Launcher = Launcher {
    state: Mutex::new(State { threads: 0, waiting: Vec::new(), starting: Vec::new() }),
    work: Condvar::new(),
};

struct Launcher {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    threads: usize,
    /// As many as there are sessions and questions at the most.
    waiting: Vec<Job>,
    /// What the threads that are busy start.
    starting: Vec<OsString>,
}

impl Launcher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self) -> bool {
        self.state().threads > 0
    }

    fn ask(&self, command: Command) -> oneshot::Receiver<io::Result<Started>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state();
        state.waiting.retain(|job| !job.answer.is_closed());
        state.waiting.push(Job { command, answer });
        self.work.notify_one();
        answered
    }

    /// For a thread that is counted already.
    fn add_thread(&'static self, runtime: Handle) -> io::Result<()> {
        tasks::thread(move || self.serve(&runtime)).inspect_err(|_| self.state().threads -= 1)
    }

    fn serve(&'static self, runtime: &Handle) {
        // In Linux it is the thread's.
        sys::set_process_name(c"launcher");
        let _watching = runtime.enter();
        loop {
            let (job, program) = self.next(runtime);
            job.run();
            let mut state = self.state();
            if let Some(at) = state.starting.iter().position(|starting| *starting == program) {
                state.starting.swap_remove(at);
            }
        }
    }

    /// Waits for something to do, and sees to it that somebody waits for the next.
    fn next(&'static self, runtime: &Handle) -> (Job, OsString) {
        let mut state = self.state();
        loop {
            let startable = |job: &Job| state.starting_of(&job.command) < MAX_SAME;
            let found = state.waiting.iter().position(startable);
            if let Some(at) = found {
                let job = state.waiting.remove(at);
                let program = job.command.as_std().get_program().to_owned();
                state.starting.push(program.clone());
                let wanted = state.starting.len() == state.threads && state.threads < MAX_THREADS;
                state.threads += usize::from(wanted);
                drop(state);
                if wanted {
                    // Without memory for it the next has to wait for this one.
                    let _ = self.add_thread(runtime.clone());
                }
                return (job, program);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn starting_of(&self, command: &Command) -> usize {
        self.starting.iter().filter(|program| *program == command.as_std().get_program()).count()
    }
}
