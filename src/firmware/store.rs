//! Where the variables of slots are kept: the environment block, or a plain file that stands in for it.

use std::path::PathBuf;

use thiserror::Error;

use super::lock::UpdateLock;
use crate::config::Firmware;
use crate::uboot_env::codec::CodecError;
use crate::uboot_env::location::LocationError;
use crate::uboot_env::plain_file::PlainFileError;
use crate::uboot_env::{Block, BlockError, Environment, PlainFile};

/// The store of this device.
#[derive(Clone, Debug)]
pub enum Store {
    Block(Block),
    File(PlainFile),
}

impl Store {
    /// As configured: `env_file` where it is set, else what `env_config` describes.
    pub fn open(firmware: &Firmware) -> Result<Self, StoreError> {
        match &firmware.env_file {
            Some(path) => Ok(Self::File(PlainFile::new(path))),
            None => Ok(Self::Block(Block::from_config(&firmware.env_config)?)),
        }
    }

    pub fn read(&self) -> Result<Environment, StoreError> {
        Ok(match self {
            Self::Block(block) => block.read()?,
            Self::File(file) => file.read()?,
        })
    }

    /// Changes variables. Whoever does holds the update lock, so that fwup is not doing the same.
    pub fn update(
        &self,
        _lock: &UpdateLock,
        change: impl FnOnce(&mut Environment) -> Result<(), CodecError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Block(block) => block.update(change)?,
            Self::File(file) => file.update(change)?,
        }
        Ok(())
    }

    /// Makes the second copy, where there is one, say what the first says. Never both in one go: whoever changed
    /// something has written one of them, and it was read back.
    pub fn settle(&self, _lock: &UpdateLock) -> Result<(), StoreError> {
        match self {
            Self::Block(block) => Ok(block.settle()?),
            Self::File(_) => Ok(()),
        }
    }
}

/// Reads the store as it is now.
pub fn read(firmware: &Firmware) -> Result<Environment, StoreError> {
    Store::open(firmware)?.read()
}

/// What fwup writes to: as configured, else as the store says.
pub fn devpath(firmware: &Firmware, environment: Option<&Environment>) -> Option<PathBuf> {
    let stored = || environment.and_then(|environment| environment.get("nerves_fw_devpath"));
    firmware.devpath.clone().or_else(|| stored().filter(|path| !path.is_empty()).map(PathBuf::from))
}

#[derive(Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    File(#[from] PlainFileError),
}

impl StoreError {
    /// This device has no store: there is nothing that says where one would lie.
    pub fn is_no_store(&self) -> bool {
        let Self::Block(BlockError::Location(LocationError::Read(error))) = self else { return false };
        error.is_not_found()
    }
}
