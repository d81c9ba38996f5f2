//! An SFTP server on standard input and output: version 3 (draft-ietf-secsh-filexfer-02) with the extensions that
//! OpenSSH's sftp, scp and sshfs use (PROTOCOL of OpenSSH, section 4).
//!
//! It is a process of its own, started for one session with that session's rights, like the sftp-server of OpenSSH:
//! its disk may block, its memory ends with it, and a crash ends one transfer. It answers one request after the
//! other, in order. It knows nothing of SSH and never looks at the configuration.

mod attributes;
mod extensions;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handles;
mod listing;
mod options;
mod packet;
mod refusal;
mod requests;
mod stream;
mod tree;
mod walk;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::sys;
pub use options::Options;

/// `myelin sftp-server`, with the options of `Options::to_args`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    sys::set_process_name(c"sftp-server");
    let served = Options::parse(args)
        .map_err(|word| format!("wrong option `{word}`"))
        .and_then(|options| requests::Server::new(&options).map_err(|error| error.to_string()))
        .and_then(|server| stream::serve(server).map_err(|error| error.to_string()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            // The client shows it.
            eprintln!("myelin sftp-server: {text}");
            ExitCode::FAILURE
        }
    }
}
