//! A task of a firmware: which one fits, and what it does.

use super::ApplyError;
use super::requirements;
use super::resource::Resource;
use super::target::Target;
use crate::fwup::language::calls::{Action, Requirement};
use crate::fwup::language::section::Section;
use crate::fwup::language::shown;

pub struct Task {
    pub on_init: Vec<Action>,
    pub on_resource: Vec<OnResource>,
    pub on_finish: Vec<Action>,
}

pub struct OnResource {
    pub resource: Resource,
    pub actions: Vec<Action>,
    /// The block has been run.
    pub done: bool,
}

impl Task {
    /// Everything the task needs must be there and known, before it does anything.
    pub fn parse(configuration: &Section, task: &Section) -> Result<Self, ApplyError> {
        let on_resource = task.sections("on-resource").iter().map(|block| {
            let described = configuration.section("file-resource", &block.title);
            let described =
                described.ok_or_else(|| ApplyError::NotDescribed { resource: shown(&block.title) })?;
            Ok(OnResource { resource: Resource::parse(described)?, actions: actions_of(block)?, done: false })
        });
        Ok(Self {
            on_resource: on_resource.collect::<Result<_, ApplyError>>()?,
            on_init: event(task, "on-init")?,
            on_finish: event(task, "on-finish")?,
        })
    }
}

/// The first task whose name begins so and whose requirements all hold.
pub fn choose<'a>(
    configuration: &'a Section,
    name: &[u8],
    target: &mut Target,
) -> Result<&'a Section, ApplyError> {
    let tasks = configuration.sections("task").iter().filter(|task| task.title.starts_with(name));
    for task in tasks {
        if all_hold(configuration, task, target) {
            return Ok(task);
        }
    }
    Err(ApplyError::NoTask { name: shown(name) })
}

/// The actions of an event of a task.
pub fn event(task: &Section, kind: &str) -> Result<Vec<Action>, ApplyError> {
    task.sections(kind).first().map(actions_of).unwrap_or_else(|| Ok(Vec::new()))
}

fn actions_of(section: &Section) -> Result<Vec<Action>, ApplyError> {
    let calls = section.calls().map_err(|problem| ApplyError::MetaConf { problem })?;
    Ok(calls.iter().map(Action::parse).collect::<Result<_, _>>()?)
}

fn all_hold(configuration: &Section, task: &Section, target: &mut Target) -> bool {
    let Ok(calls) = task.calls() else { return false };
    let mut parsed: Vec<_> = calls.iter().map(|call| (shown(&call.name), Requirement::parse(call))).collect();
    if let Ok(offset) = u64::try_from(task.int("require-partition1-offset")) {
        let requirement = Requirement::PartitionOffset { partition: 1, offset };
        parsed.push(("require-partition1-offset".into(), Ok(requirement)));
    }
    parsed.into_iter().all(|(name, requirement)| {
        // What cannot be found out does not hold; it never stops the run.
        let held = requirement
            .map_err(ApplyError::from)
            .and_then(|requirement| requirements::holds(&requirement, configuration, target));
        let outcome = match &held {
            Ok(true) => "holds".into(),
            Ok(false) => "does not hold".into(),
            Err(error) => format!("cannot be evaluated: {error}"),
        };
        target.explain(&format!("{}: {name} {outcome}", shown(&task.title)));
        held.unwrap_or(false)
    })
}
