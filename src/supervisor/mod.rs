//! The supervisor.

use std::process::ExitCode;

use crate::config::Source;

pub fn main(_source: &Source) -> ExitCode {
    ExitCode::FAILURE
}
