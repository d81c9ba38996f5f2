//! `myelin keys`: the keys that may log in.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Source;

#[derive(Subcommand)]
pub enum Command {}

pub fn main(_source: &Source, _command: Command) -> ExitCode {
    ExitCode::FAILURE
}
