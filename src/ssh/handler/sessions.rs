//! The session channels of a connection: what prepares one, what starts on it, and what it counts for until it ends.

use std::sync::{Arc, Weak};

use russh::server::{Msg, Session as RusshSession};
use russh::{ChannelId, ChannelWriteHalf};
use tracing::info;

use super::{Error, Handler};
use crate::config::{self, ChannelTimeout, Program};
use crate::ssh::channel::flow::Flow;
use crate::ssh::channel::pty::Terminal;
use crate::ssh::channel::{Controls, Job, Session, environment};
use crate::ssh::connection::{InUse, Service};
use crate::ssh::display;
use crate::ssh::subsystem::{self, Subsystem};
use crate::tasks;

/// An open session channel.
pub enum Slot {
    /// Nothing runs yet; requests prepare it.
    Prepared(Box<Prepared>),
    /// Its controls last as long as it does.
    Running(Weak<Controls>),
}

pub struct Prepared {
    pub in_use: InUse,
    pub writer: ChannelWriteHalf<Msg>,
    pub flow: Arc<Flow>,
    pub environment: environment::Requested,
    pub terminal: Option<Terminal>,
}

impl Handler {
    /// The command of the client's key, told what the client asked for; else what `asked` makes of the
    /// configuration, if the key is for programs at all.
    pub(super) fn program(
        &mut self,
        id: ChannelId,
        original: Option<&[u8]>,
        asked: impl FnOnce(&config::Ssh, &Program) -> Option<Job>,
    ) -> Option<Job> {
        let settings = Arc::clone(&self.settings);
        let Some(command) = self.options.command().map(|command| command.as_bytes().to_vec()) else {
            return asked(&settings.config.ssh, &self.shell()).filter(|_| self.options.allow_programs());
        };
        if command == config::INTERNAL_SFTP.as_bytes() {
            let added = subsystem::command::added(&settings.config);
            return Subsystem::find("sftp", &settings.config.ssh, &added, Service::Ssh).map(Job::Subsystem);
        }
        self.prepared(id)?.environment.original_command = original.map(<[u8]>::to_vec);
        Job::exec(&settings.config.ssh, &self.shell(), &command)
    }

    /// The shell of whoever has logged in.
    fn shell(&self) -> Program {
        let login = self.connection.login.get();
        let own = login.and_then(|login| login.account.as_ref().ok()?.shell.clone());
        own.map_or_else(|| self.settings.config.ssh.shell(), |shell| Program::Command(vec![shell]))
    }

    /// Starts `job` on a channel that has nothing running yet. `kind` is what sshd_config(5), ChannelTimeout, calls it.
    pub(super) fn start(
        &mut self,
        id: ChannelId,
        job: Option<Job>,
        kind: &str,
        command: Option<&[u8]>,
        session: &mut RusshSession,
    ) -> Result<(), Error> {
        let job = job.filter(|job| job.is_probe() == self.is_probe);
        let (Some(job), Some(Slot::Prepared(prepared))) = (job, self.channels.get(&id)) else {
            return Ok(session.channel_failure(id)?);
        };
        let ssh = &self.settings.config.ssh;
        if ssh.log_commands {
            let command = command.map(display::command);
            info!(peer = %self.connection.peer, user = self.connection.user(), kind, command, "ssh.session.open");
        }
        if let Some(limit) = ChannelTimeout::find(&ssh.channel_timeout, kind) {
            tasks::spawn(Flow::end_when_idle(Arc::downgrade(&prepared.flow), limit));
        }
        let controls = Arc::new(Controls::new(prepared.terminal.is_some()));
        let running = Slot::Running(Arc::downgrade(&controls));
        let Some(Slot::Prepared(prepared)) = self.channels.insert(id, running) else {
            return Ok(session.channel_failure(id)?);
        };
        self.server.add_job(&controls);
        let Prepared { in_use, writer, flow, environment, terminal } = *prepared;
        let job = Session {
            connection: Arc::clone(&self.connection),
            settings: Arc::clone(&self.settings),
            writer: Arc::new(writer),
            handle: session.handle(),
            flow,
            environment,
            terminal,
            controls: Arc::clone(&controls),
        }
        .prepare(job);
        session.channel_success(id)?;
        self.set_class();
        self.connection.spawn(async move {
            job.await;
            drop((controls, in_use));
        });
        Ok(())
    }

    /// Packets are those of somebody who types as long as one of the channels has a terminal.
    pub(super) fn set_class(&self) {
        let types = |slot: &Slot| match slot {
            Slot::Running(controls) => controls.upgrade().is_some_and(|controls| controls.is_interactive),
            Slot::Prepared(_) => false,
        };
        self.connection.set_class(&self.settings.config.ssh, self.channels.values().any(types));
    }

    pub(super) fn prepared(&mut self, id: ChannelId) -> Option<&mut Prepared> {
        match self.channels.get_mut(&id) {
            Some(Slot::Prepared(prepared)) => Some(prepared),
            _ => None,
        }
    }
}

pub fn answer(session: &mut RusshSession, id: ChannelId, yes: bool) -> Result<(), Error> {
    if yes {
        session.channel_success(id)?
    } else {
        session.channel_failure(id)?
    }
    Ok(())
}
