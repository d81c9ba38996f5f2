//! Looking at an archive without applying it: `-V`, `-m`, `-l`; and at a file system: `--sparse-check`.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::unistd::{Whence, lseek};
use thiserror::Error;

use super::apply::{Resource, ResourceError};
use super::archive::{ArchiveError, resource_name};
use super::firmware::{Firmware, FirmwareError, Signature};
use super::input::Input;
use super::language::meta_conf::setting;
use super::language::schema::{Kind, TOP};
use super::language::shown;
use super::options::Options;
use super::output::Output;

/// Checks every entry of an archive; the answer is for people.
pub fn verify(options: &Options) -> Result<String, InspectError> {
    let path = options.input_file().ok_or(InspectError::NeedsFile)?;
    let file = File::open(path).map_err(|source| InspectError::Input { path: path.into(), source })?;
    let mut firmware = Firmware::open(file, &options.public_keys)?;
    let mut missing = Vec::new();
    for section in firmware.configuration.sections("file-resource") {
        missing.push(Resource::parse(section)?);
    }
    let ended = loop {
        let entry = match firmware.archive.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        let Some(name) = resource_name(&entry.name) else { continue };
        let at = missing.iter().position(|resource| resource.name == name);
        let resource = at.map(|at| missing.remove(at));
        let resource = resource.ok_or_else(|| InspectError::Unexpected { entry: entry.shown_name() })?;
        if resource.is_delta(&entry) {
            return Err(ResourceError::Delta { name: shown(&name) }.into());
        }
        resource.read(&mut firmware.archive, |_, _| Ok::<_, InspectError>(()))?;
    };
    if let Some(resource) = missing.first() {
        let resource = shown(&resource.name);
        return Err(match ended {
            Some(source) => InspectError::Ended { resource, source },
            None => InspectError::Missing { resource },
        });
    }
    Ok(match firmware.signature {
        Signature::Good => "Valid archive with a good signature\n",
        Signature::Unchecked => "Valid archive with a signature that was not checked: no key was given\n",
        Signature::None => "Valid archive without a signature\n",
    }
    .into())
}

/// The metadata as lines, or the one value that was asked for.
pub fn metadata(options: &Options, output: &Output) -> Result<Vec<u8>, InspectError> {
    let firmware = open(options, output)?;
    let configuration = &firmware.configuration;
    let (uuid, nickname) = (firmware.uuid.to_text(), firmware.uuid.nickname());
    let value = |name: &str| match (name, configuration.text(name)) {
        (_, Some(value)) => Some(value.to_vec()),
        ("meta-creation-date", None) => Some(firmware.created.clone().into_bytes()),
        ("meta-uuid", None) => Some(uuid.clone().into_bytes()),
        ("meta-nickname", None) => Some(nickname.clone().into_bytes()),
        _ => None,
    };
    if let Some(key) = &options.metadata_key {
        let key = TOP.position(key.as_bytes()).map(|at| &TOP.entries[at]);
        let key = key.filter(|entry| matches!(entry.kind, Kind::Text(_)));
        let mut text = key.and_then(|entry| value(entry.name)).unwrap_or_else(|| b"(null)".to_vec());
        text.push(b'\n');
        return Ok(text);
    }
    let lines = METADATA.iter().filter_map(|name| Some(setting(name, &value(name)?)));
    Ok(lines.collect::<Vec<_>>().concat())
}

/// The names of the tasks, sorted.
pub fn list(options: &Options, output: &Output) -> Result<Vec<u8>, InspectError> {
    let firmware = open(options, output)?;
    let tasks = firmware.configuration.sections("task");
    let mut names: Vec<_> = tasks.iter().map(|task| [&task.title, b"\n".as_slice()].concat()).collect();
    names.sort_unstable();
    Ok(names.concat())
}

/// Whether a file system supports holes.
pub fn sparse_check(path: &Path, size: u64) -> Result<String, InspectError> {
    let failed = |source| InspectError::SparseCheck { path: path.into(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map_err(failed)?;
    let found = (|| {
        file.seek(SeekFrom::Start(size))?;
        file.write_all(b"data")?;
        file.sync_all()?;
        Ok(lseek(&file, 0, Whence::SeekData)?)
    })();
    let _ = fs::remove_file(path);
    match found {
        Ok(data) if u64::try_from(data) == Ok(size) => Ok("Sparse files supported\n".into()),
        Ok(_) => Err(InspectError::NoHoles { path: path.into() }),
        Err(source) => Err(failed(source)),
    }
}

fn open(options: &Options, output: &Output) -> Result<Firmware<Input>, InspectError> {
    let input = Input::open(options.input.as_deref(), output.is_framed(), Rc::new(Cell::new(0)));
    let path = options.input.clone().unwrap_or_default();
    let input = input.map_err(|source| InspectError::Input { path, source })?;
    Ok(Firmware::open(input, &options.public_keys)?)
}

/// In the order in which they are printed.
const METADATA: [&str; 12] = [
    "meta-product",
    "meta-description",
    "meta-version",
    "meta-author",
    "meta-platform",
    "meta-architecture",
    "meta-creation-date",
    "meta-fwup-version",
    "meta-misc",
    "meta-vcs-identifier",
    "meta-uuid",
    "meta-nickname",
];

#[derive(Debug, Error)]
pub enum InspectError {
    #[error("verifying needs an archive file: give it with -i")]
    NeedsFile,
    #[error("cannot open the archive {path}: {source}", path = path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("'{entry}' does not belong into this archive, or comes twice")]
    Unexpected { entry: String },
    #[error("resource '{resource}' is missing in the archive")]
    Missing { resource: String },
    #[error("resource '{resource}' did not come: {source}")]
    Ended { resource: String, source: ArchiveError },
    #[error("the file system of {path} does not support holes in files", path = path.display())]
    NoHoles { path: PathBuf },
    #[error("cannot try a hole in {path}: {source}", path = path.display())]
    SparseCheck { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
}
