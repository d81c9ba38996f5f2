//! `validate`, `revert`, `prevent-revert` and `factory-reset`: by the tasks of an operations archive where the
//! image has one, else on the store itself. Whoever does one holds the update lock.

pub mod autoboot;
mod change;
mod reset;
mod tasks;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tracing::info;

use self::autoboot::AutobootError;
use super::boot::Boot;
use super::lock::{self, Installed, LockError, UpdateLock};
use super::program::ProgramError;
use super::slots::{Slot, SlotInfo};
use super::store::{self, Store, StoreError};
use crate::config::Config;
use crate::files::FileError;
use crate::uboot_env::Environment;

pub use change::on_trial;

/// Between two looks at a lock that somebody else holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// What can be done to the slots besides an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// The firmware that runs is good: it stays.
    Validate,
    /// The other slot is next.
    Revert,
    /// The other slot cannot be gone back to any more.
    PreventRevert,
    /// What the device has learnt since it left the factory is forgotten.
    FactoryReset,
}

impl Operation {
    /// As commands and tasks are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Revert => "revert",
            Self::PreventRevert => "prevent-revert",
            Self::FactoryReset => "factory-reset",
        }
    }
}

/// Does it. While an update runs, waits at most `patience` for its end.
pub fn run(operation: Operation, config: &Config, patience: Duration) -> Result<(), OperationError> {
    let lock = wait_for_lock(operation, config, patience)?;
    run_locked(operation, config, &lock)
}

/// Goes back to the other slot, unless somebody has validated this one until the lock was free. Whether it did.
pub fn revert_if_on_trial(config: &Config, patience: Duration) -> Result<bool, OperationError> {
    let lock = wait_for_lock(Operation::Revert, config, patience)?;
    if !is_on_trial(config)? {
        return Ok(false);
    }
    run_locked(Operation::Revert, config, &lock).map(|()| true)
}

fn run_locked(operation: Operation, config: &Config, lock: &UpdateLock) -> Result<(), OperationError> {
    if let (Operation::Validate, Some(installed)) = (operation, lock::installed(&config.runtime_dir)) {
        return Err(LockError::WaitsForReboot { installed }.into());
    }
    let archive = tasks::archive(&config.firmware);
    let store = Store::open(&config.firmware);
    // Under the lock: what an update has just written counts.
    let environment = match (store.as_ref().map(Store::read), &archive) {
        (Ok(Ok(environment)), _) => Some(environment),
        // The archive's own tasks know where it is.
        (_, Some(_)) => None,
        (_, None) if operation == Operation::FactoryReset => None,
        (Ok(Err(error)), None) => return Err(error.into()),
        (Err(_), None) => return Err(store.err().map_or(OperationError::UnknownSlot, OperationError::from)),
    };
    let running = Boot::current(&config.runtime_dir, environment.as_ref()).running;
    let slot = environment.as_ref().map(|environment| check(operation, environment, running)).transpose()?;
    info!(operation = operation.name(), ?running, archive = ?archive, "firmware");
    match (&archive, &store, slot.flatten()) {
        (Some(archive), ..) => {
            tasks::run(operation, archive, &config.firmware, environment.as_ref(), lock)?;
        }
        (None, _, _) if operation == Operation::FactoryReset => reset::run(config)?,
        (None, Ok(store), Some(slot)) => on_the_store(operation, config, store, slot, lock)?,
        (None, ..) => return Err(OperationError::UnknownSlot),
    }
    if let (Operation::Validate, Ok(store)) = (operation, &store) {
        see_to_validity(store, running, environment.is_some(), lock)?;
    }
    if let (Operation::Revert, Some(environment)) = (operation, &environment) {
        // The choice has flipped: an update would write the slot that runs.
        let info = running.map(|running| SlotInfo::read(environment, running.other(), Some(running)));
        let info = info.unwrap_or_default();
        lock.set_installed(&Installed { uuid: info.uuid, version: info.version });
    }
    Ok(())
}

/// Whether the firmware that runs has still to prove itself; `false` where there is no store.
pub fn is_on_trial(config: &Config) -> Result<bool, StoreError> {
    match store::read(&config.firmware) {
        Ok(environment) => {
            let running = Boot::current(&config.runtime_dir, Some(&environment)).running;
            Ok(on_trial(&environment, running))
        }
        Err(error) if error.is_no_store() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The slot that it is about; a factory reset is about none.
fn check(
    operation: Operation,
    environment: &Environment,
    running: Option<Slot>,
) -> Result<Option<Slot>, OperationError> {
    match operation {
        Operation::Validate => change::check_validate(environment, running).map(Some),
        Operation::Revert => change::check_revert(environment, running).map(Some),
        Operation::PreventRevert => change::check_prevent_revert(environment, running).map(Some),
        Operation::FactoryReset => Ok(None),
    }
}

fn on_the_store(
    operation: Operation,
    config: &Config,
    store: &Store,
    slot: Slot,
    lock: &UpdateLock,
) -> Result<(), OperationError> {
    let autoboot = config.firmware.autoboot.as_deref();
    match operation {
        Operation::Validate => {
            // First what starts the slot, then the word that it is good: after a cut between the two it starts
            // again on trial, and proves itself again.
            autoboot.map(|path| autoboot::commit(path, slot)).transpose()?;
            store.update(lock, |environment| change::validate(environment, slot))?;
        }
        Operation::Revert => {
            if autoboot.is_none() && store.read()?.get("nerves_fw_active").is_none() {
                return Err(OperationError::NoChoice);
            }
            store.update(lock, |environment| change::revert(environment, slot))?;
            store.settle(lock)?;
            autoboot.map(|path| autoboot::commit(path, slot)).transpose()?;
        }
        Operation::PreventRevert => {
            store.update(lock, |environment| change::prevent_revert(environment, slot))?;
            store.settle(lock)?;
        }
        Operation::FactoryReset => {}
    }
    Ok(())
}

/// Both copies of the store say that the slot is good, so that losing one cannot bring back the old choice.
fn see_to_validity(
    store: &Store,
    running: Option<Slot>,
    readable: bool,
    lock: &UpdateLock,
) -> Result<(), OperationError> {
    if !readable {
        return Ok(());
    }
    if on_trial(&store.read()?, running) {
        return Err(OperationError::StillOnTrial);
    }
    Ok(store.settle(lock)?)
}

fn wait_for_lock(
    operation: Operation,
    config: &Config,
    patience: Duration,
) -> Result<UpdateLock, OperationError> {
    let give_up = Instant::now() + patience;
    loop {
        match UpdateLock::acquire(&config.runtime_dir, operation.name()) {
            Err(LockError::Busy { .. }) if Instant::now() < give_up => std::thread::sleep(LOCK_PAUSE),
            lock => return Ok(lock?),
        }
    }
}

#[derive(Debug, Error)]
pub enum OperationError {
    #[error("nothing tells which slot runs: name it on the kernel command line (myelin.slot=a)")]
    UnknownSlot,
    #[error("slot {running} runs, and slot {next} is next: reboot into it, then validate it from there")]
    AnotherIsNext { running: Slot, next: Slot },
    #[error("slot {slot} is empty or half written: there is nothing to go back to, install a firmware")]
    EmptySlot { slot: Slot },
    #[error(
        "the firmware in slot {slot} was never validated: install one that works instead of going back to it"
    )]
    NeverValidated { slot: Slot },
    #[error("the firmware in slot {running} is on trial and may need the other one: validate it first")]
    OnTrial { running: Slot },
    #[error(
        "the store does not choose the slot (no nerves_fw_active): set firmware.autoboot, or put an ops.fw \
             into the image"
    )]
    NoChoice,
    #[error(
        "the task validate ran, but the store still says that the firmware is on trial: mend the ops archive"
    )]
    StillOnTrial,
    #[error("the task {} of {archive} failed: {text}", operation.name(), archive = archive.display())]
    Task { archive: PathBuf, operation: Operation, text: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Autoboot(#[from] AutobootError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl OperationError {
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Lock(error) => error.exit_status(),
            Self::Program(error) => error.exit_status(),
            _ => 1,
        }
    }
}
