//! The `sftp` subsystem: a process of its own for each session, of this program, that speaks SFTP on its streams.

use std::path::Path;

use crate::config::UserMode;
use crate::sftp::Options;
use crate::ssh::channel::{self, Session};

pub async fn run(mut session: Session) {
    // Bytes would not survive a terminal.
    session.terminal = None;
    let args = options(&session).to_args();
    channel::run_applet(session, "sftp-server", args).await;
}

fn options(session: &Session) -> Options {
    let ssh = &session.settings.config.ssh;
    let start = match (&ssh.sftp_start, ssh.user_mode) {
        // A session's programs are started in the home folder.
        (Some(start), _) if start == Path::new("~") => None,
        (Some(start), _) => Some(start.clone()),
        (None, UserMode::Single) => Some("/".into()),
        (None, UserMode::System) => session.account().map(|account| account.home.clone().into()),
    };
    Options {
        root: ssh.sftp_root.clone(),
        start,
        read_only: ssh.sftp_read_only,
        umask: Some(ssh.sftp_umask.0),
        max_handles: ssh.sftp_max_handles,
    }
}
