//! The built-in applet: what `fwup` does, for images that do not ship it.

use std::ffi::OsString;
use std::process::ExitCode;

pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
