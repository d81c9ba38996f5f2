//! The configuration language: one grammar for what people write and for `meta.conf` in archives.
//!
//! Reading a `meta.conf` is tolerant (newer archives have newer words) and closed (it reads no other
//! file); reading a configuration for creating is strict.

pub mod calls;
pub mod check;
mod eval;
mod lexer;
pub mod meta_conf;
pub mod parser;
pub mod partitions;
pub mod schema;
pub mod section;
pub mod variables;

use thiserror::Error;

/// Where and why a configuration is not understood.
#[derive(Debug, Error)]
#[error("{file}:{line}: {problem}")]
pub struct ConfigError {
    pub file: String,
    pub line: u32,
    pub problem: Problem,
}

#[derive(Debug, Error)]
pub enum Problem {
    #[error("unexpected {found}; {wanted} must stand here")]
    Syntax { found: String, wanted: &'static str },
    #[error("a quoted string does not end")]
    OpenString,
    #[error("'\\{text}' is no escape: use one to three octal digits up to 377")]
    Escape { text: String },
    #[error("the file ends inside of a section: a '}}' is missing")]
    OpenSection,
    #[error("variables become too long: {limit} bytes are the limit")]
    TooLong { limit: usize },
    #[error("the file is longer than {limit} bytes")]
    FileTooLong { limit: u64 },
    #[error("unknown setting '{name}'")]
    UnknownSetting { name: String },
    #[error("unknown section '{name}'")]
    UnknownSection { name: String },
    #[error("unknown function '{name}', or one that is not allowed here")]
    UnknownFunction { name: String },
    #[error("'{name}' is no list: use = instead of +=")]
    NoList { name: String },
    #[error("'{name}' takes one value, not a list")]
    OneValue { name: String },
    #[error("'{name}' takes {kind}, not '{value}'")]
    Value { name: String, kind: &'static str, value: String },
    #[error("duplicate {kind} '{title}'")]
    Duplicate { kind: &'static str, title: String },
    #[error("'{name}' takes {wanted} arguments, not {given}")]
    Arguments { name: String, wanted: &'static str, given: usize },
    #[error("'{name}' has {given} arguments; {limit} are the limit")]
    ManyArguments { name: String, given: usize, limit: usize },
    #[error("cannot compute '{expression}': {reason}")]
    Expression { expression: String, reason: eval::EvalError },
    #[error("include of an empty name: undefined variable?")]
    IncludeEmpty,
    #[error("include of '{path}': Not a regular file")]
    IncludeNoFile { path: String },
    #[error("include of '{path}': File not found")]
    IncludeMissing { path: String },
    #[error("include of '{path}': {error}")]
    IncludeUnreadable { path: String, error: std::io::Error },
    #[error("includes are nested more than {limit} deep")]
    IncludeDepth { limit: usize },
    #[error("a meta.conf must not include other files")]
    IncludeRefused,
    #[error("a list of calls is damaged")]
    Calls,
    #[error("this archive needs fwup {needed}; this program is as new as {VERSION}: update it first")]
    TooOld { needed: String },
    #[error("'{text}' is no version")]
    Version { text: String },
    #[error(transparent)]
    Check(#[from] check::CheckError),
}

/// The version of fwup that this program stands in for.
pub const VERSION: &str = "1.16.0";

/// Bytes for people: what is no UTF-8 becomes a replacement character.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
