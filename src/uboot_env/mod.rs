//! The U-Boot environment block: parse, CRC, redundant copies, safe write.
//!
//! Knows bytes and where they lie; what the variables mean is the business of `firmware`. It takes no lock:
//! who changes an environment holds the update lock.

pub mod block;
pub mod codec;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod location;
pub mod plain_file;

pub use block::{Block, BlockError};
pub use codec::Environment;
pub use plain_file::PlainFile;
