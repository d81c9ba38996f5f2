//! `myelin subsystem`: programs that clients can ask for by name until the reboot.
//!
//! They are a file (see `of_this_boot`), which each request of a client reads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Serialize;
use tracing::warn;

use super::Subsystem;
use crate::config::{self, Config, Source};
use crate::ssh::connection::Service;
use crate::ssh::of_this_boot;

#[derive(Subcommand)]
pub enum Command {
    /// Show what clients can ask for, and where that is said.
    List {
        /// Print one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Offer a program until the reboot, in place of one of the same name; for new channels.
    Add {
        /// 1 to 64 printable ASCII characters.
        name: String,
        /// The absolute path of the program and its arguments, or "internal-sftp".
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Take away what was added; what the configuration has under that name is back then.
    Remove { name: String },
}

pub type Programs = BTreeMap<String, Vec<String>>;

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    /// "built in", "configuration" or "until the reboot".
    source: &'static str,
    command: &'a [String],
}

/// Exit status 0, or 1 when it cannot be done.
pub fn main(source: &Source, command: Command) -> ExitCode {
    let config = config::load(source).config;
    let done = match command {
        Command::List { json } => list(&config, json),
        Command::Add { name, command } => add(&config, name, command),
        Command::Remove { name } => remove(&config, &name),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Those that were added since the boot. A file that cannot be used has none.
pub fn added(config: &Config) -> Programs {
    read(&file(config)).unwrap_or_else(|error| {
        warn!("subsystems added at run time cannot be used: {error:#}");
        Programs::new()
    })
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let (added, none) = (read(&file(config))?, Programs::new());
    let ssh = &config.ssh;
    let mut entries = Vec::new();
    for name in Subsystem::BUILT_IN {
        let is_ours = !ssh.subsystem.contains_key(*name) && !added.contains_key(*name);
        if is_ours && Subsystem::find(name, ssh, &none, Service::Ssh).is_some() {
            entries.push(Entry { name, source: "built in", command: &[] });
        }
    }
    for (name, command) in ssh.subsystem.iter().filter(|(name, _)| !added.contains_key(*name)) {
        entries.push(Entry { name, source: "configuration", command });
    }
    for (name, command) in &added {
        entries.push(Entry { name, source: "until the reboot", command });
    }
    let mut out = io::stdout().lock();
    for entry in entries {
        if json {
            serde_json::to_writer(&mut out, &entry)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{:<20} {:<17} {}", entry.name, entry.source, entry.command.join(" "))?;
        }
    }
    Ok(())
}

fn add(config: &Config, name: String, command: Vec<String>) -> anyhow::Result<()> {
    config::check_subsystem(&name, &command).map_err(anyhow::Error::msg)?;
    if let Some(program) = command.first().filter(|word| word.starts_with('/') && !Path::new(word).exists()) {
        eprintln!("myelin: warning: {program} is not there");
    }
    change(config, |programs| {
        programs.insert(name, command);
        Ok(())
    })
}

fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    change(config, |programs| {
        if programs.remove(name).is_none() {
            bail!("no subsystem {name} was added since the boot; see: myelin subsystem list");
        }
        Ok(())
    })
}

fn change(config: &Config, edit: impl FnOnce(&mut Programs) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let path = file(config);
    of_this_boot::change(config, &path, |content| {
        let mut programs = parse(content, &path)?;
        edit(&mut programs)?;
        Ok(serde_json::to_vec(&programs)?)
    })
}

fn file(config: &Config) -> PathBuf {
    of_this_boot::path(config, "subsystems.json")
}

fn read(path: &Path) -> anyhow::Result<Programs> {
    parse(of_this_boot::read(path)?, path)
}

fn parse(content: Option<Vec<u8>>, path: &Path) -> anyhow::Result<Programs> {
    let Some(bytes) = content else { return Ok(Programs::new()) };
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is broken: remove it, then add them again", path.display()))
}
