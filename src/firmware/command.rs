//! `myelin firmware`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::reboot;
use super::status::Status;
use crate::config::{self, Source};

#[derive(Subcommand)]
pub enum Command {
    /// Which slot runs, which comes next, and what is in them.
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Reboot as after an update, with `firmware.reboot_param`.
    #[command(hide = true)]
    Reboot,
}

pub fn main(source: &Source, command: Command) -> ExitCode {
    let config = config::load(source).config;
    let printed = match command {
        Command::Status { json } => print_status(&Status::collect(&config), json),
        Command::Reboot => {
            let error = reboot::reboot(config.firmware.reboot_param.as_deref());
            eprintln!("myelin: the kernel does not reboot: {error}");
            return ExitCode::FAILURE;
        }
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_status(status: &Status, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, status)?;
        return writeln!(out);
    }
    out.write_all(status.to_text().as_bytes())
}
