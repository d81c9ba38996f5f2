//! The groups of diffie-hellman-group-exchange-sha256 (RFC 4419): those of a file in the format of moduli(5), or those
//! of RFC 3526. Which of them a client gets, and nothing else.

use std::ops::RangeInclusive;
use std::path::Path;

use russh::kex::dh::groups::{
    DH_GROUP14, DH_GROUP15, DH_GROUP16, DH_GROUP17, DH_GROUP18, DhGroup, DhGroupUInt,
};
use tracing::warn;

use super::authorized_keys::read_regular;
use crate::logging::Seldom;

/// How much of the file is read; OpenSSH's has 600 KB.
const MAX_FILE: u64 = 2 << 20;
/// What a line may say of its number (moduli(5)): it is a safe prime, and was tested, not found to be composite.
const SAFE: u32 = 2;
const COMPOSITE: u32 = 1;

/// What a client wants, as far as we have it: a group of this size or the next larger one, within limits, in bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub size: usize,
    pub limits: RangeInclusive<usize>,
}

impl Wanted {
    /// RFC 4419 section 3: the smallest group that is no smaller than what is preferred, else the largest.
    fn rank(&self, bits: usize) -> Option<(bool, usize)> {
        let is_small = bits < self.size;
        let distance = if is_small { self.size - bits } else { bits - self.size };
        self.limits.contains(&bits).then_some((is_small, distance))
    }

    /// A group of the file, or one of RFC 3526 where it has none that fits; `random` chooses among equals.
    pub fn find(&self, file: Option<&Path>, random: usize) -> Option<DhGroup> {
        let found = file.and_then(|path| self.find_in_file(path, random));
        found.or_else(|| {
            let groups = [DH_GROUP14, DH_GROUP15, DH_GROUP16, DH_GROUP17, DH_GROUP18];
            let fits = groups.into_iter().filter_map(|group| Some((self.rank(group.bit_size())?, group)));
            Some(fits.min_by_key(|(rank, _)| *rank)?.1)
        })
    }

    fn find_in_file(&self, path: &Path, random: usize) -> Option<DhGroup> {
        static LINES: Seldom = Seldom::new();
        let (found, fault) = match read_regular(path, MAX_FILE) {
            Ok((content, _)) => {
                let (found, bad) = self.find_in(&content, random);
                (found, (bad > 0).then(|| format!("{bad} lines are no groups")))
            }
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(fault) = fault
            && LINES.is_due().is_some()
        {
            warn!(file = %path.display(), fault, "moduli_file has faults; what is left of it is used, else groups of RFC 3526");
        }
        found
    }

    /// A group among these lines, and how many of them are none.
    pub fn find_in(&self, content: &[u8], random: usize) -> (Option<DhGroup>, usize) {
        let mut bad = 0;
        let mut best = Vec::new();
        let mut least = None;
        for line in content.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(group) = Group::parse(line) else {
                bad += 1;
                continue;
            };
            let Some(rank) = self.rank(group.bits) else { continue };
            if least.is_none_or(|least| rank < least) {
                (least, best) = (Some(rank), Vec::new());
            }
            if least == Some(rank) {
                best.push(group);
            }
        }
        let chosen = random.checked_rem(best.len()).map(|index| best.swap_remove(index));
        match chosen.as_ref().map(Group::decode) {
            // Its digits are none, which nobody looked at until now.
            Some(None) => (None, bad + 1),
            found => (found.flatten(), bad),
        }
    }
}

/// A line that looks like a group.
struct Group<'a> {
    bits: usize,
    generator: &'a str,
    prime: &'a str,
}

impl<'a> Group<'a> {
    /// Time, type, tests, trials, size less one, generator, modulus. Their digits are not looked at.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace().skip(1);
        let mut number = || words.next()?.parse::<u32>().ok();
        let (kind, tests, trials, size) = (number()?, number()?, number()?, number()?);
        let (generator, prime, None) = (words.next()?, words.next()?, words.next()) else { return None };
        let bits = usize::try_from(size).ok()?.checked_add(1)?;
        let first = prime.chars().next()?.to_digit(16)?;
        let has = prime.len().checked_mul(4)?.checked_sub(first.leading_zeros() as usize - 28)?;
        // An even number is no prime, and what is to be computed with it is something else.
        let is_odd = prime.chars().last()?.to_digit(16)? % 2 == 1;
        let good = kind == SAFE
            && tests & COMPOSITE == 0
            && tests & !COMPOSITE != 0
            && trials > 0
            && first > 0
            && has == bits
            && is_odd;
        good.then_some(Self { bits, generator, prime })
    }

    fn decode(&self) -> Option<DhGroup> {
        let generator = u16::from_str_radix(self.generator, 16).ok().filter(|generator| *generator > 1)?;
        let padded = format!("{}{}", "0".repeat(self.prime.len() % 2), self.prime);
        let prime: Option<Vec<u8>> = padded
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let [high, low] = pair else { return None };
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
            })
            .collect();
        Some(DhGroup { prime: prime?.into(), generator: DhGroupUInt::from(generator.to_be_bytes().to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    fn wanted(min: usize, size: usize, max: usize) -> Wanted {
        Wanted { size, limits: min..=max }
    }

    /// A line for a number of so many bits that begins with `first` and is odd.
    fn line(bits: usize, first: char) -> String {
        format!("20220714110357 2 6 100 {} 2 {first}{}1", bits - 1, "0".repeat(bits / 4 - 2))
    }

    #[test]
    fn clients_get_the_next_larger_group_of_the_rfc_within_the_limits() {
        let size = |min, size, max| wanted(min, size, max).find(None, 0).map(|group| group.bit_size());
        assert_eq!(size(2048, 3072, 8192), Some(3072));
        assert_eq!(size(2048, 3073, 8192), Some(4096));
        assert_eq!(size(3072, 2048, 8192), Some(3072));
        assert_eq!(size(3072, 8192, 4096), Some(4096));
        assert_eq!(size(3072, 8192, 5000), Some(4096));
        assert_eq!(size(6145, 6145, 8191), None);
    }

    #[test]
    fn the_groups_of_a_file_go_before_those_of_the_rfc() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("moduli");
        let lines =
            ["# Time Type Tests Tries Size Generator Modulus", &line(3072, 'E'), &line(3072, 'F'), "junk"];
        files::replace(&path, lines.join("\n").as_bytes(), 0o600).unwrap();
        let first = |size, random| {
            let group = wanted(2048, size, 8192).find(Some(&path), random)?;
            assert_eq!((group.bit_size() / 8, group.prime.last()), (group.prime.len(), Some(&1)));
            group.prime.first().copied()
        };
        assert_eq!((first(3072, 0), first(3072, 1), first(2048, 2)), (Some(0xe0), Some(0xf0), Some(0xe0)));
        // The largest of the file, though the RFC has a larger one: who wants other groups wants those.
        assert_eq!(first(8192, 0), Some(0xe0));
        let none = wanted(4096, 4096, 8192).find(Some(&path), 0).unwrap();
        assert_eq!(none.bit_size(), 4096);
    }

    #[test]
    fn what_is_no_safe_prime_is_skipped() {
        let good = line(2048, '8');
        let found = |text: &str| {
            let (found, bad) = wanted(2048, 2048, 8192).find_in(text.as_bytes(), 0);
            (found.is_some(), bad)
        };
        assert_eq!(found(&good), (true, 0));
        assert_eq!(found(&format!("\n# comment\n{good}\r\n")), (true, 0));
        let even = format!("{}0", good.strip_suffix('1').unwrap());
        let wrong = [
            good.replacen(" 2 6", " 4 6", 1),
            good.replacen(" 6 100", " 7 100", 1),
            good.replacen(" 6 100", " 0 100", 1),
            good.replacen(" 100 ", " 0 ", 1),
            good.replacen(" 2047 ", " 2048 ", 1),
            good.replacen(" 2047 ", " 4294967295 ", 1),
            good.replacen(" 2 8", " 1 8", 1),
            good.replacen(" 2 8", " x 8", 1),
            good.replacen("8000", "8g00", 1),
            good.replacen("8000", "8\u{e9}0", 1),
            format!("{good} more"),
            even,
            "1".into(),
        ];
        for text in wrong {
            assert_eq!(found(&text), (false, 1), "{text:.60}");
        }
        // Of a size that nobody wants.
        assert_eq!(found(&line(1024, '8')), (false, 0));
    }
}
