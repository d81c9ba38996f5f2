//! Workstation commands: what an engineer runs beside the device.
//!
//! Speaks to devices through the system's `ssh`, so that ~/.ssh/config, agents, security keys and jump hosts just
//! work; where there is none, or when asked to, through a client of its own. Knows nothing of the daemon but its
//! subsystems.

mod builtin;
mod choose;
pub mod discover;
pub mod gen_script;
mod metadata;
mod options;
mod push;
mod remote;
mod screen;
mod ssh;
mod status;
mod target;
pub mod upload;
mod wait;

#[cfg(any(test, fuzzing))]
pub use builtin::fuzzing;
