//! Workstation commands: what an engineer runs beside the device.
//!
//! Speaks to devices through the system's `ssh` alone, so that ~/.ssh/config, agents, security keys and
//! jump hosts just work. Knows nothing of the daemon but its subsystems.

mod choose;
pub mod discover;
pub mod gen_script;
mod metadata;
mod push;
mod screen;
mod ssh;
mod status;
mod target;
pub mod upload;
mod wait;
