//! Applying an archive: choosing the task, running it, bringing it to the medium.
//!
//! Nothing is written before `meta.conf` was read and checked. on-finish, which switches to what was
//! written, begins when all of it is on the medium and every resource had its hash.

mod actions;
mod fat;
mod hash;
mod host;
mod partitions;
mod raw;
mod requirements;
mod resource;
mod target;
mod task;
mod uboot;

use std::cell::Cell;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use thiserror::Error;

use super::archive::reader::ArchiveReader;
use super::archive::{ArchiveError, resource_name};
use super::disk::cache::Cache;
use super::disk::{DiskError, destination, media};
use super::firmware::{Firmware, FirmwareError};
use super::input::Input;
use super::language::calls::{Action, CallError};
use super::language::check::CheckError;
use super::language::section::Section;
use super::language::{Problem, shown};
use super::options::Options;
use super::output::Output;
use super::partition::PartitionError;
use super::progress::{Progress, Style};
use actions::Source;
use target::Target;
use task::Task;

pub use resource::{Resource, ResourceError};

/// Applies an archive to its destination.
pub fn apply(options: &Options, output: &mut Output) -> Result<(), ApplyError> {
    let result = run(options, output);
    if result.is_err() && options.style != Style::Quiet {
        let _ = io::stderr().write_all(b"\n");
    }
    result
}

fn run(options: &Options, output: &mut Output) -> Result<(), ApplyError> {
    let task_name = options.task.as_deref().ok_or(ApplyError::NoTaskGiven)?;
    let path = match &options.destination {
        Some(path) => path.clone(),
        None => media::confirmed(options.accept_found, options.input_file().is_none())?,
    };
    let count = Rc::new(Cell::new(0));
    let mut progress =
        Progress::new(options.style, options.progress_low, options.progress_high, Rc::clone(&count));
    progress.begin(output);
    let medium = destination::open(&path, options, output)?;
    let input = Input::open(options.input.as_deref(), output.is_framed(), count)
        .map_err(|source| ApplyError::Input { path: options.input.clone().unwrap_or_default(), source })?;
    let Firmware { mut archive, configuration, variables, .. } = Firmware::open(input, &options.public_keys)?;
    let cache = Cache::new(medium, cache_size(&configuration));
    let volumes = fat::Volumes::default();
    let mut target = Target { cache, volumes, variables, options, output, progress: &mut progress };

    let chosen = task::choose(&configuration, task_name.as_bytes(), &mut target)?;
    let done = Task::parse(&configuration, chosen)
        .and_then(|task| run_task(task, &mut archive, &configuration, &mut target));
    if let Err(error) = done {
        target.forget();
        on_error(&configuration, chosen, &mut target);
        // The error of the run is the one to report.
        let _ = target.flush();
        let _ = target.cache.close();
        return Err(error);
    }
    target.flush()?;
    target.cache.close()?;
    progress.finish(output);
    if output.is_framed() {
        output.result("");
    }
    Ok(())
}

fn run_task(
    mut task: Task,
    archive: &mut ArchiveReader<Input>,
    configuration: &Section,
    target: &mut Target,
) -> Result<(), ApplyError> {
    target.progress.set_total(total_units(&task, configuration));
    run_actions(&task.on_init, configuration, target)?;
    // The archive may end for any reason, as long as everything needed was there.
    let ended = run_resources(&mut task, archive, configuration, target)?;
    if let Some(missing) = task.on_resource.iter().find(|block| !block.done) {
        let resource = shown(&missing.resource.name);
        return Err(match ended {
            Some(source) => ApplyError::Ended { resource, source },
            None => ApplyError::Missing { resource },
        });
    }
    if !task.on_finish.is_empty() {
        // on-finish makes the new firmware count: all of it must be on the medium before.
        target.flush()?;
    }
    run_actions(&task.on_finish, configuration, target)
}

/// Runs the block of each entry that has one; returns why the archive ended before its end.
fn run_resources(
    task: &mut Task,
    archive: &mut ArchiveReader<Input>,
    configuration: &Section,
    target: &mut Target,
) -> Result<Option<ArchiveError>, ApplyError> {
    if task.on_resource.is_empty() {
        return Ok(None);
    }
    loop {
        let entry = match archive.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        };
        let Some(name) = resource_name(&entry.name) else { continue };
        let Some(block) = task.on_resource.iter_mut().find(|block| block.resource.name == name) else {
            continue;
        };
        let mut source = Source { archive, entry: &entry, resource: &block.resource };
        for action in &block.actions {
            actions::perform(action, Some(&mut source), configuration, target)?;
        }
        block.done = true;
    }
}

fn run_actions(actions: &[Action], configuration: &Section, target: &mut Target) -> Result<(), ApplyError> {
    for action in actions {
        actions::perform::<Input>(action, None, configuration, target)?;
    }
    Ok(())
}

/// Runs on-error on what is really on the destination. Its own failures are not reported.
fn on_error(configuration: &Section, task: &Section, target: &mut Target) {
    let result =
        task::event(task, "on-error").and_then(|actions| run_actions(&actions, configuration, target));
    if result.is_err() {
        target.forget();
    }
}

fn total_units(task: &Task, configuration: &Section) -> u64 {
    let events = task.on_init.iter().chain(&task.on_finish).map(|action| (action, None));
    let blocks = task.on_resource.iter();
    let blocks = blocks.flat_map(|block| block.actions.iter().map(|action| (action, Some(&block.resource))));
    let units = events.chain(blocks).map(|(action, one)| actions::units(action, one, configuration));
    units.fold(0, u64::saturating_add)
}

/// In MiB.
fn cache_size(configuration: &Section) -> usize {
    match configuration.int("block-cache-size-mb") {
        size if size > 0 => usize::try_from(size).unwrap_or(usize::MAX),
        _ => DEFAULT_CACHE,
    }
}

const DEFAULT_CACHE: usize = 8;

#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("specify a task (-t)")]
    NoTaskGiven,
    #[error("cannot open the archive {path}: {source}", path = path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("no task that begins with '{name}' can be applied to this destination now")]
    NoTask { name: String },
    #[error("meta.conf does not describe the resource '{resource}'")]
    NotDescribed { resource: String },
    #[error("resource '{resource}' is missing in the archive")]
    Missing { resource: String },
    #[error("resource '{resource}' did not come: {source}")]
    Ended { resource: String, source: ArchiveError },
    #[error("meta.conf: {problem}")]
    MetaConf { problem: Problem },
    #[error("meta.conf has no {kind} '{title}'")]
    NotDefined { kind: &'static str, title: String },
    #[error("this task runs commands or writes host files: allow it with --unsafe")]
    NeedsUnsafe,
    #[error("an action that writes a resource stands outside of on-resource")]
    NoResource,
    #[error("encrypted writing is not supported by this program yet")]
    Encryption,
    #[error("{text}")]
    Told { text: String },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Fat(#[from] fat::FatFailure),
    #[error(transparent)]
    Uboot(#[from] uboot::UbootError),
    #[error(transparent)]
    Host(#[from] host::HostError),
}

impl ApplyError {
    fn not_defined(kind: &'static str, title: &[u8]) -> Self {
        Self::NotDefined { kind, title: shown(title) }
    }
}
