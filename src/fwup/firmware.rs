//! The beginning of an archive: signature, `meta.conf`, who made it. Nothing is installed before this.

use std::io::Read;

use thiserror::Error;

use super::archive::header::Modified;
use super::archive::reader::ArchiveReader;
use super::archive::{ArchiveError, META_CONF_NAME, SIGNATURE_NAME};
use super::keys::{PublicKey, SIGNATURE_LEN};
use super::language::meta_conf::Uuid;
use super::language::parser::read_meta_conf;
use super::language::section::Section;
use super::language::variables::Variables;
use super::language::{ConfigError, shown};
use super::time::Date;

/// An archive whose `meta.conf` was read and, if keys were given, found to be signed with one of them.
pub struct Firmware<R> {
    /// Stands behind `meta.conf`.
    pub archive: ArchiveReader<R>,
    pub configuration: Section,
    pub variables: Variables,
    pub uuid: Uuid,
    /// When `meta.conf` was made.
    pub created: String,
    pub signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    None,
    Unchecked,
    Good,
}

impl<R: Read> Firmware<R> {
    pub fn open(stream: R, keys: &[PublicKey]) -> Result<Self, FirmwareError> {
        let mut archive = ArchiveReader::new(stream);
        let head = Head::read(&mut archive)?;
        let signature = check_signature(&head, keys)?;
        let uuid = Uuid::of(&head.meta_conf);
        let mut variables = Variables::from_environment();
        let own = [("FWUP_META_UUID", uuid.to_text()), ("FWUP_META_NICKNAME", uuid.nickname())];
        for (name, value) in &own {
            variables.set(name.as_bytes(), value.as_str());
        }
        let configuration = read_meta_conf(head.meta_conf, &mut variables)?;
        let settings = [("meta-uuid", &own[0].1), ("meta-nickname", &own[1].1)];
        let changed = settings
            .iter()
            .any(|(name, value)| configuration.text(name).is_some_and(|text| text != value.as_bytes()))
            || own.iter().any(|(name, value)| variables.get(name.as_bytes()) != Some(value.as_bytes()));
        if changed {
            return Err(FirmwareError::SetsUuid);
        }
        let created = match head.modified {
            Modified::Unix(seconds) => Date::from_unix(seconds),
            Modified::Dos { time, date } => Date::from_dos(time, date),
        };
        Ok(Self { archive, configuration, variables, uuid, created: created.to_text(), signature })
    }
}

/// What an archive says of itself, for whoever decides whether it may be installed. What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub version: String,
    pub product: String,
    pub platform: String,
    pub architecture: String,
}

impl Metadata {
    /// Reads no further than `meta.conf`. The signature is not checked: that is for whoever installs it.
    pub fn read(stream: impl Read) -> Result<Self, FirmwareError> {
        let configuration = Firmware::open(stream, &[])?.configuration;
        let text = |name| {
            let text = configuration.text(name).unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        Ok(Self {
            version: text("meta-version"),
            product: text("meta-product"),
            platform: text("meta-platform"),
            architecture: text("meta-architecture"),
        })
    }
}

/// What stands before the resources.
pub struct Head {
    pub signature: Option<[u8; SIGNATURE_LEN]>,
    pub meta_conf: Vec<u8>,
    pub modified: Modified,
}

impl Head {
    pub fn read<R: Read>(archive: &mut ArchiveReader<R>) -> Result<Self, FirmwareError> {
        let mut entry = archive.next_entry()?.ok_or(FirmwareError::NoMetaConf)?;
        let mut signature = None;
        if entry.name == SIGNATURE_NAME {
            let bytes = read_limited(archive, SIGNATURE_LEN)?.ok_or(FirmwareError::SignatureLength)?;
            signature = Some(bytes.try_into().map_err(|_| FirmwareError::SignatureLength)?);
            entry = archive.next_entry()?.ok_or(FirmwareError::NoMetaConf)?;
        }
        if entry.name != META_CONF_NAME {
            return Err(FirmwareError::MetaConfNotFirst { found: shown(&entry.name) });
        }
        let meta_conf = read_limited(archive, LONGEST_META_CONF)?;
        let meta_conf = meta_conf.filter(|text| text.len() >= SHORTEST_META_CONF);
        let meta_conf = meta_conf.ok_or(FirmwareError::MetaConfLength)?;
        Ok(Self { signature, meta_conf, modified: entry.modified })
    }
}

fn check_signature(head: &Head, keys: &[PublicKey]) -> Result<Signature, FirmwareError> {
    match head.signature {
        None if keys.is_empty() => Ok(Signature::None),
        None => Err(FirmwareError::NotSigned),
        Some(_) if keys.is_empty() => Ok(Signature::Unchecked),
        Some(signature) if keys.iter().any(|key| key.verifies(&head.meta_conf, &signature)) => {
            Ok(Signature::Good)
        }
        Some(_) => Err(FirmwareError::WrongSignature),
    }
}

/// The data of an entry, to its end; `None` if it is longer than the limit.
fn read_limited<R: Read>(
    archive: &mut ArchiveReader<R>,
    limit: usize,
) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut bytes = vec![0; limit + 1];
    let length = archive.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(Some(bytes).filter(|bytes| bytes.len() <= limit))
}

const SHORTEST_META_CONF: usize = 10;
const LONGEST_META_CONF: usize = 49_999;

impl FirmwareError {
    /// There may be more to come that makes it a firmware.
    pub fn is_truncated(&self) -> bool {
        matches!(self, Self::Archive(ArchiveError::Truncated))
    }
}

#[derive(Debug, Error)]
pub enum FirmwareError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the archive has no meta.conf: it is no firmware")]
    NoMetaConf,
    #[error("meta.conf must come first in the archive, not '{found}': use a tool that keeps the order")]
    MetaConfNotFirst { found: String },
    #[error("meta.conf must have {SHORTEST_META_CONF} to {LONGEST_META_CONF} bytes")]
    MetaConfLength,
    #[error("the signature of the archive must have {SIGNATURE_LEN} bytes")]
    SignatureLength,
    #[error("the archive is not signed, and only signed firmware is accepted here")]
    NotSigned,
    #[error("the archive is signed with none of the given keys, or was changed after it was signed")]
    WrongSignature,
    #[error("meta.conf tries to set the UUID of the firmware, which is computed")]
    SetsUuid,
}
