//! Multi-call dispatch, nothing else: which part of Myelin runs is decided by the name it was called by
//! and the first argument.
//!
//! A library only so that the fuzz targets (`fuzz/`) can be linked with the parsers; its interface is `run`.

#![warn(clippy::disallowed_methods)]

mod agent;
mod cli;
mod client;
mod config;
mod files;
mod firmware;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod fwup;
mod hook;
mod host;
mod launch;
mod logging;
mod mdns;
mod pipe;
mod sandbox;
mod scp;
mod sftp;
mod sockets;
mod ssh;
mod supervisor;
mod sys;
mod systemd;
mod tasks;
mod uboot_env;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The whole program.
pub fn run() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    // A link by the name of a part is that part; else the first word says it.
    let (name, words) = match name.to_str() {
        Some("fwup" | "scp" | "sftp-server") => (name, 1),
        _ => (args.get(1).map(OsString::as_os_str).unwrap_or_default(), 2),
    };
    match name.to_str() {
        Some("fwup") => return fwup::main(args.into_iter().skip(words)),
        Some("scp") => return scp::main(args.into_iter().skip(words)),
        Some("sftp-server") => return sftp::main(args.into_iter().skip(words)),
        _ => {}
    }
    cli::main(args)
}
