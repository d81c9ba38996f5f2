//! What an update is: driving fwup, the update lock, slots and metadata, reboot.
//!
//! It knows the environment block and speaks to fwup as a process; it knows nothing of SSH.

mod admission;
pub mod boot;
pub mod command;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshake;
pub mod lock;
pub mod operation;
mod precheck;
mod process;
pub mod program;
mod progress;
pub mod public_keys;
pub mod reboot;
mod serial;
pub mod slots;
pub mod status;
pub mod store;
pub mod success;
mod talk;
pub mod trial;
pub mod update;
