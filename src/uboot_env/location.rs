//! Where the environment lies: the format of fw_env.config of u-boot-tools.
//!
//! ```text
//! # device or file   offset    size     [sector size  [sectors]]
//! /dev/mmcblk0       0x20000   0x8000
//! /dev/mmcblk0       0x40000   0x8000     a second line is a second copy
//! ```

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::files::{self, FileError};

/// One copy of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub path: PathBuf,
    /// Negative: from the end of the device.
    pub offset: i64,
    pub size: usize,
}

/// One copy, or two of equal size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locations {
    Single(Location),
    Redundant(Location, Location),
}

/// Reads a fw_env.config.
pub fn read(path: &Path) -> Result<Locations, LocationError> {
    let bytes = files::read_limited(path, MAX_FILE)?;
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).map_err(|(line, reason)| LocationError::Line { path: path.into(), line, reason })
}

/// The locations, or the number of the line that is wrong and why.
fn parse(text: &str) -> Result<Locations, (usize, &'static str)> {
    let mut lines = text.lines().zip(1..).filter_map(|(line, number)| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next().map(|path| (number, parse_line(path, words)))
    });
    let mut next = || {
        lines
            .next()
            .map(|(number, location)| location.map_err(|reason| (number, reason)).map(|l| (number, l)))
    };
    let Some((_, first)) = next().transpose()? else { return Err((0, "names no device")) };
    match next().transpose()? {
        None => Ok(Locations::Single(first)),
        Some((number, second)) if first.size != second.size => Err((number, "the two copies differ in size")),
        Some((number, second)) if overlap(&first, &second) => Err((number, "the two copies overlap")),
        Some((_, second)) => Ok(Locations::Redundant(first, second)),
    }
}

fn parse_line<'a>(path: &str, mut words: impl Iterator<Item = &'a str>) -> Result<Location, &'static str> {
    let offset = words.next().and_then(parse_offset).ok_or("the offset is no number")?;
    let size = words.next().and_then(parse_hex).ok_or("the size is no number")?;
    match usize::try_from(size) {
        Ok(size) if (MIN_SIZE..=MAX_SIZE).contains(&size) => Ok(Location { path: path.into(), offset, size }),
        _ => Err("the size must be 16 bytes to 4 MiB"),
    }
}

/// As C's `%lli` reads it: 0x is hexadecimal, 0 is octal, all else is decimal.
fn parse_offset(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => parse_digits(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => parse_digits(digits, 8),
        None => parse_digits(digits, 10),
    }?;
    let value = i64::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

/// As C's `%lx` reads it: hexadecimal with or without 0x.
fn parse_hex(text: &str) -> Option<u64> {
    parse_digits(text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text), 16)
}

/// Digits only: `from_str_radix` would take a sign too.
fn parse_digits(text: &str, radix: u32) -> Option<u64> {
    text.chars().all(|c| c.is_digit(radix)).then(|| u64::from_str_radix(text, radix).ok())?
}

fn overlap(one: &Location, other: &Location) -> bool {
    let size = one.size as u64;
    one.path == other.path && one.offset.abs_diff(other.offset) < size
}

const MAX_FILE: u64 = 16 << 10;
const MIN_SIZE: usize = 16;
const MAX_SIZE: usize = 4 << 20;

#[derive(Debug, Error)]
pub enum LocationError {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error("{path}:{line}: {reason}; a line is DEVICE OFFSET SIZE, as for fw_printenv", path = path.display())]
    Line { path: PathBuf, line: usize, reason: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(path: &str, offset: i64, size: usize) -> Location {
        Location { path: path.into(), offset, size }
    }

    #[test]
    fn one_line_is_one_copy_and_two_are_two() {
        let text = "# comment\n\n /dev/mmcblk0\t0x2000 0x2000  0x200 16 # more\n";
        assert_eq!(parse(text), Ok(Locations::Single(location("/dev/mmcblk0", 0x2000, 0x2000))));
        let text = "/dev/rootdisk0 0x20000 0x8000\n/dev/rootdisk0 0x40000 8000\n/dev/x 0 0x8000\n";
        let (first, second) =
            (location("/dev/rootdisk0", 0x20000, 0x8000), location("/dev/rootdisk0", 0x40000, 0x8000));
        assert_eq!(parse(text), Ok(Locations::Redundant(first, second)));
        assert_eq!(parse("/dev/x -0x4000 4000"), Ok(Locations::Single(location("/dev/x", -0x4000, 0x4000))));
        assert_eq!(parse("/d/img 010 0x100"), Ok(Locations::Single(location("/d/img", 8, 0x100))));
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, line) in [
            ("", 0),
            ("# nothing", 0),
            ("/dev/x", 1),
            ("\n/dev/x 0x0", 2),
            ("/dev/x 0x 0x2000x", 1),
            ("/dev/x 0 +2000", 1),
            ("/dev/x 0 0x0", 1),
            ("/dev/x 0 0xffffffffffff", 1),
            ("/dev/x 0 0x2000\n/dev/x 0x4000 0x1000", 2),
            ("/dev/x 0 0x2000\n/dev/x 0x1000 0x2000", 2),
        ] {
            assert_eq!(parse(text).map_err(|(line, _)| line), Err(line), "{text:?}");
        }
    }
}
