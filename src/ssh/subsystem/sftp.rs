//! The `sftp` subsystem: a process of its own for each session, of this program, that speaks SFTP on its streams.

use std::path::Path;

use crate::config::{Ssh, UserMode};
use crate::sftp::Options;
use crate::ssh::channel::{self, Session};

pub async fn run(mut session: Session) {
    // Bytes would not survive a terminal.
    session.terminal = None;
    let mut options = options(&session.settings.config.ssh);
    if session.settings.config.ssh.user_mode == UserMode::System && !session.settings.config.ssh.explicit.sftp_start {
        options.start = session.account().map(|account| account.home.clone().into());
    }
    let args = options.to_args();
    channel::run_applet(session, "sftp-server", args).await;
}

fn options(ssh: &Ssh) -> Options {
    Options {
        root: ssh.sftp_root.clone(),
        // A session's programs are started in the home folder.
        start: Some(&ssh.sftp_start).filter(|start| start.as_path() != Path::new("~")).cloned(),
        read_only: ssh.sftp_read_only,
        umask: Some(ssh.sftp_umask.0),
        max_handles: ssh.sftp_max_handles,
    }
}
