//! Multi-call dispatch, nothing else: which part of Myelin runs is decided by the name it was called by
//! and the first argument.

#![warn(clippy::disallowed_methods)]

mod agent;
mod cli;
mod config;
mod files;
mod firmware;
mod fwup;
mod host;
mod logging;
mod pipe;
mod sftp;
mod ssh;
mod supervisor;
mod sys;
mod systemd;
mod uboot_env;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if name == "fwup" {
        return fwup::main(args.into_iter().skip(1));
    }
    if args.get(1).is_some_and(|word| word == "fwup") {
        return fwup::main(args.into_iter().skip(2));
    }
    if args.get(1).is_some_and(|word| word == "sftp-server") {
        return sftp::main(args.into_iter().skip(2));
    }
    cli::main(args)
}
