//! U-Boot environments on the destination.

use thiserror::Error;

use crate::fwup::disk::cache::Cache;
use crate::fwup::disk::{BLOCK, DiskError};
use crate::fwup::language::calls::UbootAction;
use crate::fwup::language::check::LARGEST_ENVIRONMENT;
use crate::fwup::language::section::Section;
use crate::fwup::language::shown;
use crate::fwup::number;
use crate::uboot_env::codec::{
    self, CodecError, Copy, Current, Environment, FIRST_FLAGS, Layout, current_copy,
};

/// Where an environment lies.
pub struct EnvironmentBlock {
    name: String,
    offset: u64,
    second: Option<u64>,
    count: u64,
}

/// What was read: the variables, and where a change goes.
enum Found {
    Single(Environment),
    Redundant(Current),
}

impl EnvironmentBlock {
    pub fn parse(section: &Section) -> Result<Self, UbootError> {
        let name = shown(&section.title);
        let offset = section.text("block-offset").and_then(number::parse_u64);
        let second = section.text("block-offset-redund").map(number::parse_u64);
        let count = u64::try_from(section.int("block-count")).unwrap_or(0);
        match (offset, second) {
            (Some(offset), None) if (1..=LARGEST_ENVIRONMENT).contains(&count) => {
                Ok(Self { name, offset, second: None, count })
            }
            (Some(offset), Some(Some(second)))
                if (1..=LARGEST_ENVIRONMENT).contains(&count) && offset.abs_diff(second) >= count =>
            {
                Ok(Self { name, offset, second: Some(second), count })
            }
            _ => Err(UbootError::Place { name }),
        }
    }

    /// Units of progress.
    pub fn units(&self) -> u64 {
        self.count * BLOCK as u64 * if self.second.is_some() { 2 } else { 1 }
    }

    pub fn variable(&self, cache: &mut Cache, name: &[u8]) -> Result<Option<Vec<u8>>, UbootError> {
        let environment = match self.read(cache)? {
            Found::Single(environment) => environment,
            Found::Redundant(current) => current.environment,
        };
        Ok(environment.get_bytes(name).map(<[u8]>::to_vec))
    }

    pub fn perform(&self, cache: &mut Cache, action: &UbootAction) -> Result<(), UbootError> {
        match action {
            UbootAction::Clear => self.clear(cache),
            UbootAction::Recover => match self.read(cache) {
                Err(UbootError::Codec { .. }) => self.clear(cache),
                read => read.map(drop),
            },
            UbootAction::Set { name, value } => {
                self.change(cache, |environment| environment.set(name.clone(), value.clone()))
            }
            UbootAction::Unset { name } => self.change(cache, |environment| {
                // A name that is no text was set by nobody.
                if let Ok(name) = std::str::from_utf8(name) {
                    environment.unset(name);
                }
                Ok(())
            }),
        }
    }

    fn change(
        &self,
        cache: &mut Cache,
        change: impl FnOnce(&mut Environment) -> Result<(), CodecError>,
    ) -> Result<(), UbootError> {
        match self.read(cache)? {
            Found::Single(mut environment) => {
                change(&mut environment).map_err(|source| self.failed(source))?;
                self.write(cache, self.offset, &environment, Layout::Single, 0)
            }
            Found::Redundant(mut current) => {
                change(&mut current.environment).map_err(|source| self.failed(source))?;
                let (copy, flags) = current.next();
                let offset = match copy {
                    Copy::First => self.offset,
                    Copy::Second => self.second.unwrap_or(self.offset),
                };
                self.write(cache, offset, &current.environment, Layout::Redundant, flags)
            }
        }
    }

    fn clear(&self, cache: &mut Cache) -> Result<(), UbootError> {
        let empty = Environment::default();
        let Some(second) = self.second else {
            return self.write(cache, self.offset, &empty, Layout::Single, 0);
        };
        self.write(cache, self.offset, &empty, Layout::Redundant, FIRST_FLAGS)?;
        self.write(cache, second, &empty, Layout::Redundant, FIRST_FLAGS)
    }

    fn read(&self, cache: &mut Cache) -> Result<Found, UbootError> {
        let mut first = vec![0; self.size()];
        cache.read_blocks(self.offset, &mut first)?;
        let Some(offset) = self.second else {
            let (environment, _) = codec::decode(&first, Layout::Single).map_err(|e| self.failed(e))?;
            return Ok(Found::Single(environment));
        };
        let mut second = vec![0; self.size()];
        cache.read_blocks(offset, &mut second)?;
        current_copy(&first, &second).map(Found::Redundant).map_err(|source| self.failed(source))
    }

    fn write(
        &self,
        cache: &mut Cache,
        offset: u64,
        environment: &Environment,
        layout: Layout,
        flags: u8,
    ) -> Result<(), UbootError> {
        let bytes = codec::encode(environment, layout, self.size(), flags).map_err(|e| self.failed(e))?;
        cache.write_blocks(offset, &bytes, false)?;
        Ok(cache.keep(offset, self.count)?)
    }

    fn size(&self) -> usize {
        self.count as usize * BLOCK
    }

    fn failed(&self, source: CodecError) -> UbootError {
        UbootError::Codec { name: self.name.clone(), source }
    }
}

#[derive(Debug, Error)]
pub enum UbootError {
    #[error("U-Boot environment '{name}': {source}")]
    Codec { name: String, source: CodecError },
    #[error("uboot-environment '{name}' has no usable place: block-offset and block-count are needed")]
    Place { name: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
}
