//! Names of files and folders: what is allowed, the short form that every entry has, and the entries
//! that hold a long name.

use std::collections::BTreeSet;

use super::{FatError, u16_at};

/// Most UTF-16 units of a name.
const MAX_UNITS: usize = 255;
/// Units that one long-name entry holds, and where in it.
pub(super) const UNITS_PER_ENTRY: usize = 13;
const UNIT_PLACES: [usize; UNITS_PER_ENTRY] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// The attribute byte that marks a long-name entry.
pub(super) const LONG_ENTRY: u8 = 0x0F;
/// Marks the entry with the end of a long name, which comes first.
const LAST_LONG: u8 = 0x40;
/// Case bits (byte 12 of an entry): the base, the extension is shown in lower case.
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// One part of a path, ready to be looked for or stored.
#[derive(Debug, Clone)]
pub(super) struct Name {
    units: Vec<u16>,
    folded: String,
    /// The short name; where `lossy`, it gets a number before it is used.
    pub short: [u8; 11],
    pub case_bits: u8,
    /// The short name with its case bits does not say it all.
    pub needs_long: bool,
    /// The short name had to leave something out, so that it may stand for several names.
    pub lossy: bool,
}

impl Name {
    pub fn parse(text: &str) -> Result<Name, FatError> {
        let name = text.trim_end_matches([' ', '.']);
        let units: Vec<u16> = name.encode_utf16().collect();
        let forbidden = |c: char| c < ' ' || c == '\x7F' || "*:<>|\"?/\\".contains(c);
        if units.is_empty() || units.len() > MAX_UNITS || name.contains(forbidden) {
            return Err(FatError::Name(text.to_owned()));
        }

        let stripped = name.trim_start_matches([' ', '.']);
        let (base, extension) = stripped.rsplit_once('.').unwrap_or((stripped, ""));
        let mut short = [b' '; 11];
        let base = Part::fill(base, &mut short[..8]);
        let extension = Part::fill(extension, &mut short[8..]);
        let lossy = base.lossy || extension.lossy || stripped.len() != name.len();
        let needs_long = lossy || base.is_mixed() || extension.is_mixed();
        let mut case_bits = 0;
        if !needs_long {
            case_bits |= if base.lower { LOWER_BASE } else { 0 };
            case_bits |= if extension.lower { LOWER_EXTENSION } else { 0 };
        }
        Ok(Name { folded: fold(&units), units, short, case_bits, needs_long, lossy })
    }

    /// Whether an entry with this long name (if it has one) and this short entry is the one meant.
    pub fn matches(&self, long: Option<&[u16]>, entry: &[u8; 32]) -> bool {
        let same_long = |units: &[u16]| units.len() <= MAX_UNITS && fold(units) == self.folded;
        long.is_some_and(same_long) || (!self.lossy && entry[..11] == self.short)
    }

    /// The short name with a number that no name in `taken` has: `LONGNA~1.EXT`.
    pub fn numbered_short(&self, taken: &BTreeSet<u32>) -> [u8; 11] {
        let number = (1..).find(|n| !taken.contains(n)).unwrap_or(1);
        let tail = format!("~{number}");
        let keep = base_len(&self.short).min(8 - tail.len());
        let mut short = self.short;
        short[keep..8].fill(b' ');
        short[keep..keep + tail.len()].copy_from_slice(tail.as_bytes());
        short
    }

    /// The number in `other` if it is a numbered form of this name, and so not to be used again.
    pub fn number_in(&self, other: &[u8]) -> Option<u32> {
        let base = &other[..base_len(other)];
        let tilde = base.iter().rposition(|b| *b == b'~')?;
        let digits = std::str::from_utf8(&base[tilde + 1..]).ok()?;
        let same = base[..tilde] == self.short[..base_len(&self.short).min(tilde)]
            && other[8..11] == self.short[8..];
        if same { digits.parse().ok() } else { None }
    }

    /// The entries that hold the long name, in the order in which they are stored.
    pub fn long_entries(&self, short: &[u8; 11]) -> Vec<[u8; 32]> {
        if !self.needs_long {
            return Vec::new();
        }
        let sum = checksum(short);
        let chunks: Vec<&[u16]> = self.units.chunks(UNITS_PER_ENTRY).collect();
        let count = chunks.len();
        let entry = |(i, units): (usize, &&[u16])| {
            let mut e = [0; 32];
            e[0] = (i + 1) as u8 | if i + 1 == count { LAST_LONG } else { 0 };
            e[11] = LONG_ENTRY;
            e[13] = sum;
            for (k, place) in UNIT_PLACES.into_iter().enumerate() {
                // Behind the name: one zero unit, then filling.
                let filler = if k == units.len() { 0 } else { 0xFFFF };
                let unit = units.get(k).copied().unwrap_or(filler);
                e[place..place + 2].copy_from_slice(&unit.to_le_bytes());
            }
            e
        };
        chunks.iter().enumerate().map(entry).rev().collect()
    }
}

/// What turning one half of a name into its short form found.
#[derive(Default)]
struct Part {
    lossy: bool,
    lower: bool,
    upper: bool,
}

impl Part {
    fn fill(text: &str, out: &mut [u8]) -> Part {
        let mut part = Part::default();
        let mut used = 0;
        for c in text.chars() {
            if c == ' ' || c == '.' {
                part.lossy = true;
                continue;
            }
            let Some(place) = out.get_mut(used) else {
                part.lossy = true;
                break;
            };
            *place = if !c.is_ascii() || "+,;=[]".contains(c) {
                part.lossy = true;
                b'_'
            } else {
                part.lower |= c.is_ascii_lowercase();
                part.upper |= c.is_ascii_uppercase();
                c.to_ascii_uppercase() as u8
            };
            used += 1;
        }
        part
    }

    fn is_mixed(&self) -> bool {
        self.lower && self.upper
    }
}

/// Gathers a long name from the entries before a short one.
#[derive(Debug, Default)]
pub(super) struct LongName {
    /// Units from the front; entries come from the back, so each one is put before what is there.
    units: Vec<u16>,
    sum: u8,
    /// The number that the next entry must have; 0: complete.
    expected: Option<u8>,
}

impl LongName {
    /// Takes one long-name entry. Whether it continues the ones before.
    pub fn push(&mut self, e: &[u8; 32]) -> bool {
        let number = e[0] & !LAST_LONG;
        let begins = e[0] & LAST_LONG != 0;
        if begins && number > 0 && usize::from(number) <= MAX_UNITS.div_ceil(UNITS_PER_ENTRY) {
            *self = LongName { units: Vec::new(), sum: e[13], expected: Some(number) };
        }
        if number == 0 || self.expected != Some(number) || self.sum != e[13] {
            self.expected = None;
            return false;
        }
        let units = UNIT_PLACES.map(|place| u16_at(e, place));
        let used = if begins {
            units.iter().position(|u| *u == 0).unwrap_or(UNITS_PER_ENTRY)
        } else {
            UNITS_PER_ENTRY
        };
        self.units.splice(0..0, units[..used].iter().copied());
        self.expected = Some(number - 1);
        !begins
    }

    /// The name, if it is complete and belongs to this short entry.
    pub fn of(&self, short: &[u8; 32]) -> Option<&[u16]> {
        (self.expected == Some(0) && self.sum == checksum(&short[..11])).then_some(&self.units)
    }
}

/// The form in which names are compared.
fn fold(units: &[u16]) -> String {
    char::decode_utf16(units.iter().copied())
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .flat_map(char::to_lowercase)
        .collect()
}

fn checksum(short: &[u8]) -> u8 {
    short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b))
}

fn base_len(short: &[u8]) -> usize {
    short[..8].iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> (String, u8, bool, bool) {
        let n = Name::parse(text).expect("a good name");
        (String::from_utf8_lossy(&n.short).into_owned(), n.case_bits, n.needs_long, n.lossy)
    }

    #[test]
    fn short_names_carry_case_where_they_can() {
        assert_eq!(short("CONFIG.TXT"), ("CONFIG  TXT".into(), 0, false, false));
        assert_eq!(short("config.txt"), ("CONFIG  TXT".into(), 0x18, false, false));
        assert_eq!(short("config.TXT"), ("CONFIG  TXT".into(), 0x08, false, false));
        assert_eq!(short("small"), ("SMALL      ".into(), 0x08, false, false));
        assert_eq!(short("Kernel8.img"), ("KERNEL8 IMG".into(), 0, true, false));
    }

    #[test]
    fn what_does_not_fit_is_marked_as_lossy() {
        assert_eq!(short("A long file name.img"), ("ALONGFILIMG".into(), 0, true, true));
        assert_eq!(short("a.b.c"), ("AB      C  ".into(), 0, true, true));
        assert_eq!(short(".profile"), ("PROFILE    ".into(), 0, true, true));
        assert_eq!(short("bcm2711-rpi-4-b.dtb"), ("BCM2711-DTB".into(), 0, true, true));
        assert_eq!(short("x+y.dtbo"), ("X_Y     DTB".into(), 0, true, true));
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "x".repeat(256);
        for bad in
            ["", ".", "..", " ", "a*b", "a:b", "a?b", "a\"b", "a\x7Fb", "a\nb", "a|b", "<", long.as_str()]
        {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Name::parse(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn numbers_skip_the_names_that_exist() {
        let n = Name::parse("bcm2711-rpi-4-b.dtb").expect("a good name");
        assert_eq!(&n.numbered_short(&BTreeSet::new()), b"BCM271~1DTB");
        let taken = [&b"BCM271~1DTB"[..], b"BCM271~2DTB", b"BCM271~3DTX", b"OTHER~3 DTB"];
        let taken: BTreeSet<u32> = taken.into_iter().filter_map(|s| n.number_in(s)).collect();
        assert_eq!(&n.numbered_short(&taken), b"BCM271~3DTB");
        let many: BTreeSet<u32> = (1..=99).collect();
        assert_eq!(&n.numbered_short(&many), b"BCM2~100DTB");
    }

    #[test]
    fn a_long_name_survives_its_entries() {
        for text in ["A long file name.img", "thirteen.chrs", "über täglich.txt", &"n".repeat(255)] {
            let n = Name::parse(text).expect("a good name");
            let n = Name { needs_long: true, ..n };
            let entries = n.long_entries(&n.short);
            let mut long = LongName::default();
            for (i, e) in entries.iter().enumerate() {
                assert_eq!(long.push(e), i > 0);
            }
            let mut raw = [0; 32];
            raw[..11].copy_from_slice(&n.short);
            let units = long.of(&raw).expect("the name is complete");
            assert_eq!(String::from_utf16_lossy(units), text);
            assert!(Name::parse(&text.to_uppercase()).expect("a good name").matches(Some(units), &raw));
            raw[0] ^= 1;
            assert_eq!(long.of(&raw), None);
        }
    }
}
