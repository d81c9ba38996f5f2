//! `myelin firmware`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::operation::{self, Operation, OperationError};
use super::status::Status;
use super::{reboot, success, trial};
use crate::config::{self, Config, Source};
use crate::ssh::authorized_keys::KeyList;

/// How long an update that runs may keep a command waiting.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Subcommand)]
pub enum Command {
    /// Which slot runs, which comes next, and what is in them.
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Say that the firmware that runs is good: it stays.
    Validate(Options),
    /// Make the other slot the next one.
    Revert(Options),
    /// Make the other slot unusable, so that nobody goes back to it.
    PreventRevert(Options),
    /// Forget what the device has learnt: host keys, added keys, its own configuration.
    FactoryReset(Options),
    /// End the trial of a new firmware: without effect if it is valid, else as `firmware.validation` says.
    #[command(hide = true)]
    EndTrial,
    /// Reboot as after an update, with `firmware.reboot_param`.
    #[command(hide = true)]
    Reboot {
        /// Without it.
        #[arg(long)]
        plain: bool,
    },
}

#[derive(clap::Args)]
pub struct Options {
    /// Reboot afterwards.
    #[arg(long)]
    reboot: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(source: &Source, command: Command) -> ExitCode {
    let loaded = config::load(source);
    let config = loaded.config;
    let (operation, options) = match command {
        Command::Status { json } => {
            return match print_status(&Status::collect(&config), json) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("cannot print: {error}"), 1),
            };
        }
        Command::Reboot { plain } => {
            let argument = config.firmware.reboot_param.as_deref().filter(|_| !plain);
            return fail(&format!("the kernel does not reboot: {}", reboot::reboot(argument)), 1);
        }
        Command::EndTrial => {
            crate::logging::start(&config);
            return match trial::end(&config, source) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("the trial cannot be ended: {error}"), 1),
            };
        }
        Command::Validate(options) => (Operation::Validate, options),
        Command::Revert(options) => (Operation::Revert, options),
        Command::PreventRevert(options) => (Operation::PreventRevert, options),
        Command::FactoryReset(options) => (Operation::FactoryReset, options),
    };
    let result = match operation {
        Operation::FactoryReset if !somebody_could_log_in(&config, &loaded.authorized_keys_at) => {
            Err("no key of the image or of the boot partition could log in afterwards: put one there first"
                .into())
        }
        _ => run(operation, &config),
    };
    match result {
        Ok(()) if options.reboot => {
            report(operation, &config, options.json, None, true);
            match success::reboot(&config, source) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("done, but the reboot failed: {error}"), 1),
            }
        }
        Ok(()) => {
            report(operation, &config, options.json, None, false);
            ExitCode::SUCCESS
        }
        Err(Failure { text, status }) => {
            report(operation, &config, options.json, Some(&text), false);
            ExitCode::from(status)
        }
    }
}

struct Failure {
    text: String,
    status: u8,
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self { text: text.into(), status: 1 }
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self { text: error.to_string(), status: error.exit_status() }
    }
}

fn run(operation: Operation, config: &Config) -> Result<(), Failure> {
    if let Some(progress) = super::lock::running(&config.runtime_dir) {
        eprintln!("myelin: waiting for {} to end", progress.holder);
    }
    Ok(operation::run(operation, config, PATIENCE)?)
}

fn report(operation: Operation, config: &Config, as_json: bool, error: Option<&str>, rebooting: bool) {
    if as_json {
        let status = Status::collect(config);
        let (running, next) = (status.running, status.next);
        let report = json!({
            "operation": operation, "ok": error.is_none(), "error": error,
            "running": running, "next": next, "rebooting": rebooting,
        });
        println!("{report}");
    } else if let Some(error) = error {
        eprintln!("myelin: {}: {error}", operation.name());
    } else {
        println!("{}: done{}", operation.name(), if rebooting { ", rebooting" } else { "" });
    }
}

/// Whether a key stands where a factory reset leaves it: not in the state folder.
fn somebody_could_log_in(config: &Config, places: &[config::Place]) -> bool {
    let mut kept = config.clone();
    let of_the_image = |place: &config::Place| !place.file.starts_with(&config.state_dir);
    kept.ssh.authorized_keys = config
        .ssh
        .authorized_keys
        .iter()
        .zip(places)
        .filter(|(_, place)| of_the_image(place))
        .map(|(key, _)| key.clone())
        .collect();
    let list = KeyList::collect(&kept);
    list.keys.iter().any(|entry| !entry.source.lies_in(&config.state_dir))
}

fn print_status(status: &Status, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, status)?;
        return writeln!(out);
    }
    out.write_all(status.to_text().as_bytes())
}

fn fail(text: &str, status: u8) -> ExitCode {
    eprintln!("myelin: {text}");
    ExitCode::from(status)
}
