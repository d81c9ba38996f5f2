//! What the actions of a task work on: the destination, and how they report.

use super::ApplyError;
use super::fat::Volumes;
use crate::fwup::disk::cache::Cache;
use crate::fwup::language::variables::Variables;
use crate::fwup::options::Options;
use crate::fwup::output::Output;
use crate::fwup::progress::Progress;

pub struct Target<'a> {
    pub cache: Cache,
    pub volumes: Volumes,
    pub variables: Variables,
    pub options: &'a Options,
    pub output: &'a Output,
    pub progress: &'a mut Progress,
}

impl Target<'_> {
    /// For `-v`.
    pub fn explain(&self, text: &str) {
        if self.options.verbose {
            self.output.info(text);
        }
    }

    pub fn progressed(&mut self, units: u64) {
        self.progress.add(units, self.output);
    }

    /// Brings everything to the medium.
    pub fn flush(&mut self) -> Result<(), ApplyError> {
        self.volumes.flush(&mut self.cache)?;
        Ok(self.cache.flush()?)
    }

    /// Forgets what is not on the medium yet.
    pub fn forget(&mut self) {
        self.volumes.forget();
        self.cache.forget();
    }
}
