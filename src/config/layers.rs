//! From files to values: key by key, later wins, and a value that is refused leaves the one before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::keys::{fields_of, same_key};
use super::load::{Place, Problem};
use super::recover::{self, Recovered};
use super::validate::{self, Verdict};
use super::values::{self, split_commas};
use super::{Accept, Config, Firmware, Legacy, Mdns, Secret, Ssh, User, Validation, Watchdog};

/// The accepted values of the files read so far.
#[derive(Default)]
pub struct Layers {
    items: BTreeMap<Section, toml::Table>,
    subsystem: BTreeMap<String, Vec<String>>,
    users: BTreeMap<String, User>,
    fwup_env: Vec<Secret>,
    authorized_keys: Vec<(String, Place)>,
    authorized_keys_file: Vec<PathBuf>,
    /// How often `firmware.public_keys` was accepted.
    public_keys_taken: usize,
    /// Where a file mentions it and none was.
    distrust: Option<Place>,
    /// Where a size of groups was read last.
    group_size: Option<Place>,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Root,
    Ssh,
    Legacy,
    Firmware,
    Accept,
    Validation,
    Mdns,
    Watchdog,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Ssh => "ssh",
            Self::Legacy => "ssh.legacy",
            Self::Firmware => "firmware",
            Self::Accept => "firmware.accept",
            Self::Validation => "firmware.validation",
            Self::Mdns => "mdns",
            Self::Watchdog => "watchdog",
        }
    }

    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Root => fields_of::<Config>(),
            Self::Ssh => fields_of::<Ssh>(),
            Self::Legacy => fields_of::<Legacy>(),
            Self::Firmware => fields_of::<Firmware>(),
            Self::Accept => fields_of::<Accept>(),
            Self::Validation => fields_of::<Validation>(),
            Self::Mdns => fields_of::<Mdns>(),
            Self::Watchdog => fields_of::<Watchdog>(),
        }
    }

    /// Whether a value is of the right type and in range, tried alone so that the others cannot matter.
    fn check(self, field: &'static str, value: &toml::Value) -> Verdict {
        match self {
            Self::Root => validate::root(&alone(field, value)?, field),
            Self::Ssh => validate::ssh(&alone(field, value)?, field),
            Self::Legacy => alone::<Legacy>(field, value).map(|_| Vec::new()),
            Self::Firmware => validate::firmware(&alone(field, value)?, field),
            Self::Accept => alone::<Accept>(field, value).map(|_| Vec::new()),
            Self::Validation => validate::validation(&alone(field, value)?, field),
            Self::Mdns => validate::mdns(&alone(field, value)?, field),
            Self::Watchdog => validate::watchdog(&alone(field, value)?, field),
        }
    }
}

fn alone<T: DeserializeOwned>(field: &str, value: &toml::Value) -> Result<T, String> {
    let table = toml::Table::from_iter([(field.to_owned(), value.clone())]);
    of_table(table).map_err(|error| error.message().to_owned())
}

/// A section of a table. `toml::Value` could also read it from an array: that is twice the code.
fn of_table<T: DeserializeOwned>(table: toml::Table) -> Result<T, toml::de::Error> {
    T::deserialize(MapDeserializer::new(table.into_iter()))
}

/// A file while its values are taken.
struct Reading<'a> {
    file: Arc<Path>,
    recovered: &'a Recovered,
}

impl Reading<'_> {
    fn place(&self, span: &std::ops::Range<usize>) -> Place {
        Place { file: self.file.clone(), line: self.recovered.line(span.start) }
    }
}

impl Layers {
    /// Takes the values of one more file, which win over those before it.
    pub fn add(&mut self, file: &Path, bytes: &[u8]) {
        let recovered = recover::parse(bytes);
        let file: Arc<Path> = file.into();
        for lost in &recovered.lost {
            let place = Place { file: file.clone(), line: lost.line };
            self.problem(place, &lost.key, lost.text.clone());
        }
        let reading = Reading { file: file.clone(), recovered: &recovered };
        let before = self.public_keys_taken;
        self.section(Section::Root, recovered.table(), &reading);
        let size = |name, default| {
            let value = self.items.get(&Section::Ssh).and_then(|items| items.get(name)?.as_integer());
            value.unwrap_or(default)
        };
        if size("dh_gex_min", 3072) > size("dh_gex_max", 8192)
            && let Some(place) = self.group_size.take()
        {
            self.problem(place, "ssh.dh_gex_max", "is less than dh_gex_min: it counts for both".into());
        }
        if self.public_keys_taken == before
            && let Some(line) = line_of_public_keys(bytes)
        {
            self.distrust = Some(Place { file, line });
        }
    }

    fn section(&mut self, section: Section, table: DeTable<'_>, reading: &Reading<'_>) {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.span().start);
        let fields = section.fields();
        for (key, value) in entries {
            let place = reading.place(&key.span());
            let Some(field) = fields.iter().copied().find(|field| same_key(key.get_ref(), field)) else {
                let name = joined(section, key.get_ref());
                self.problem(place, &name, "unknown key: ignored; `myelin config show` lists all".into());
                continue;
            };
            let name = joined(section, field);
            match (section, field) {
                (Section::Root, "ssh") => self.sub_section(Section::Ssh, place, value, reading),
                (Section::Root, "firmware") => self.sub_section(Section::Firmware, place, value, reading),
                (Section::Root, "mdns") => self.sub_section(Section::Mdns, place, value, reading),
                (Section::Root, "watchdog") => self.sub_section(Section::Watchdog, place, value, reading),
                (Section::Firmware, "accept") => self.sub_section(Section::Accept, place, value, reading),
                (Section::Firmware, "validation") => {
                    self.sub_section(Section::Validation, place, value, reading);
                }
                (Section::Ssh, "legacy") => self.sub_section(Section::Legacy, place, value, reading),
                (Section::Ssh, "subsystem") => match value.into_inner() {
                    DeValue::Table(table) => self.subsystems(table, reading),
                    _ => self.problem(place, &name, "must be a table of names and programs".into()),
                },
                (Section::Ssh, "users") => match value.into_inner() {
                    DeValue::Table(table) => self.users(table, reading),
                    _ => self.problem(place, &name, "must be a table of names: [ssh.users.NAME]".into()),
                },
                (Section::Firmware, "fwup_env") => match variables(value) {
                    Some(variables) => self.fwup_env = variables,
                    None => self.problem(place, &name, "must be up to 64 names and texts, { NAME = \"value\" }, of at most 4 KiB each, without zero bytes".into()),
                },
                (Section::Ssh, "authorized_keys") => self.authorized_keys(&name, value, reading),
                (Section::Ssh, "authorized_keys_file") => self.key_files(&name, value, reading),
                _ => {
                    let verdict = to_value(value).and_then(|value| {
                        let remarks = section.check(field, &value)?;
                        self.public_keys_taken += usize::from(field == "public_keys");
                        if matches!(field, "dh_gex_min" | "dh_gex_max") {
                            self.group_size = Some(place.clone());
                        }
                        self.items.entry(section).or_default().insert(field.to_owned(), value);
                        Ok(remarks)
                    });
                    self.report(&place, &name, verdict);
                }
            }
        }
    }

    fn sub_section(
        &mut self,
        section: Section,
        place: Place,
        value: Spanned<DeValue<'_>>,
        reading: &Reading<'_>,
    ) {
        match value.into_inner() {
            DeValue::Table(table) => self.section(section, table, reading),
            DeValue::Array(_) => {
                let text = format!("only one such section is supported: write [{}]", section.name());
                self.problem(place, section.name(), text);
            }
            _ => self.problem(place, section.name(), format!("must be a section: [{}]", section.name())),
        }
    }

    fn subsystems(&mut self, table: DeTable<'_>, reading: &Reading<'_>) {
        for (key, value) in table {
            let place = reading.place(&key.span());
            let name = key.into_inner().into_owned();
            let verdict = to_value(value).and_then(|value| {
                let words = values::words(value).map_err(|error| error.message().to_owned())?;
                let remarks = validate::subsystem(&name, &words)?;
                self.subsystem.insert(name.clone(), words);
                Ok(remarks)
            });
            self.report(&place, &format!("ssh.subsystem.{name}"), verdict);
        }
    }

    fn users(&mut self, table: DeTable<'_>, reading: &Reading<'_>) {
        for (key, value) in table {
            let place = reading.place(&key.span());
            let name = key.into_inner().into_owned();
            let verdict = user_table(value).and_then(|user| {
                let remarks = validate::user(&name, &user)?;
                self.users.insert(name.clone(), user);
                Ok(remarks)
            });
            self.report(&place, &format!("ssh.users.{name}"), verdict);
        }
    }

    /// Keys are united, never replaced: a file further down cannot lock out those of the image.
    fn authorized_keys(&mut self, name: &str, value: Spanned<DeValue<'_>>, reading: &Reading<'_>) {
        for (text, place) in self.texts(name, value, reading) {
            for (line, number) in text.lines().zip(place.line..) {
                let known = self.authorized_keys.iter().any(|(key, _)| key == line);
                if !line.trim().is_empty() && !known {
                    let place = Place { file: place.file.clone(), line: number };
                    self.authorized_keys.push((line.to_owned(), place));
                }
            }
        }
    }

    fn key_files(&mut self, name: &str, value: Spanned<DeValue<'_>>, reading: &Reading<'_>) {
        for (text, place) in self.texts(name, value, reading) {
            for path in split_commas(&text).map(PathBuf::from) {
                let verdict = validate::key_file(&path);
                if verdict.is_ok() && !self.authorized_keys_file.contains(&path) {
                    self.authorized_keys_file.push(path);
                }
                self.report(&place, name, verdict);
            }
        }
    }

    /// The texts of a value, each with its own place; what is no text is reported.
    fn texts(
        &mut self,
        name: &str,
        value: Spanned<DeValue<'_>>,
        reading: &Reading<'_>,
    ) -> Vec<(String, Place)> {
        let place = reading.place(&value.span());
        match value.into_inner() {
            DeValue::String(text) => vec![(text.into_owned(), place)],
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| {
                    let place = reading.place(&item.span());
                    if let Some(text) = item.get_ref().as_str() {
                        return Some((text.to_owned(), place));
                    }
                    self.problem(place, name, "must be text: this item is left out".into());
                    None
                })
                .collect(),
            _ => {
                self.problem(place, name, "must be a list of texts".into());
                Vec::new()
            }
        }
    }

    fn report(&mut self, place: &Place, key: &str, verdict: Verdict) {
        match verdict {
            Ok(remarks) => remarks.into_iter().for_each(|text| self.problem(place.clone(), key, text)),
            Err(text) => self.problem(place.clone(), key, text),
        }
    }

    fn problem(&mut self, place: Place, key: &str, text: String) {
        self.problems.push(Problem { place, key: key.to_owned(), text });
    }

    /// The configuration, and where each of its `authorized_keys` stands.
    pub fn build(&self) -> (Config, Vec<Place>) {
        let mut config: Config = self.values(Section::Root);
        config.ssh = self.values(Section::Ssh);
        config.ssh.legacy = self.values(Section::Legacy);
        config.firmware = self.values(Section::Firmware);
        config.firmware.fwup_env = self.fwup_env.clone();
        config.firmware.accept = self.values(Section::Accept);
        config.firmware.validation = self.values(Section::Validation);
        config.mdns = self.values(Section::Mdns);
        config.watchdog = self.values(Section::Watchdog);
        config.ssh.listen_address.retain(|address| validate::listen_address(address).is_ok());
        config.ssh.subsystem = self.subsystem.clone();
        config.ssh.users = self.users.clone();
        config.ssh.authorized_keys = self.authorized_keys.iter().map(|(key, _)| key.clone()).collect();
        config.ssh.authorized_keys_file.clone_from(&self.authorized_keys_file);
        config.ssh.dh_gex_min = config.ssh.dh_gex_min.min(config.ssh.dh_gex_max);
        config.ssh.hello_timeout = config.ssh.hello_timeout.min(config.ssh.login_grace_time);
        if let Some(place) = &self.distrust
            && config.firmware.public_keys.is_empty()
        {
            // Who asked for signatures must not get unsigned firmware because of a typing error: this entry
            // cannot be read, so every update is refused, and the refusal shows it.
            config.firmware.public_keys.push(format!("public_keys is broken at {place}"));
        }
        (config, self.authorized_keys.iter().map(|(_, place)| place.clone()).collect())
    }

    /// Every item has been accepted alone, so all of them together are.
    fn values<T: DeserializeOwned + Default>(&self, section: Section) -> T {
        self.items.get(&section).and_then(|table| of_table(table.clone()).ok()).unwrap_or_default()
    }
}

fn joined(section: Section, field: &str) -> String {
    if section == Section::Root { field.to_owned() } else { format!("{}.{field}", section.name()) }
}

/// A user's table, its keys in any spelling. No message repeats a value: it may be a password.
fn user_table(value: Spanned<DeValue<'_>>) -> Result<User, String> {
    let DeValue::Table(table) = value.into_inner() else {
        return Err("must be a section with password_hash or password".into());
    };
    let mut user = User::default();
    for (key, value) in table {
        let Some(text) = value.get_ref().as_str() else { return Err("a password must be text".into()) };
        let secret = Some(Secret::new(text.to_owned()));
        match key.get_ref() {
            key if same_key(key, "password_hash") => user.password_hash = secret,
            key if same_key(key, "password") => user.password = secret,
            _ => return Err("unknown key: there are password_hash and password".into()),
        }
    }
    Ok(user)
}

/// Environment variables. No message repeats a value here either.
fn variables(value: Spanned<DeValue<'_>>) -> Option<Vec<Secret>> {
    let DeValue::Table(table) = value.into_inner() else { return None };
    let mut variables = Vec::new();
    for (name, value) in table {
        let (name, text) = (name.get_ref(), value.get_ref().as_str()?);
        let wrong = name.is_empty() || name.contains('=') || name.contains('\0') || text.contains('\0');
        if wrong || name.len() + text.len() >= MAX_VARIABLE || variables.len() == MAX_VARIABLES {
            return None;
        }
        variables.push(Secret::new([name, "=", text].concat()));
    }
    Some(variables)
}

fn to_value(value: Spanned<DeValue<'_>>) -> Result<toml::Value, String> {
    toml::Value::deserialize(ValueDeserializer::from(value)).map_err(|error| error.message().to_owned())
}

/// The line of a file, valid or not, that mentions `public_keys` outside of a comment.
fn line_of_public_keys(bytes: &[u8]) -> Option<usize> {
    let mentions = |line: &[u8]| {
        let letters: Vec<u8> = line
            .iter()
            .take_while(|byte| **byte != b'#')
            .filter(|byte| !matches!(byte, b'_' | b'-'))
            .map(u8::to_ascii_lowercase)
            .collect();
        letters.windows(PUBLIC_KEYS.len()).any(|window| window == PUBLIC_KEYS)
    };
    bytes.split(|&byte| byte == b'\n').position(mentions).map(|index| index + 1)
}

/// Of `fwup_env`: how many, and the bytes of each.
const MAX_VARIABLES: usize = 64;
const MAX_VARIABLE: usize = 4096;
/// `public_keys`, as `same_key` sees it.
const PUBLIC_KEYS: &[u8] = b"publickeys";
