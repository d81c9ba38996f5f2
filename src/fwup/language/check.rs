//! What creating an archive checks and an archive's own `meta.conf` is not asked again: names, ranges,
//! references.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::calls::{Action, CallError, FatAction, Requirement};
use super::schema::Calls;
use super::section::{Call, Section};
use super::{Problem, VERSION, partitions, shown};
use crate::files::read_limited;
use crate::fwup::partition::PartitionError;
use crate::fwup::{hex, number};

/// A version that is asked for must not be above the one this program stands for.
pub fn version(needed: &[u8]) -> Result<(), Problem> {
    let wrong = || Problem::Version { text: shown(needed) };
    let numbers = parse_version(needed).ok_or_else(wrong)?;
    if parse_version(VERSION.as_bytes()).is_some_and(|ours| numbers > ours) {
        return Err(Problem::TooOld { needed: shown(needed) });
    }
    Ok(())
}

/// A requirement or an action where it stands. `fat_write` gets the name of its resource.
pub fn call(top: &Section, section: &Section, call: &mut Call) -> Result<(), CheckError> {
    if section.schema.calls == Calls::Requirements {
        if let Requirement::UbootVariable { environment, .. } = Requirement::parse(call)? {
            known(top, "uboot-environment", &environment)?;
        }
        return Ok(());
    }
    let action = Action::parse(call)?;
    if action.consumes_resource() && section.schema.kind != "on-resource" {
        return Err(CheckError::OnResourceOnly { name: shown(&call.name) });
    }
    match action {
        Action::MbrWrite { mbr } => known(top, "mbr", &mbr)?,
        Action::GptWrite { gpt } => known(top, "gpt", &gpt)?,
        Action::Uboot { environment, .. } => known(top, "uboot-environment", &environment)?,
        Action::Fat { action: FatAction::Write { file: None }, .. } => {
            call.arguments.push(section.title.clone());
        }
        _ => {}
    }
    Ok(())
}

/// A section that has just ended.
pub fn section(top: &Section, section: &mut Section) -> Result<(), Problem> {
    match section.schema.kind {
        "file-resource" => resource(section)?,
        "on-resource" => known(top, "file-resource", &section.title)?,
        "mbr" => {
            bootstrap_code(section)?;
            partitions::mbr(section)?.check().map_err(CheckError::from)?;
        }
        "gpt" => partitions::gpt(section)?.check().map_err(CheckError::from)?,
        "partition" if section.flag("boot") && section.schema.position(b"guid").is_some() => {
            boot_flag(section)?;
        }
        "uboot-environment" => environment(section)?,
        _ => {}
    }
    Ok(())
}

fn resource(section: &Section) -> Result<(), CheckError> {
    let name = &section.title;
    let forbidden = name.is_empty()
        || name.ends_with(b"/")
        || name == b"/meta.conf"
        || name == b"/data"
        || name.starts_with(b"/data/");
    if forbidden {
        return Err(CheckError::ResourceName { name: shown(name) });
    }
    // An empty resource is fine, an empty path is a variable that was not set.
    if section.text("host-path").is_some() == section.is_given("contents") {
        return Err(CheckError::ResourceSource { name: shown(name) });
    }
    Ok(())
}

fn bootstrap_code(section: &mut Section) -> Result<(), CheckError> {
    let Some(path) = section.text("bootstrap-code-host-path") else { return Ok(()) };
    let path = Path::new(OsStr::from_bytes(path)).to_path_buf();
    let code = read_limited(&path, BOOTSTRAP_LEN as u64).ok().filter(|code| code.len() == BOOTSTRAP_LEN);
    let code = code.ok_or(CheckError::BootstrapCode { path })?;
    section.set_text("bootstrap-code", hex::encode(&code).into_bytes());
    Ok(())
}

/// `boot = true` of a GPT partition is bit 2 of its flags.
fn boot_flag(section: &mut Section) -> Result<(), CheckError> {
    let flags = section.text_or_default("flags");
    let flags = number::parse_u64(flags).ok_or_else(|| CheckError::Flags { text: shown(flags) })?;
    section.set_text("flags", format!("{:#x}", flags | partitions::BOOT_FLAG).into_bytes());
    section.set_flag("boot", false);
    Ok(())
}

fn environment(section: &Section) -> Result<(), CheckError> {
    let name = || shown(&section.title);
    let offset = |key: &'static str| {
        section.text(key).map(|text| number::parse_u64(text).ok_or(CheckError::Offset { name: name(), key }))
    };
    let first = offset("block-offset").ok_or(CheckError::Offset { name: name(), key: "block-offset" })??;
    let count = u64::try_from(section.int("block-count")).unwrap_or(0);
    if !(1..=LARGEST_ENVIRONMENT).contains(&count) {
        return Err(CheckError::EnvironmentSize { name: name() });
    }
    if let Some(second) = offset("block-offset-redund").transpose()?
        && first.abs_diff(second) < count
    {
        return Err(CheckError::EnvironmentOverlap { name: name() });
    }
    Ok(())
}

fn known(top: &Section, kind: &'static str, title: &[u8]) -> Result<(), CheckError> {
    match top.section(kind, title) {
        Some(_) => Ok(()),
        None => Err(CheckError::NotDefined { kind, title: shown(title) }),
    }
}

fn parse_version(text: &[u8]) -> Option<[u64; 3]> {
    let text = std::str::from_utf8(text).ok()?;
    let mut numbers = [0; 3];
    for (at, part) in text.split('.').enumerate() {
        *numbers.get_mut(at)? = part.parse().ok()?;
    }
    Some(numbers)
}

const BOOTSTRAP_LEN: usize = 440;
pub const LARGEST_ENVIRONMENT: u64 = 65534;

#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error("{kind} '{title}': {key} is no number that fits")]
    PartitionSetting { kind: &'static str, title: String, key: &'static str },
    #[error("'{title}' is no number of a partition")]
    PartitionNumber { title: String },
    #[error("mbr '{name}' cannot have bootstrap code and include-osip")]
    CodeAndOsip { name: String },
    #[error("'{name}' can be used in on-resource only")]
    OnResourceOnly { name: String },
    #[error("there is no {kind} '{title}' before this place")]
    NotDefined { kind: &'static str, title: String },
    #[error("a resource cannot be named '{name}'")]
    ResourceName { name: String },
    #[error("file-resource '{name}' needs exactly one of host-path and contents: undefined variable?")]
    ResourceSource { name: String },
    #[error("bootstrap code must be a file of {BOOTSTRAP_LEN} bytes, which {path} is not", path = path.display())]
    BootstrapCode { path: PathBuf },
    #[error("flags must be an integer, not '{text}'")]
    Flags { text: String },
    #[error("uboot-environment '{name}' needs {key}, an integer that is not negative")]
    Offset { name: String, key: &'static str },
    #[error("block-count of uboot-environment '{name}' must be 1 to {LARGEST_ENVIRONMENT}")]
    EnvironmentSize { name: String },
    #[error("the two copies of uboot-environment '{name}' overlap")]
    EnvironmentOverlap { name: String },
}
