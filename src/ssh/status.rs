//! `myelin status`.

use std::process::ExitCode;

use crate::config::Source;

#[derive(clap::Args)]
pub struct Args {}

pub fn main(_source: &Source, _args: &Args) -> ExitCode {
    ExitCode::FAILURE
}
