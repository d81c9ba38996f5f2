//! What an update is: driving fwup, the update lock, slots and metadata, reboot.

pub mod command;
pub mod public_keys;
