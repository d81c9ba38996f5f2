//! `myelin keys`: the keys that may log in.
//!
//! Lists all of them and writes the first authorized_keys file and the list of revoked keys, under a lock and
//! atomically; the daemon reads both at each login, so a change is in force at once. Keys of the configuration are
//! never written: one that is to go is revoked.

mod edit;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Serialize;

use self::edit::{Added, Selector};
use super::authorized_keys::{
    AuthorizedKey, Key, KeyList, MAX_FILE, MAX_LINES, Source as KeySource, files as key_files, revoked_files,
};
use super::control;
use crate::config::{self, Config, Source};
use crate::files::{self, FileLock};

#[derive(Subcommand)]
pub enum Command {
    /// Show every key that may log in, those that are revoked, and the lines that let nobody in.
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
    /// Take a key away; one that stands elsewhere too, as in the configuration, is revoked until it is added again.
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
    revoked: Vec<Entry>,
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

impl Entry {
    fn of(entry: &AuthorizedKey) -> Self {
        Self {
            r#type: entry.key.kind(),
            bits: entry.key.bits(),
            fingerprint: entry.key.fingerprint(),
            comment: entry.key.comment().to_owned(),
            source: entry.source.to_string(),
            options: entry.key.options().names().to_vec(),
        }
    }
}

impl Listing {
    fn of(list: &KeyList) -> Self {
        let refused = list
            .refused
            .iter()
            .map(|line| Refusal { source: line.source.to_string(), reason: line.reason.to_string() });
        Self {
            keys: list.keys.iter().map(Entry::of).collect(),
            revoked: list.revoked.iter().map(Entry::of).collect(),
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
        for key in &self.revoked {
            let (kind, print, comment) = (&key.r#type, &key.fingerprint, printable(&key.comment));
            println!("revoked: {kind} {print} {}  {comment}", key.source);
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
    let file = KeyFile::lock(config, key_files(config).into_iter().next())?;
    let (revoked, own) = (KeyList::collect(config).revoked, revoked_files(config).next());
    let mut content = file.read()?;
    let (mut messages, mut forgiven) = (Vec::new(), Vec::new());
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
        let selector = Selector::parse(line);
        for entry in revoked.iter().filter(|entry| selector.selects(&entry.key)) {
            if !own.as_ref().is_some_and(|own| entry.source.lies_in(own)) {
                bail!("the key is revoked in {}: remove it there", entry.source);
            }
            forgiven.push(&entry.key);
        }
    }
    file.write(&content)?;
    messages.iter().for_each(|message| println!("{message}"));
    if !forgiven.is_empty() {
        let list = KeyFile::lock(config, own)?;
        let forgive =
            |content: Vec<u8>, key: &&Key| edit::remove(&content, &Selector::Key(Box::new((*key).clone()))).0;
        list.write(&forgiven.iter().fold(list.read()?, forgive))?;
        println!("no longer revoked: removed from {}", list.path.display());
    }
    Ok(())
}

fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let selector = Selector::parse(name);
    let file = KeyFile::lock(config, key_files(config).into_iter().next())?;
    let (kept, removed) = edit::remove(&file.read()?, &selector);
    if removed > 0 {
        file.write(&kept)?;
        println!("removed from {}", file.path.display());
    }
    // The same key may let its owner in from elsewhere.
    let list = KeyList::collect(config);
    let is_meant = |entry: &&AuthorizedKey| selector.selects(&entry.key);
    if let Some(entry) = list.keys.iter().find(is_meant) {
        let place = match &entry.source {
            KeySource::Config => "the configuration".into(),
            place => place.to_string(),
        };
        let path = revoke(config, &entry.key)?;
        println!("the key is also in {place}: revoked in {} until it is added again", path.display());
    } else if removed == 0 {
        match list.revoked.iter().find(is_meant) {
            Some(entry) => println!("revoked before, in {}", entry.source),
            None => bail!("no such key in {}; see: myelin keys list", file.path.display()),
        }
    }
    control::end_revoked(config);
    Ok(())
}

/// Puts a key on the list of those that never log in.
fn revoke(config: &Config, key: &Key) -> anyhow::Result<PathBuf> {
    let list = KeyFile::lock(config, revoked_files(config).next())?;
    let mut content = list.read()?;
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
    }
    content.extend(format!("{} {} {}", key.kind(), key.blob(), key.comment()).trim_end().bytes());
    content.push(b'\n');
    list.write(&content)?;
    Ok(list.path)
}

/// A file of keys, locked against other writers.
struct KeyFile {
    path: PathBuf,
    _lock: FileLock,
}

impl KeyFile {
    fn lock(config: &Config, path: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = path.context("no authorized_keys_file is configured")?;
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
