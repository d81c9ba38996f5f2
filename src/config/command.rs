//! `myelin config`: checks the files strictly, and shows what they make together.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::{BootPartitionKeys, Config, Gate, Loaded, Place, Problem, Source, load, show};
use crate::firmware::public_keys;
use crate::ssh::authorized_keys::{self, KeyList};

#[derive(Subcommand)]
pub enum Command {
    /// Name everything that is wrong; exit status 1 if anything is.
    Check {
        /// The file to check; without it, the files that the daemon would read.
        file: Option<PathBuf>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print the configuration in force: what is set, and the defaults of all else.
    Show {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub fn main(source: &Source, command: Command) -> ExitCode {
    let printed = match command {
        Command::Check { file, json } => check(&file.map_or_else(|| source.clone(), Source::File), json),
        Command::Show { json } => print_config(&load(source).config, json),
    };
    match printed {
        Ok(code) => code,
        Err(error) => {
            eprintln!("myelin: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    files: &'a [PathBuf],
    problems: &'a [Problem],
}

fn check(source: &Source, json: bool) -> io::Result<ExitCode> {
    let mut loaded = load(source);
    let found = key_problems(&loaded, source).into_iter().chain(firmware_problems(&loaded.config, source));
    let found: Vec<Problem> = found.collect();
    loaded.problems.extend(found);
    let ok = loaded.problems.is_empty();
    let mut out = io::stdout().lock();
    if json {
        let report = Report { ok, files: &loaded.files, problems: &loaded.problems };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        for problem in &loaded.problems {
            writeln!(out, "{problem}")?;
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_config(config: &Config, json: bool) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, config)?;
        writeln!(out)?;
    } else {
        out.write_all(show::as_toml(config)?.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines of keys with which nobody can log in, and the lack of any other.
fn key_problems(loaded: &Loaded, source: &Source) -> Vec<Problem> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let mut keys = 0;
    for (line, place) in config.ssh.authorized_keys.iter().zip(&loaded.authorized_keys_at) {
        let mut alone = config.clone();
        alone.ssh.authorized_keys = vec![line.clone()];
        alone.ssh.authorized_keys_file = vec![PathBuf::from("/dev/null/none")];
        alone.ssh.boot_partition_keys = BootPartitionKeys::Disabled;
        let list = KeyList::collect(&alone);
        keys += list.keys.len();
        let refused = list.refused.into_iter().map(|refused| refused.reason.to_string());
        problems.extend(refused.map(|text| problem(place.clone(), "ssh.authorized_keys", text)));
    }
    let mut in_files = config.clone();
    in_files.ssh.authorized_keys.clear();
    let list = KeyList::collect(&in_files);
    keys += list.keys.len();
    for refused in list.refused {
        let place = match refused.source {
            authorized_keys::Source::File { path, line }
            | authorized_keys::Source::BootPartition { path, line } => {
                Place { file: path.as_path().into(), line }
            }
            authorized_keys::Source::Config | authorized_keys::Source::Command { .. } => continue,
        };
        problems.push(problem(place, "", refused.reason.to_string()));
    }
    let whole = list.file_errors.iter();
    problems
        .extend(whole.map(|error| problem(place_of(source), "ssh.authorized_keys_file", error.to_string())));
    let ssh = &loaded.config.ssh;
    let are_elsewhere = !ssh.authorized_keys_command.is_empty()
        || !ssh.auth_command.is_empty()
        || authorized_keys::are_personal(ssh);
    if keys == 0 && ssh.users.is_empty() && !are_elsewhere {
        let text = "no key can log in: put one here, or run `myelin keys add`".to_owned();
        problems.push(problem(place_of(source), "ssh.authorized_keys", text));
    }
    problems
}

fn firmware_problems(config: &Config, source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = public_keys::read(&config.firmware.public_keys) {
        let text = format!("{error}; until then no update is installed");
        problems.push(problem(place_of(source), "firmware.public_keys", text));
    }
    let validation = &config.firmware.validation;
    for (gate, empty, key) in [
        (Gate::Health, validation.health.is_empty(), "firmware.validation.health"),
        (Gate::Processes, validation.processes.is_empty(), "firmware.validation.processes"),
    ] {
        if empty && validation.gates.contains(&gate) {
            let text = "is empty, and firmware.validation.gates needs it: no firmware would prove itself";
            problems.push(problem(place_of(source), key, text.to_owned()));
        }
    }
    problems
}

fn problem(place: Place, key: &str, text: String) -> Problem {
    Problem { place, key: key.to_owned(), text }
}

/// The file that someone would edit, for what has no line.
fn place_of(source: &Source) -> Place {
    let file = match source {
        Source::File(file) => file.as_path(),
        Source::System => Path::new("/etc/myelin/config.toml"),
    };
    Place { file: file.into(), line: 0 }
}
