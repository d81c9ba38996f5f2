//! The SSH worker: the lifeline. It serves the sockets that the supervisor (or systemd) hands it.
//!
//! It owns connections, sessions and host keys. It never writes configuration, and keeps nothing in memory that
//! a restart may lose.

mod account;
mod algorithms;
pub mod authorized_keys;
mod channel;
mod connection;
mod control;
mod display;
mod events;
mod failures;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handler;
pub mod host_keys;
pub mod info;
pub mod keys;
mod moduli;
mod of_this_boot;
pub mod passwords;
pub mod probe;
#[cfg(debug_assertions)]
mod provoke;
mod revocation;
mod server;
pub mod sessions;
pub mod status;
pub mod subsystem;
mod worker;

pub use worker::main;
