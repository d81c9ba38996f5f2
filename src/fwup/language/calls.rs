//! The calls of tasks as types: requirements, and actions. Parsed once, checked once.

use thiserror::Error;

use super::section::Call;
use super::shown;
use crate::fwup::number;

/// What must hold before a task is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    PartitionOffset { partition: u64, offset: u64 },
    UbootVariable { environment: Vec<u8>, name: Vec<u8>, value: Vec<u8> },
    FatFileExists { offset: u64, file: Vec<u8> },
    FatFileMatch { offset: u64, file: Vec<u8>, text: Vec<u8> },
    PathOnDevice { path: Vec<u8>, device: Vec<u8> },
    PathAtOffset { path: Vec<u8>, offset: u64 },
    Execute { command: Vec<u8> },
}

impl Requirement {
    pub fn parse(call: &Call) -> Result<Self, CallError> {
        let args = Arguments::of(call);
        Ok(match call.name.as_slice() {
            b"require-partition-offset" => {
                args.count(2)?;
                let partition = args.number(0)?;
                if partition > 3 {
                    return Err(args.wrong(0, "0 to 3"));
                }
                Self::PartitionOffset { partition, offset: args.number(1)? }
            }
            b"require-uboot-variable" => {
                args.count(3)?;
                Self::UbootVariable { environment: args.text(0), name: args.text(1), value: args.text(2) }
            }
            b"require-fat-file-exists" => {
                args.count(2)?;
                Self::FatFileExists { offset: args.number(0)?, file: args.text(1) }
            }
            b"require-fat-file-match" => {
                args.count(3)?;
                Self::FatFileMatch { offset: args.number(0)?, file: args.text(1), text: args.text(2) }
            }
            b"require-path-on-device" => {
                args.count(2)?;
                Self::PathOnDevice { path: args.text(0), device: args.text(1) }
            }
            b"require-path-at-offset" => {
                args.count(2)?;
                Self::PathAtOffset { path: args.text(0), offset: args.number(1)? }
            }
            b"require-execute" => {
                args.count(1)?;
                Self::Execute { command: args.text(0) }
            }
            _ => return Err(CallError::Unknown { name: shown(&call.name) }),
        })
    }
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    RawWrite { offset: u64, options: Vec<Vec<u8>> },
    RawMemset { offset: u64, count: u64, value: u8 },
    Trim { offset: u64, count: u64 },
    MbrWrite { mbr: Vec<u8> },
    GptWrite { gpt: Vec<u8> },
    Fat { offset: u64, action: FatAction },
    Uboot { environment: Vec<u8>, action: UbootAction },
    PathWrite { path: Vec<u8> },
    PipeWrite { command: Vec<u8> },
    UbiVolumeWrite { device: Vec<u8> },
    Execute { command: Vec<u8> },
    RebootParam { text: Vec<u8> },
    Info { text: Vec<u8> },
    Error { text: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FatAction {
    Mkfs {
        count: u64,
    },
    SetLabel {
        label: Vec<u8>,
    },
    Mkdir {
        folder: Vec<u8>,
    },
    /// Without a file: the name of the resource.
    Write {
        file: Option<Vec<u8>>,
    },
    Touch {
        file: Vec<u8>,
    },
    Copy {
        from: Vec<u8>,
        to_offset: u64,
        to: Vec<u8>,
    },
    Move {
        from: Vec<u8>,
        to: Vec<u8>,
        replace: bool,
    },
    Remove {
        file: Vec<u8>,
        must_exist: bool,
    },
    Attributes {
        file: Vec<u8>,
        read_only: bool,
        hidden: bool,
        system: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UbootAction {
    Clear,
    Set { name: Vec<u8>, value: Vec<u8> },
    Unset { name: Vec<u8> },
    Recover,
}

impl Action {
    pub fn parse(call: &Call) -> Result<Self, CallError> {
        let args = Arguments::of(call);
        if call.name.starts_with(b"fat_") {
            return args.fat_action();
        }
        if let Some(name) = call.name.strip_prefix(b"uboot_") {
            return args.uboot_action(name);
        }
        Ok(match call.name.as_slice() {
            b"raw_write" => {
                let options = call.arguments.get(1..).ok_or_else(|| args.wrong_count("1 or more"))?.to_vec();
                Self::RawWrite { offset: args.number(0)?, options }
            }
            b"raw_memset" => {
                args.count(3)?;
                let value = u8::try_from(args.number(2)?).map_err(|_| args.wrong(2, "0 to 255"))?;
                Self::RawMemset { offset: args.number(0)?, count: args.positive(1)?, value }
            }
            b"trim" => {
                args.count(2)?;
                Self::Trim { offset: args.number(0)?, count: args.positive(1)? }
            }
            b"mbr_write" => Self::MbrWrite { mbr: args.only()? },
            b"gpt_write" => Self::GptWrite { gpt: args.only()? },
            b"path_write" => Self::PathWrite { path: args.only()? },
            b"pipe_write" => Self::PipeWrite { command: args.only()? },
            b"ubi_volume_write" => Self::UbiVolumeWrite { device: args.only()? },
            b"execute" => Self::Execute { command: args.only()? },
            b"reboot_param" => Self::RebootParam { text: args.only()? },
            b"info" => Self::Info { text: args.only()? },
            b"error" => Self::Error { text: args.only()? },
            _ => return Err(args.unknown()),
        })
    }

    /// Takes the data of the resource; possible in `on-resource` only.
    pub fn consumes_resource(&self) -> bool {
        matches!(
            self,
            Self::RawWrite { .. }
                | Self::PathWrite { .. }
                | Self::PipeWrite { .. }
                | Self::UbiVolumeWrite { .. }
                | Self::Fat { action: FatAction::Write { .. }, .. }
        )
    }

    /// Does something outside of the destination, which takes `--unsafe`.
    pub fn needs_unsafe(&self) -> bool {
        matches!(
            self,
            Self::PathWrite { .. }
                | Self::PipeWrite { .. }
                | Self::UbiVolumeWrite { .. }
                | Self::Execute { .. }
        )
    }
}

/// The arguments of one call, with errors that name it.
struct Arguments<'a> {
    call: &'a Call,
}

impl<'a> Arguments<'a> {
    fn of(call: &'a Call) -> Self {
        Self { call }
    }

    fn fat_action(&self) -> Result<Action, CallError> {
        let action = match self.call.name.as_slice() {
            b"fat_mkfs" => self.count(2).and_then(|()| Ok(FatAction::Mkfs { count: self.positive(1)? }))?,
            b"fat_setlabel" => self.count(2).map(|()| FatAction::SetLabel { label: self.text(1) })?,
            b"fat_mkdir" => self.count(2).map(|()| FatAction::Mkdir { folder: self.text(1) })?,
            b"fat_touch" => self.count(2).map(|()| FatAction::Touch { file: self.text(1) })?,
            b"fat_write" => match self.call.arguments.len() {
                1 => FatAction::Write { file: None },
                2 => FatAction::Write { file: Some(self.text(1)) },
                _ => return Err(self.wrong_count("1 or 2")),
            },
            b"fat_cp" => match self.call.arguments.len() {
                3 => FatAction::Copy { from: self.text(1), to_offset: self.number(0)?, to: self.text(2) },
                4 => FatAction::Copy { from: self.text(1), to_offset: self.number(2)?, to: self.text(3) },
                _ => return Err(self.wrong_count("3 or 4")),
            },
            b"fat_mv" | b"fat_mv!" => {
                self.count(3)?;
                FatAction::Move { from: self.text(1), to: self.text(2), replace: self.insists() }
            }
            b"fat_rm" | b"fat_rm!" => {
                self.count(2)?;
                FatAction::Remove { file: self.text(1), must_exist: self.insists() }
            }
            b"fat_attrib" => {
                self.count(3)?;
                let letters = self.text(2).to_ascii_uppercase();
                if letters.iter().any(|letter| !b"RHS".contains(letter)) {
                    return Err(self.wrong(2, "the letters R, H and S"));
                }
                let has = |letter| letters.contains(&letter);
                let (read_only, hidden, system) = (has(b'R'), has(b'H'), has(b'S'));
                FatAction::Attributes { file: self.text(1), read_only, hidden, system }
            }
            _ => return Err(self.unknown()),
        };
        Ok(Action::Fat { offset: self.number(0)?, action })
    }

    fn uboot_action(&self, name: &[u8]) -> Result<Action, CallError> {
        let action = match name {
            b"clearenv" => self.count(1).map(|()| UbootAction::Clear)?,
            b"setenv" => {
                self.count(3)?;
                UbootAction::Set { name: self.text(1), value: self.text(2) }
            }
            b"unsetenv" => self.count(2).map(|()| UbootAction::Unset { name: self.text(1) })?,
            b"recover" => self.count(1).map(|()| UbootAction::Recover)?,
            _ => return Err(self.unknown()),
        };
        Ok(Action::Uboot { environment: self.text(0), action })
    }

    /// The name ends in an exclamation mark.
    fn insists(&self) -> bool {
        self.call.name.ends_with(b"!")
    }

    fn count(&self, wanted: usize) -> Result<(), CallError> {
        const NUMBERS: [&str; 5] = ["0", "1", "2", "3", "4"];
        if self.call.arguments.len() == wanted {
            return Ok(());
        }
        Err(self.wrong_count(NUMBERS.get(wanted).copied().unwrap_or("other")))
    }

    fn only(&self) -> Result<Vec<u8>, CallError> {
        self.count(1).map(|()| self.text(0))
    }

    fn text(&self, at: usize) -> Vec<u8> {
        self.call.arguments.get(at).cloned().unwrap_or_default()
    }

    fn number(&self, at: usize) -> Result<u64, CallError> {
        let number = self.call.arguments.get(at).and_then(|text| number::parse_u64(text));
        number.ok_or_else(|| self.wrong(at, "an integer that is not negative"))
    }

    fn positive(&self, at: usize) -> Result<u64, CallError> {
        match self.number(at)? {
            0 => Err(self.wrong(at, "at least 1")),
            number => Ok(number),
        }
    }

    fn wrong(&self, at: usize, wanted: &'static str) -> CallError {
        let name = shown(&self.call.name);
        CallError::Argument { name, position: at + 1, wanted, given: shown(&self.text(at)) }
    }

    fn wrong_count(&self, wanted: &'static str) -> CallError {
        CallError::Count { name: shown(&self.call.name), wanted, given: self.call.arguments.len() }
    }

    fn unknown(&self) -> CallError {
        CallError::Unknown { name: shown(&self.call.name) }
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("unknown function '{name}': a newer version may have it")]
    Unknown { name: String },
    #[error("'{name}' takes {wanted} arguments, not {given}")]
    Count { name: String, wanted: &'static str, given: usize },
    #[error("argument {position} of '{name}' must be {wanted}, not '{given}'")]
    Argument { name: String, position: usize, wanted: &'static str, given: String },
}
