//! Creating an archive from a configuration, and signing one that is there.

mod host_file;
pub mod sign;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::archive::header::Method;
use super::archive::writer::ArchiveWriter;
use super::archive::{ArchiveError, META_CONF_NAME, SIGNATURE_NAME, entry_name};
use super::keys::PrivateKey;
use super::language::parser::{LARGEST_FILE, read_configuration};
use super::language::section::Section;
use super::language::variables::Variables;
use super::language::{ConfigError, meta_conf, shown};
use super::options::Options;
use super::time::Date;
use crate::files::{FileError, read_limited};
use host_file::{Content, HostFileError};

/// Makes the archive that the options ask for.
pub fn create(options: &Options) -> Result<(), CreateError> {
    let mut variables = Variables::from_environment();
    for name in ["FWUP_META_UUID", "FWUP_META_NICKNAME"] {
        // They are known when the archive is applied.
        variables.set(name.as_bytes(), format!("${{{name}}}"));
    }
    let mut configuration = read(&options.configuration, &mut variables)?;
    let mut contents = Vec::new();
    for section in configuration.sections_mut("file-resource") {
        let content = Content::of(section)?;
        content.measure(section)?;
        contents.push((section.title.clone(), content));
    }
    let text = meta_conf::text(&configuration);
    let created = creation_time(&variables);

    let mut destination = Destination::open(options.output.as_deref())?;
    let mut archive = ArchiveWriter::new(&mut destination.out, options.compression);
    write_head(&mut archive, options.private_key.as_ref(), &text, created)?;
    for (name, content) in &contents {
        let mut entry = archive.entry(&entry_name(name), Method::Deflated, content.size(), None)?;
        content.read(|bytes| Ok(entry.write(bytes)?))?;
        entry.finish()?;
    }
    archive.finish()?;
    destination.keep()
}

fn read(path: &Path, variables: &mut Variables) -> Result<Section, CreateError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().take(LARGEST_FILE).read_to_end(&mut bytes).map_err(CreateError::Stdin)?;
        return Ok(read_configuration("stdin".into(), PathBuf::new(), bytes, variables)?);
    }
    let bytes = read_limited(path, LARGEST_FILE)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    Ok(read_configuration(path.display().to_string(), folder, bytes, variables)?)
}

/// Signature and `meta.conf`, the entries before the resources.
fn write_head<W: Write>(
    archive: &mut ArchiveWriter<W>,
    key: Option<&PrivateKey>,
    text: &[u8],
    created: i64,
) -> Result<(), ArchiveError> {
    if let Some(key) = key {
        let signature = key.sign(text);
        let mut entry = archive.entry(SIGNATURE_NAME, Method::Stored, signature.len() as u64, None)?;
        entry.write(&signature)?;
        entry.finish()?;
    }
    let mut entry = archive.entry(META_CONF_NAME, Method::Deflated, text.len() as u64, Some(created))?;
    entry.write(text)?;
    entry.finish()
}

/// Seconds since 1970: SOURCE_DATE_EPOCH, or NOW, or the clock.
fn creation_time(variables: &Variables) -> i64 {
    let text = |name: &str| variables.get(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok());
    if let Some(seconds) = text("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()) {
        return seconds;
    }
    if let Some(date) = text("NOW").and_then(Date::from_text) {
        return date.to_unix();
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// Where an archive is written: stdout, or a temporary file that takes its name when it is complete.
struct Destination {
    out: BufWriter<Box<dyn Write>>,
    names: Option<(PathBuf, PathBuf)>,
}

impl Destination {
    fn open(path: Option<&Path>) -> Result<Self, CreateError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { out: BufWriter::new(Box::new(io::stdout())), names: None });
        };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        Self::at(temporary.into(), path.into())
    }

    fn at(temporary: PathBuf, path: PathBuf) -> Result<Self, CreateError> {
        let failed = |source| CreateError::Output { path: temporary.clone(), source };
        let file = File::create(&temporary).map_err(failed)?;
        Ok(Self { out: BufWriter::with_capacity(BUFFER, Box::new(file)), names: Some((temporary, path)) })
    }

    fn keep(mut self) -> Result<(), CreateError> {
        let path = self.names.as_ref().map(|(_, path)| path.clone()).unwrap_or_default();
        let failed = |source| CreateError::Output { path, source };
        self.out.flush().map_err(failed.clone())?;
        match self.names.take() {
            Some((temporary, path)) => fs::rename(temporary, path).map_err(failed),
            None => Ok(()),
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            // Half an archive is of no use to anybody.
            let _ = fs::remove_file(temporary);
        }
    }
}

const BUFFER: usize = 128 * 1024;

#[derive(Debug, Error)]
pub enum CreateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the configuration from stdin: {0}")]
    Stdin(io::Error),
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot write {path}: {source}", path = path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Firmware(#[from] super::firmware::FirmwareError),
    #[error("cannot open the archive {path}: {source}", path = path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("signing needs an archive (-i), a file to write (-o) and a private key (-s)")]
    SignOptions,
    #[error("the archive has a second '{name}': it cannot be signed", name = shown(name))]
    Twice { name: Vec<u8> },
}
