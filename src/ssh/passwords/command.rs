//! `myelin users`: passwords that last until the reboot, or longer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{file, hash, lasting_file, parse};
use crate::config::{self, Config, MAX_PASSWORD, Source};
use crate::ssh::{control, of_this_boot};

/// 16 characters of 5 bits.
const GENERATED_BYTES: usize = 10;

#[derive(Subcommand)]
pub enum Command {
    /// Show who may log in with a password, and where that is said.
    List {
        /// Print one JSON object for each user.
        #[arg(long)]
        json: bool,
    },
    /// Let a user log in with a password until the reboot; a new password replaces the old one.
    Add {
        name: String,
        /// Make a password and print it, once.
        #[arg(long, conflicts_with = "password_stdin")]
        generate: bool,
        /// Read the password from stdin, up to the end of the line.
        #[arg(long, required_unless_present = "generate")]
        password_stdin: bool,
        /// Keep the user across reboots and updates.
        #[arg(long)]
        persist: bool,
    },
    /// Take a user away that was added; connections end, unless revoke_ends_sessions is false.
    Remove { name: String },
}

pub fn main(source: &Source, command: Command) -> ExitCode {
    let config = config::load(source).config;
    let done = match command {
        Command::List { json } => list(&config, json),
        Command::Add { name, generate, password_stdin: _, persist } => add(&config, &name, generate, persist),
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

/// A line of `list --json`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    /// `configuration`, `added` or `until the reboot`.
    source: &'static str,
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let (lasting, boot) = (read(&lasting_file(config))?, read(&file(config))?);
    let configured = config.ssh.users.keys().map(|name| (name, "configuration"));
    let lasting = lasting.keys().map(|name| (name, "added"));
    let boot = boot.keys().map(|name| (name, "until the reboot"));
    let mut out = io::stdout().lock();
    for (name, source) in configured.chain(lasting).chain(boot) {
        if json {
            serde_json::to_writer(&mut out, &Entry { name, source })?;
            writeln!(out)?;
        } else {
            writeln!(out, "{name}  {source}")?;
        }
    }
    Ok(())
}

fn add(config: &Config, name: &str, generate: bool, persist: bool) -> anyhow::Result<()> {
    config::check_user_name(name).map_err(anyhow::Error::msg)?;
    let password = if generate { generated()? } else { from_stdin()? };
    let hash = hash::make(password.as_bytes()).context("no hash can be made: is there no randomness?")?;
    let path = if persist { lasting_file(config) } else { file(config) };
    change(config, &path, &mut |users| users.insert(name.to_owned(), hash.clone()).is_some())?;
    if persist && file(config).exists() {
        // An earlier password of this boot would count in its place.
        change(config, &file(config), &mut |users| users.remove(name).is_some())?;
    }
    if generate {
        println!("{}", password.as_str());
    }
    if !config.ssh.auth_command.is_empty() {
        eprintln!("myelin: warning: auth_command is set in the configuration, and only its passwords count");
    } else if !config.ssh.password_authentication && !config.ssh.kbd_interactive_authentication {
        eprintln!("myelin: warning: passwords are switched off in the configuration");
    }
    Ok(())
}

fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let mut was_there = false;
    for path in [file(config), lasting_file(config)].iter().filter(|path| path.exists()) {
        was_there |= change(config, path, &mut |users| users.remove(name).is_some())?;
    }
    if config.ssh.users.contains_key(name) {
        bail!("{name} is also in the configuration ([ssh.users]) and may still log in: remove it there");
    }
    if !was_there {
        bail!("no user {name} was added; see: myelin users list");
    }
    control::end_revoked(config);
    Ok(())
}

/// Changes the users of a file; what `edit` says of them comes back.
fn change(
    config: &Config,
    path: &Path,
    edit: &mut dyn FnMut(&mut BTreeMap<String, String>) -> bool,
) -> anyhow::Result<bool> {
    let mut edited = false;
    of_this_boot::change(config, path, |content| {
        let mut users = known(content, path)?;
        edited = edit(&mut users);
        let mut text = String::new();
        for (name, hash) in &users {
            // A name has no quote in it, and JSON's texts are TOML's.
            text.push_str(&format!("{} = {}\n", serde_json::to_string(name)?, serde_json::to_string(hash)?));
        }
        Ok(text.into_bytes())
    })?;
    Ok(edited)
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    known(of_this_boot::read(path)?, path)
}

fn known(content: Option<Vec<u8>>, path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let Some(bytes) = content else { return Ok(BTreeMap::new()) };
    parse(&String::from_utf8_lossy(&bytes))
        .with_context(|| format!("{} is broken: remove it", path.display()))
}

fn generated() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; GENERATED_BYTES]);
    getrandom::fill(bytes.as_mut()).ok().context("there is no randomness")?;
    Ok(Zeroizing::new(data_encoding::BASE32_NOPAD.encode(bytes.as_ref()).to_ascii_lowercase()))
}

fn from_stdin() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin().take(MAX_PASSWORD as u64 + 3).read_to_end(&mut bytes).context("reading stdin")?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = std::str::from_utf8(line).context("the password is not UTF-8")?;
    let text = text.trim_end_matches('\r');
    if text.is_empty() {
        bail!("the password is empty");
    }
    if text.len() > MAX_PASSWORD {
        bail!("the password is longer than {MAX_PASSWORD} bytes");
    }
    Ok(Zeroizing::new(text.to_owned()))
}
