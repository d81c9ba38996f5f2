//! The built-in applet: what `fwup` does, for images that do not ship it.
//!
//! Runs as a process of its own, spoken to on stdin and stdout. It owns the archives, their language and
//! the destination; it knows nothing of the daemon.

mod apply;
mod archive;
mod create;
mod disk;
mod fat;
mod firmware;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod getopt;
mod hex;
mod input;
mod inspect;
mod keys;
mod language;
mod nickname;
mod number;
mod option_table;
mod options;
mod output;
mod partition;
mod progress;
mod time;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use disk::media;
pub use firmware::{FirmwareError, Metadata};
use language::VERSION;
use options::{Command, Options, Request};
use output::Output;

pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut output = Output::default();
    let mut handshake = false;
    let status = run(args, &mut output, &mut handshake);
    if handshake {
        say_goodbye(&output, status);
    }
    ExitCode::from(status)
}

fn run(args: impl IntoIterator<Item = OsString>, output: &mut Output, handshake: &mut bool) -> u8 {
    let request = match options::parse(args, output, handshake) {
        Ok(request) => request,
        Err(options::OptionError::Usage(error)) => {
            let _ = writeln!(io::stderr(), "fwup: {error}");
            Request::Usage { failed: true }
        }
        Err(error) => {
            output.error(&error);
            return FAILURE;
        }
    };
    let result = match request {
        Request::Usage { failed } => {
            output.plain(option_table::USAGE.as_bytes());
            return if failed { FAILURE } else { SUCCESS };
        }
        Request::Version => {
            output.plain(format!("{VERSION}\n").as_bytes());
            return SUCCESS;
        }
        Request::Detect => Ok(media::listing(&media::find())).map(|text| output.result(text)),
        Request::Select => media::only()
            .map(|medium| output.result(format!("{}\n", medium.path.display())))
            .map_err(anyhow::Error::from),
        Request::Run(command, options) => perform(&command, &options, output),
    };
    match result {
        Ok(()) => SUCCESS,
        Err(error) => {
            output.error(&error);
            FAILURE
        }
    }
}

fn perform(command: &Command, options: &Options, output: &mut Output) -> anyhow::Result<()> {
    match command {
        Command::Apply => apply::apply(options, output)?,
        // Prints nothing, not even a frame: its stdout may be the archive.
        Command::Create => create::create(options).inspect_err(diagnose)?,
        Command::List => output.result(inspect::list(options, output)?),
        Command::Metadata => output.result(inspect::metadata(options, output)?),
        Command::GenerateKeys => {
            let prefix = options.output.as_deref().unwrap_or(Path::new("fwup-key"));
            output.result(keys::generate(prefix)?);
        }
        Command::Sign => {
            create::sign::sign(options)?;
            output.result("");
        }
        Command::Verify => output.result(inspect::verify(options)?),
        Command::SparseCheck(path) => {
            output.result(inspect::sparse_check(path, options.sparse_check_size)?);
        }
    }
    Ok(())
}

/// Where in a configuration something is wrong goes to stderr, for editors and people.
fn diagnose(error: &create::CreateError) {
    if let create::CreateError::Config(error) = error {
        let _ = writeln!(io::stderr(), "{error}");
    }
}

/// Tells the caller the status and waits until it closes stdin: then nothing can be lost on the way.
fn say_goodbye(output: &Output, status: u8) {
    output.plain(&[HANDSHAKE, status]);
    let mut scratch = [0; 4096];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut scratch) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const HANDSHAKE: u8 = 0x1a;
