//! What an upload wants of a connection: one subsystem of the device, run to its end.
//!
//! Two can do it: the system's ssh and the built-in client. What is sent, and what the answers mean, is said once, by
//! those who call them.

use std::fs::File;
use std::io;
use std::time::Instant;

/// A device, and the way to it.
pub trait Remote {
    /// Runs a subsystem to its end. An error is one of this machine: the file cannot be read, ssh cannot be started.
    fn run(&self, call: Call<'_>) -> io::Result<Ended>;

    /// What `--dry-run` shows.
    fn describe(&self) -> String;
}

/// One subsystem, and what goes in and out.
pub struct Call<'a> {
    pub subsystem: &'static str,
    /// What it reads; without one its input ends at once.
    pub input: Option<Input<'a>>,
    /// A connection that gives up soon; a device that boots may take it and never answer.
    pub quick: bool,
    pub deadline: Option<Instant>,
    pub output: Output,
    pub message: Message,
}

/// The file that is sent, and who hears how many bytes of it have been taken.
pub struct Input<'a> {
    pub file: &'a mut File,
    pub progress: &'a dyn Fn(u64),
}

/// Takes what the device printed; `false` when it wants no more.
pub type Output = Box<dyn FnMut(&[u8]) -> bool + Send>;
/// Takes a line that the client has to say, or that the device wrote to its stderr.
pub type Message = Box<dyn FnMut(&str) + Send>;

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    pub end: End,
    /// All lines that went to `message`.
    pub messages: String,
    /// How many bytes of the input were taken.
    pub sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device sent this status.
    Status(i32),
    /// It sent none, for this reason, if there is one that is known.
    Without(Option<Trouble>),
}

/// Why there was no answer from the subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// ssh does not understand its own command line or configuration.
    Usage,
    /// No connection came about.
    Connect,
    /// The device does not take our key, or we do not take its.
    Authentication,
    /// The device has no such subsystem, or not for this key.
    NoSubsystem,
    /// The connection was there and broke.
    Lost,
}

/// Messages of which no more than this are kept.
pub const MAX_MESSAGES: usize = 64 * 1024;
