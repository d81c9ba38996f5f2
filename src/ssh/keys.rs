//! `myelin keys`: the keys that may log in.
//!
//! Lists all of them and writes the first authorized_keys file, under a lock and atomically; the daemon
//! reads it at each login, so a change is in force at once. Keys of the configuration are never written.

mod edit;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Serialize;

use self::edit::{Added, Selector};
use super::authorized_keys::{KeyList, MAX_FILE, MAX_LINES, Source as KeySource, files as key_files};
use crate::config::{self, Config, Source};
use crate::files::{self, FileLock};

#[derive(Subcommand)]
pub enum Command {
    /// Show every key that may log in, and the lines that let nobody in.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Let the owner of a key log in.
    Add {
        /// A line of a .pub file; `-` reads lines from stdin.
        #[arg(required_unless_present = "file", value_name = "KEY")]
        key: Vec<String>,
        /// A file with such lines.
        #[arg(long, conflicts_with = "key")]
        file: Option<PathBuf>,
    },
    /// Take a key away.
    Remove {
        /// The line, the base64 of the key, or its SHA256: fingerprint.
        #[arg(required = true, value_name = "KEY")]
        key: Vec<String>,
    },
}

pub fn main(source: &Source, command: Command) -> ExitCode {
    let loaded = config::load(source);
    for problem in &loaded.problems {
        eprintln!("myelin: warning: {problem}");
    }
    let config = loaded.config;
    let outcome = match command {
        Command::List { json } => list(&config, json),
        Command::Add { key, file } => {
            lines_to_add(&key, file.as_deref()).and_then(|lines| add(&config, &lines))
        }
        Command::Remove { key } => remove(&config, &key.join(" ")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The answer of `list --json`.
#[derive(Serialize)]
struct Listing {
    keys: Vec<Entry>,
    refused: Vec<Refusal>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    r#type: String,
    bits: u32,
    fingerprint: String,
    comment: String,
    source: String,
    /// Names without values: a command may have a password in it.
    options: Vec<&'static str>,
}

#[derive(Serialize)]
struct Refusal {
    source: String,
    reason: String,
}

impl Listing {
    fn of(list: &KeyList) -> Self {
        let keys = list.keys.iter().map(|entry| Entry {
            r#type: entry.key.kind(),
            bits: entry.key.bits(),
            fingerprint: entry.key.fingerprint(),
            comment: entry.key.comment().to_owned(),
            source: entry.source.to_string(),
            options: entry.key.options().names().to_vec(),
        });
        let refused = list
            .refused
            .iter()
            .map(|line| Refusal { source: line.source.to_string(), reason: line.reason.to_string() });
        Self {
            keys: keys.collect(),
            refused: refused.collect(),
            problems: list.file_errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn print(&self) {
        for key in &self.keys {
            let options = match key.options.as_slice() {
                [] => String::new(),
                names => format!("  [{}]", names.join(",")),
            };
            println!(
                "{:<20} {:>4} {} {}{options}  {}",
                key.r#type,
                key.bits,
                key.fingerprint,
                key.source,
                printable(&key.comment)
            );
        }
        for line in &self.refused {
            println!("refused: {}: {}", line.source, line.reason);
        }
        for problem in &self.problems {
            println!("problem: {problem}");
        }
    }
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let list = KeyList::collect(config);
    let listing = Listing::of(&list);
    if json {
        println!("{}", serde_json::to_string(&listing)?);
        return Ok(());
    }
    listing.print();
    if listing.keys.is_empty() {
        eprintln!(
            "Nobody can log in: there is no key. Add one with: myelin keys add \"$(cat id_ed25519.pub)\""
        );
    }
    Ok(())
}

/// A comment must not move the cursor of whoever lists it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What the command line names: lines in quotes, one line as several words, a file, or stdin.
fn lines_to_add(words: &[String], file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let text = match (file, words) {
        (Some(path), _) => {
            let bytes = files::read_limited(path, MAX_FILE)?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, [word]) if word == "-" => {
            let mut bytes = Vec::new();
            io::stdin().take(MAX_FILE).read_to_end(&mut bytes).context("reading stdin")?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, words) if words.iter().all(|word| word.contains([' ', '\t'])) => words.join("\n"),
        (None, words) => words.join(" "),
    };
    let is_key = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines: Vec<String> =
        text.trim_start_matches('\u{feff}').lines().filter(is_key).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!("there is no key to add");
    }
    Ok(lines)
}

/// Adds all lines, or none when one of them is bad.
fn add(config: &Config, lines: &[String]) -> anyhow::Result<()> {
    let file = KeyFile::lock(config)?;
    let mut content = file.read()?;
    let mut messages = Vec::new();
    for line in lines {
        match edit::add(&content, line, config.ssh.required_rsa_size)? {
            Added::Appended(new) => {
                content = new;
                messages.push(format!("added to {}", file.path.display()));
            }
            Added::AlreadyThere { line } => {
                messages.push(format!("already there: {}:{line}", file.path.display()));
            }
        }
    }
    file.write(&content)?;
    messages.iter().for_each(|message| println!("{message}"));
    Ok(())
}

fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let selector = Selector::parse(name);
    let file = KeyFile::lock(config)?;
    let (kept, removed) = edit::remove(&file.read()?, &selector);
    if removed > 0 {
        file.write(&kept)?;
        println!("removed from {}", file.path.display());
    }
    // The same key may let its owner in from elsewhere; who removes a key must hear that.
    let list = KeyList::collect(config);
    match list.keys.iter().find(|entry| selector.selects(&entry.key)).map(|entry| &entry.source) {
        Some(KeySource::Config) => {
            bail!(
                "the key is in the configuration (authorized_keys) and still lets its owner in: remove it there"
            )
        }
        Some(place) => {
            bail!("the key is also in {place} and still lets its owner in: remove it there")
        }
        None if removed == 0 => bail!("no such key in {}; see: myelin keys list", file.path.display()),
        None => Ok(()),
    }
}

/// The first authorized_keys file, locked against other writers.
struct KeyFile {
    path: PathBuf,
    _lock: FileLock,
}

impl KeyFile {
    fn lock(config: &Config) -> anyhow::Result<Self> {
        let path = key_files(config).into_iter().next().context("no authorized_keys_file is configured")?;
        // A link stays a link: the file that it names is replaced.
        let path = path.canonicalize().unwrap_or(path);
        let folder = path.parent().context("authorized_keys_file must be an absolute path")?;
        if path.starts_with(&config.state_dir) {
            files::make_dir(&config.state_dir, 0o700)?;
        }
        files::make_dir(folder, 0o700)?;
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        let lock = FileLock::wait(Path::new(&lock), LOCK_WAIT)?;
        Ok(Self { path, _lock: lock })
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        Ok(files::read_limited(&self.path, MAX_FILE)?)
    }

    fn write(&self, content: &[u8]) -> anyhow::Result<()> {
        if content.len() as u64 > MAX_FILE || content.split(|byte| *byte == b'\n').count() > MAX_LINES + 1 {
            bail!("{} would become too large: remove keys first", self.path.display());
        }
        Ok(files::write_atomic(&self.path, content, 0o600)?)
    }
}

/// How long another `myelin keys` may take.
const LOCK_WAIT: Duration = Duration::from_secs(10);
