//! The groups of diffie-hellman-group-exchange-sha256 (RFC 4419): those of a file in the format of moduli(5), or those
//! of RFC 3526. Which of them a client gets, and nothing else.

use std::ops::RangeInclusive;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use russh::kex::dh::groups::{DH_GROUP14, DH_GROUP15, DH_GROUP16, DH_GROUP17, DH_GROUP18, DhGroup};
use tracing::warn;

use super::authorized_keys::read_regular;
use crate::logging::Seldom;

/// How much of the file is read; OpenSSH's has 600 KB.
const MAX_FILE: u64 = 2 << 20;
/// What a line may say of its number (moduli(5)): it is a safe prime, and was tested, not found to be composite.
const SAFE: usize = 2;
const COMPOSITE: usize = 1;
/// Those of RFC 3526.
const GROUPS: &[&DhGroup] = &[&DH_GROUP14, &DH_GROUP15, &DH_GROUP16, &DH_GROUP17, &DH_GROUP18];

/// What a client wants, as far as we have it: a group of this size or the next larger one, within limits, in bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub size: usize,
    pub limits: RangeInclusive<usize>,
}

impl Wanted {
    /// RFC 4419 section 3: the smallest group that is no smaller than what is preferred, else the largest.
    fn rank(&self, bits: usize) -> Option<usize> {
        let rank = if bits < self.size { usize::MAX - bits } else { bits };
        self.limits.contains(&bits).then_some(rank)
    }

    /// A group of the file, or one of RFC 3526 where it has none that fits; `random` chooses among equals.
    pub fn find(&self, file: Option<&Path>, random: usize) -> Option<DhGroup> {
        let mut found = file.and_then(|path| self.find_in_file(path, random));
        let mut least = usize::MAX;
        if found.is_none() {
            for group in GROUPS {
                if let Some(rank) = self.rank(group.bit_size()).filter(|rank| *rank < least) {
                    (least, found) = (rank, Some((*group).clone()));
                }
            }
        }
        found
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
        let (mut bad, mut least, mut best) = (0, usize::MAX, Vec::new());
        for line in content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if matches!(line.first(), None | Some(b'#')) {
                continue;
            }
            let Some((bits, group)) = parse(line) else {
                bad += 1;
                continue;
            };
            let Some(rank) = self.rank(bits).filter(|rank| *rank <= least) else { continue };
            if rank < least {
                best.clear();
            }
            least = rank;
            best.push(group);
        }
        let chosen = random.checked_rem(best.len()).map(|index| best.swap_remove(index));
        (chosen, bad)
    }
}

/// Time, type, tests, trials, size less one, generator, modulus: the size and the group.
fn parse(line: &[u8]) -> Option<(usize, DhGroup)> {
    let words: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let &[_, kind, tests, trials, size, &[generator], prime] = words.as_slice() else { return None };
    let bits = number(size)? + 1;
    let tests = number(tests)?;
    let good = number(kind)? == SAFE && tests & COMPOSITE == 0 && tests > 0 && number(trials)? > 0;
    let prime = HEXLOWER_PERMISSIVE.decode(prime).ok()?;
    // An even number is no prime, and what is to be computed with it is something else.
    let is_odd = prime.last()? % 2 == 1;
    let has = prime.len() * 8 - prime.first()?.leading_zeros() as usize;
    let generator = HEXLOWER_PERMISSIVE.decode(&[b'0', generator]).ok()?;
    let good = good && is_odd && has == bits && *generator.first()? > 1;
    good.then(|| (bits, DhGroup { prime: prime.into(), generator: generator.into() }))
}

/// A number of few digits.
fn number(word: &[u8]) -> Option<usize> {
    let mut digits = word.iter().map(|byte| byte.is_ascii_digit().then(|| usize::from(byte - b'0')));
    if word.len() > 6 { None } else { digits.try_fold(0, |sum, digit| Some(sum * 10 + digit?)) }
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
