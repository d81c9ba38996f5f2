//! Workstation commands.

pub mod gen_script;
pub mod upload;
