//! Versions of firmware, and which of two is newer (semver.org, sections 10 and 11; any count of numbers).

use std::cmp::Ordering;
use std::str::FromStr;

use thiserror::Error;

/// Numbers with dots, and perhaps a pre-release: `1.4.0-rc.2`. What follows a `+` does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Without the zeros at the end: 1.0 is 1.0.0.
    numbers: Vec<u64>,
    pre_release: Vec<Identifier>,
}

/// Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no version that can be compared: it must be numbers with dots, such as 1.4.0 or 1.4.0-rc.2"
)]
pub struct VersionError {
    text: String,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        parse(text.trim()).ok_or_else(|| VersionError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split_once('+').map_or(text, |(version, _build)| version);
    let (numbers, pre_release) =
        text.split_once('-').map_or((text, None), |(version, pre)| (version, Some(pre)));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let numbers: Option<Vec<u64>> = numbers.split('.').map(number).collect();
    let identifiers = pre_release.into_iter().flat_map(|text| text.split('.'));
    let identifiers: Option<Vec<Identifier>> = identifiers
        .map(|text| match number(text) {
            Some(number) => Some(Identifier::Number(number)),
            None if text.is_empty() => None,
            None => Some(Identifier::Word(text.into())),
        })
        .collect();
    let mut numbers = numbers?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(Version { numbers, pre_release: identifiers? })
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let released = |version: &Self| version.pre_release.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.pre_release.cmp(&other.pre_release))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_as_semver_says() {
        let rising = [
            "0.9",
            "1.0.0-1",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.9.0",
            "1.10.0",
            "v2",
            "2.0.0.1",
            "2024.11",
        ];
        for pair in rising.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0").cmp(&version("1.0.0+build.5")), Ordering::Equal);
    }

    #[test]
    fn what_cannot_be_compared_is_no_version() {
        for wrong in ["", "v", "1.", "1..2", "one", "1.0.0-", "1.0.0-a..b", "-1", "99999999999999999999"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
