//! `myelin config`: checks files strictly.

use std::process::ExitCode;

use clap::Subcommand;

use super::Source;

#[derive(Subcommand)]
pub enum Command {}

pub fn main(_source: &Source, _command: Command) -> ExitCode {
    ExitCode::FAILURE
}
