//! `myelin firmware`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Source;

#[derive(Subcommand)]
pub enum Command {}

pub fn main(_source: &Source, _command: Command) -> ExitCode {
    ExitCode::FAILURE
}
