//! A session channel: what was asked for runs in a task of its own, between the input queue and russh's writer.

pub mod budget;
pub mod environment;
pub mod flow;
mod motd;
mod output;
mod process;
pub mod pty;
pub mod relay;
mod scp;
mod spool;

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};

use super::account::Account;
use super::connection::Connection;
use super::server::Settings;
use super::subsystem::Subsystem;
use crate::config::{Program, Ssh};
use flow::Flow;
pub use output::{Exit, Output};
pub use process::{applet as run_applet, subsystem as run_program};
use pty::{Size, Terminal};

/// What a channel was asked to run.
pub enum Job {
    /// The login shell.
    Shell(Vec<String>),
    /// A command; the words are the program that gets it.
    Exec(Vec<String>, Vec<u8>),
    Subsystem(Subsystem),
    /// A text on stdout, and the end.
    Text(Cow<'static, str>),
}

impl Job {
    /// The shell, or what is said where the configuration has none.
    pub fn shell(ssh: &Ssh, shell: &Program) -> Option<Self> {
        match shell {
            Program::Command(words) => Some(Self::Shell(words.clone())),
            Program::Shell | Program::Disabled => Self::no_shell(ssh),
        }
    }

    fn no_shell(ssh: &Ssh) -> Option<Self> {
        ssh.no_shell_message.clone().map(|text| Self::Text(text.into()))
    }

    /// Whether it is what a probe may do, and nobody else.
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::Subsystem(Subsystem::Probe))
    }

    /// `SHELL -c COMMAND`, or the program that the configuration gives commands to.
    pub fn exec(ssh: &Ssh, shell: &Program, command: &[u8]) -> Option<Self> {
        let words = match (&ssh.exec, shell) {
            (Program::Shell, Program::Command(words)) => {
                let words = [words.as_slice(), &["-c".into()]].concat();
                return Some(Self::Exec(words, scp::or_built_in(command)));
            }
            (Program::Command(words), _) => words.clone(),
            (Program::Shell | Program::Disabled, _) => return Self::no_shell(ssh),
        };
        Some(Self::Exec(words, command.to_vec()))
    }
}

/// Everything that a job has to do with its client.
pub struct Session {
    pub connection: Arc<Connection>,
    pub settings: Arc<Settings>,
    pub writer: Arc<ChannelWriteHalf<Msg>>,
    pub handle: Handle,
    pub flow: Arc<Flow>,
    pub environment: environment::Requested,
    pub terminal: Option<Terminal>,
    pub controls: Arc<Controls>,
}

impl Session {
    /// Gives the task that sees the job to its end.
    pub fn prepare(self, job: Job) -> impl Future<Output = ()> + Send + 'static {
        let work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match job {
            Job::Shell(words) => Box::pin(process::shell(self, words)),
            Job::Exec(words, command) => Box::pin(process::exec(self, words, command)),
            Job::Subsystem(subsystem) => Box::pin(subsystem.run(self)),
            Job::Text(text) => Box::pin(async move {
                let output = self.output();
                output.stdout(text.into_owned().into()).await;
                self.flow.discard();
                output.finish(Exit::Status(1)).await;
            }),
        };
        work
    }

    /// As whom its programs run, if that is known.
    pub fn account(&self) -> Option<&Account> {
        self.connection.login.get()?.account.as_deref().ok()
    }

    /// Whether who has logged in may update the firmware: that stays possible where no session does.
    pub fn may_update(&self) -> bool {
        self.account().is_none_or(|account| account.may_update(&self.settings.config.ssh))
    }

    pub fn output(&self) -> Output {
        Output::new(Arc::clone(&self.writer), self.handle.clone(), Arc::clone(&self.flow))
    }
}

/// What the client may do to a running job besides giving it input.
pub struct Controls {
    /// Somebody types.
    pub is_interactive: bool,
    /// The process group of the program; 0 while there is none, so that no number is signalled twice.
    group: AtomicI32,
    /// A signal that came before there was one, or 0.
    early: AtomicI32,
    terminal: OnceLock<OwnedFd>,
    /// The last size that came before there was a terminal.
    early_size: Mutex<Option<Size>>,
}

impl Controls {
    pub fn new(is_interactive: bool) -> Self {
        Self {
            is_interactive,
            group: AtomicI32::new(0),
            early: AtomicI32::new(0),
            terminal: OnceLock::new(),
            early_size: Mutex::new(None),
        }
    }

    pub fn resize(&self, size: Size) {
        match self.terminal.get() {
            Some(master) => pty::set_size(master, size),
            None => *self.early_size.lock().unwrap_or_else(PoisonError::into_inner) = Some(size),
        }
    }

    /// From now on the size is that of this terminal, a second handle of ours.
    fn set_terminal(&self, master: OwnedFd) {
        let early = self.early_size.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(size) = early {
            pty::set_size(&master, size);
        }
        let _ = self.terminal.set(master);
    }

    /// Sends a signal of RFC 4254 section 6.9 to the program's process group.
    pub fn signal(&self, signal: &Sig) {
        let signal = match signal {
            Sig::ABRT => Signal::SIGABRT,
            Sig::ALRM => Signal::SIGALRM,
            Sig::FPE => Signal::SIGFPE,
            Sig::HUP => Signal::SIGHUP,
            Sig::ILL => Signal::SIGILL,
            Sig::INT => Signal::SIGINT,
            Sig::KILL => Signal::SIGKILL,
            Sig::PIPE => Signal::SIGPIPE,
            Sig::QUIT => Signal::SIGQUIT,
            Sig::SEGV => Signal::SIGSEGV,
            Sig::TERM => Signal::SIGTERM,
            Sig::USR1 => Signal::SIGUSR1,
            Sig::Custom(name) if name == "USR2" => Signal::SIGUSR2,
            Sig::Custom(_) => return,
        };
        self.kill(signal);
    }

    pub fn kill(&self, signal: Signal) {
        let group = self.group.load(Ordering::Relaxed);
        if group > 0 {
            // The last process may have ended meanwhile.
            let _ = killpg(Pid::from_raw(group), signal);
        } else {
            self.early.store(signal as i32, Ordering::Relaxed);
        }
    }

    fn set_group(&self, pid: i32) {
        self.group.store(pid, Ordering::Relaxed);
        // The program has been on its way, and its client knew no better than that it runs.
        if let Ok(early) = Signal::try_from(self.early.swap(0, Ordering::Relaxed)) {
            self.kill(early);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_came_before_the_terminal_is_that_of_the_terminal() {
        let controls = Controls::new(true);
        controls.resize((90, 20, 0, 0));
        controls.resize((101, 33, 0, 0));
        let terminal = nix::pty::openpty(None, None).unwrap();
        controls.set_terminal(terminal.master);
        let stty = std::process::Command::new("stty").arg("size").stdin(terminal.slave).output().unwrap();
        assert_eq!(stty.stdout, b"33 101\n");
    }
}
