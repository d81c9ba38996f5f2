//! What an update is: driving fwup, the update lock, slots and metadata, reboot.

pub mod boot;
pub mod command;
pub mod lock;
pub mod program;
pub mod public_keys;
pub mod reboot;
mod serial;
pub mod slots;
pub mod status;
pub mod store;
