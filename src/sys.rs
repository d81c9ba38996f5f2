//! System calls that no crate of ours wraps. The only `unsafe` of the daemon is here.

use std::io;

/// Lets a write to a closed pipe end the process, as users of `| head` expect from a command.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Makes a write to a closed pipe an error again, for a command that has something to say after it.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The error of the last system call, for wrappers that return -1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
