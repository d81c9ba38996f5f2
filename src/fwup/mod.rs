//! The built-in applet: what `fwup` does, for images that do not ship it.

#[allow(dead_code)]
pub mod fat;
#[allow(dead_code)]
pub mod partition;

use std::ffi::OsString;
use std::process::ExitCode;

pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
