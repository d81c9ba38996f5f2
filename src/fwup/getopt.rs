//! Command lines as GNU getopt_long(3) reads them: joined and attached short options, long options by
//! `=`, by the next argument and by any unambiguous prefix, arguments anywhere, `--`.
//!
//! Knows nothing of what the options mean.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use thiserror::Error;

/// One option of the program.
pub struct Spec<T> {
    pub id: T,
    pub short: Option<u8>,
    pub long: Option<&'static str>,
    pub takes_value: bool,
}

/// What stands next on the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<T> {
    Option(T, Option<OsString>),
    Argument(OsString),
}

pub struct Parser<'a, T> {
    specs: &'a [Spec<T>],
    args: std::vec::IntoIter<OsString>,
    /// What is left of a word of short options.
    joined: Vec<u8>,
    options_ended: bool,
}

impl<'a, T: Copy + PartialEq> Parser<'a, T> {
    pub fn new(specs: &'a [Spec<T>], args: impl IntoIterator<Item = OsString>) -> Self {
        let args = args.into_iter().collect::<Vec<_>>().into_iter();
        Self { specs, args, joined: Vec::new(), options_ended: false }
    }

    fn short(&mut self) -> Result<Item<T>, UsageError> {
        let letter = self.joined.remove(0);
        let name = char::from(letter);
        let spec = self.specs.iter().find(|spec| spec.short == Some(letter));
        let spec = spec.ok_or(UsageError::UnknownShort { name })?;
        if !spec.takes_value {
            return Ok(Item::Option(spec.id, None));
        }
        let attached = std::mem::take(&mut self.joined);
        let value = if attached.is_empty() {
            self.args.next().ok_or(UsageError::ShortWithoutValue { name })?
        } else {
            OsString::from_vec(attached)
        };
        Ok(Item::Option(spec.id, Some(value)))
    }

    fn long(&mut self, word: &[u8]) -> Result<Item<T>, UsageError> {
        let equals = word.iter().position(|&byte| byte == b'=');
        let (name, attached) = match equals {
            Some(at) => (&word[..at], Some(OsString::from_vec(word[at + 1..].to_vec()))),
            None => (word, None),
        };
        let shown = || String::from_utf8_lossy(name).into_owned();
        let spec = self.find_long(name).map_err(|ambiguous| match ambiguous {
            true => UsageError::Ambiguous { name: shown() },
            false => UsageError::UnknownLong { name: shown() },
        })?;
        match (spec.takes_value, attached) {
            (false, Some(_)) => Err(UsageError::UnwantedValue { name: shown() }),
            (false, None) => Ok(Item::Option(spec.id, None)),
            (true, Some(value)) => Ok(Item::Option(spec.id, Some(value))),
            (true, None) => {
                let value = self.args.next().ok_or_else(|| UsageError::LongWithoutValue { name: shown() })?;
                Ok(Item::Option(spec.id, Some(value)))
            }
        }
    }

    /// An exact name wins over prefixes; the error says whether several fit.
    fn find_long(&self, name: &[u8]) -> Result<&'a Spec<T>, bool> {
        let long = |spec: &&Spec<T>| spec.long.map(str::as_bytes);
        if let Some(spec) = self.specs.iter().find(|spec| long(spec) == Some(name)) {
            return Ok(spec);
        }
        let mut fitting = self.specs.iter().filter(|spec| long(spec).is_some_and(|l| l.starts_with(name)));
        match (fitting.next(), fitting.next()) {
            (Some(spec), None) => Ok(spec),
            (first, _) => Err(first.is_some()),
        }
    }
}

impl<T: Copy + PartialEq> Iterator for Parser<'_, T> {
    type Item = Result<Item<T>, UsageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.joined.is_empty() {
            return Some(self.short());
        }
        let word = self.args.next()?;
        let bytes = word.as_bytes();
        if self.options_ended || bytes.len() < 2 || bytes[0] != b'-' {
            return Some(Ok(Item::Argument(word)));
        }
        if bytes == b"--" {
            self.options_ended = true;
            return self.next();
        }
        if let Some(long) = bytes.strip_prefix(b"--") {
            return Some(self.long(long));
        }
        self.joined = bytes[1..].to_vec();
        Some(self.short())
    }
}

/// Why a command line is not understood; worded as getopt_long(3) does.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    #[error("invalid option -- '{name}'")]
    UnknownShort { name: char },
    #[error("option requires an argument -- '{name}'")]
    ShortWithoutValue { name: char },
    #[error("unrecognized option '--{name}'")]
    UnknownLong { name: String },
    #[error("option '--{name}' is ambiguous")]
    Ambiguous { name: String },
    #[error("option '--{name}' requires an argument")]
    LongWithoutValue { name: String },
    #[error("option '--{name}' doesn't allow an argument")]
    UnwantedValue { name: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Vec<Item<char>>, UsageError> {
        let spec = |id, short, long, takes_value| Spec { id, short, long, takes_value };
        let specs = [
            spec('a', Some(b'a'), Some("apply"), false),
            spec('d', Some(b'd'), None, true),
            spec('k', None, Some("public-key"), true),
            spec('p', Some(b'p'), Some("public-key-file"), true),
        ];
        Parser::new(&specs, words.iter().map(OsString::from)).collect()
    }

    #[test]
    fn options_come_in_every_gnu_form() {
        let value = |text: &str| Some(OsString::from(text));
        let all = parse(&["-adx.img", "in", "--public-key=1", "--public-key-f", "2", "--app", "--", "-a"]);
        assert_eq!(
            all.unwrap(),
            [
                Item::Option('a', None),
                Item::Option('d', value("x.img")),
                Item::Argument("in".into()),
                Item::Option('k', value("1")),
                Item::Option('p', value("2")),
                Item::Option('a', None),
                Item::Argument("-a".into()),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse(&["--pub", "x"]), Err(UsageError::Ambiguous { name: "pub".into() }));
        assert_eq!(parse(&["--nosuch"]), Err(UsageError::UnknownLong { name: "nosuch".into() }));
        assert_eq!(parse(&["-x"]), Err(UsageError::UnknownShort { name: 'x' }));
        assert_eq!(parse(&["-d"]), Err(UsageError::ShortWithoutValue { name: 'd' }));
        assert_eq!(parse(&["--apply=1"]), Err(UsageError::UnwantedValue { name: "apply".into() }));
    }
}
