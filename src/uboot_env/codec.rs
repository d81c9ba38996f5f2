//! The bytes of an environment block: what they mean, and which of two copies counts.
//!
//! Works on whole blocks in memory. It never opens a device, and never decides when a block is written.
//!
//! ```text
//! single:     CRC-32 (4, little endian, over the data)            data
//! redundant:  CRC-32 (4, little endian, over the data)  flags (1) data
//! data:       NAME=VALUE \0 NAME=VALUE \0 … \0, then 0xFF to the end
//! ```

use std::collections::BTreeMap;

use thiserror::Error;

/// Variables of a block: byte strings, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Environment {
    /// The value as text; `None` when it is not set or is no UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    pub fn get_bytes(&self, name: &[u8]) -> Option<&[u8]> {
        self.variables.get(name).map(Vec::as_slice)
    }

    /// Sets a variable, unless a block cannot hold such a name or value.
    pub fn set(&mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<(), CodecError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(CodecError::Name { name: String::from_utf8_lossy(&name).into_owned() });
        }
        if value.contains(&0) {
            return Err(CodecError::Value { name: String::from_utf8_lossy(&name).into_owned() });
        }
        self.variables.insert(name, value);
        Ok(())
    }

    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name.as_bytes());
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.variables.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

/// What stands in front of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One block: a CRC.
    Single,
    /// One of two copies: a CRC and a counter.
    Redundant,
}

impl Layout {
    fn header_len(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Redundant => 5,
        }
    }
}

/// One of the two copies of a redundant environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    First,
    Second,
}

impl Copy {
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A redundant environment as read: what counts, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    pub environment: Environment,
    pub copy: Copy,
    pub flags: u8,
}

impl Current {
    /// Where a change goes, and its flags: only ever the copy that was not used.
    pub fn next(&self) -> (Copy, u8) {
        (self.copy.other(), self.flags.wrapping_add(1))
    }
}

/// The flags with which both copies start when nothing was readable.
pub const FIRST_FLAGS: u8 = 1;

/// The checksum of blocks, which is that of zip and of GPT too.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Reads one block; the flags are 0 in the single layout.
pub fn decode(block: &[u8], layout: Layout) -> Result<(Environment, u8), CodecError> {
    let (Some((crc, _)), Some((header, data))) =
        (block.split_first_chunk::<4>(), block.split_at_checked(layout.header_len()))
    else {
        return Err(CodecError::TooShort { size: block.len() });
    };
    if crc32(data) != u32::from_le_bytes(*crc) {
        return Err(CodecError::Checksum);
    }
    let flags = header.get(4).copied().unwrap_or(0);
    Ok((parse(data)?, flags))
}

fn parse(mut data: &[u8]) -> Result<Environment, CodecError> {
    let mut environment = Environment::default();
    while data.first().is_some_and(|&byte| byte != 0) {
        let end = data.iter().position(|&byte| byte == 0).ok_or(CodecError::Unterminated)?;
        let (string, rest) = data.split_at(end);
        let equals = string.iter().position(|&byte| byte == b'=').ok_or(CodecError::NoEquals)?;
        let (name, value) = string.split_at(equals);
        environment.set(name, value.get(1..).unwrap_or_default())?;
        data = rest.get(1..).unwrap_or_default();
    }
    Ok(environment)
}

/// The bytes of a block of `size` bytes; `flags` matter in the redundant layout only.
pub fn encode(
    environment: &Environment,
    layout: Layout,
    size: usize,
    flags: u8,
) -> Result<Vec<u8>, CodecError> {
    let header_len = layout.header_len();
    if size < header_len + 2 {
        return Err(CodecError::TooShort { size });
    }
    let mut block = Vec::with_capacity(size);
    block.resize(header_len, 0);
    for (name, value) in environment.iter() {
        // The strict rule of fwup, so that whatever fits here fits there.
        if block.len() + name.len() + 1 + value.len() >= size - 2 {
            return Err(CodecError::Full { name: String::from_utf8_lossy(name).into_owned(), size });
        }
        block.extend_from_slice(name);
        block.push(b'=');
        block.extend_from_slice(value);
        block.push(0);
    }
    block.push(0);
    block.resize(size, 0xFF);
    let (header, data) = block.split_at_mut(header_len);
    let crc = crc32(data).to_le_bytes();
    header[..4].copy_from_slice(&crc);
    if let Some(byte) = header.get_mut(4) {
        *byte = flags;
    }
    Ok(block)
}

/// Chooses between two copies: the newer one, or the one that can be read.
pub fn current_copy(first: &[u8], second: &[u8]) -> Result<Current, CodecError> {
    let current = |copy, (environment, flags)| Current { environment, copy, flags };
    match (decode(first, Layout::Redundant), decode(second, Layout::Redundant)) {
        (Ok(one), Ok(two)) if two.1.wrapping_sub(one.1).wrapping_sub(1) < 127 => {
            Ok(current(Copy::Second, two))
        }
        (Ok(one), _) => Ok(current(Copy::First, one)),
        (Err(_), Ok(two)) => Ok(current(Copy::Second, two)),
        (Err(first), Err(second)) => {
            Err(CodecError::NoCopy { first: first.to_string(), second: second.to_string() })
        }
    }
}

/// Why bytes are no environment, or an environment does not become bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("a block of {size} bytes is too short for an environment")]
    TooShort { size: usize },
    #[error("the checksum is wrong: never written, damaged, or read at the wrong place")]
    Checksum,
    #[error("a variable does not end before the block does")]
    Unterminated,
    #[error("a variable has no `=`")]
    NoEquals,
    #[error("`{name}` cannot be the name of a variable: it is empty, or has `=` or a zero byte in it")]
    Name { name: String },
    #[error("the value of `{name}` has a zero byte in it")]
    Value { name: String },
    #[error("`{name}` does not fit any more into the environment of {size} bytes: unset something first")]
    Full { name: String, size: usize },
    #[error("neither copy can be read (first: {first}; second: {second})")]
    NoCopy { first: String, second: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 128;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in pairs {
            environment.set(*name, *value).unwrap();
        }
        environment
    }

    fn redundant(value: &str, flags: u8) -> Vec<u8> {
        encode(&environment(&[("nerves_fw_active", value)]), Layout::Redundant, SIZE, flags).unwrap()
    }

    #[test]
    fn a_block_is_sorted_ended_and_filled() {
        let block =
            encode(&environment(&[("b", "2"), ("a", "1"), ("B", "")]), Layout::Single, SIZE, 9).unwrap();
        assert_eq!(&block[4..16], b"B=\0a=1\0b=2\0\0");
        assert!(block[16..].iter().all(|&byte| byte == 0xFF));
        assert_eq!(block.len(), SIZE);
        let (read, flags) = decode(&block, Layout::Single).unwrap();
        assert_eq!((read.get("a"), read.get("B"), read.get("c"), flags), (Some("1"), Some(""), None, 0));
    }

    #[test]
    fn values_may_hold_equals_signs_and_any_byte_but_zero() {
        let mut environment = environment(&[("bootcmd", "setenv x=y; run z")]);
        environment.set("raw", vec![0xFF, 0x80]).unwrap();
        let block = encode(&environment, Layout::Redundant, SIZE, 7).unwrap();
        let (read, flags) = decode(&block, Layout::Redundant).unwrap();
        assert_eq!((&read, flags), (&environment, 7));
        assert_eq!(read.get("raw"), None);
        assert_eq!(read.get_bytes(b"raw"), Some([0xFF, 0x80].as_slice()));
    }

    #[test]
    fn names_and_values_that_a_block_cannot_hold_are_refused() {
        let mut environment = Environment::default();
        assert!(environment.set("", "x").is_err());
        assert!(environment.set("a=b", "x").is_err());
        assert!(environment.set("a", "x\0y").is_err());
        assert_eq!(environment, Environment::default());
    }

    #[test]
    fn the_last_variable_must_leave_two_bytes_free() {
        // Position 4, "a=" and the value: 4 + 2 + length < SIZE - 2.
        let fits = "x".repeat(SIZE - 9);
        assert!(encode(&environment(&[("a", &fits)]), Layout::Single, SIZE, 0).is_ok());
        let error = encode(&environment(&[("a", &(fits + "x"))]), Layout::Single, SIZE, 0);
        assert_eq!(error, Err(CodecError::Full { name: "a".into(), size: SIZE }));
    }

    fn with_checksum(data: &[u8]) -> Vec<u8> {
        [crc32(data).to_le_bytes().as_slice(), data].concat()
    }

    #[test]
    fn malformed_data_is_an_error_even_with_a_good_checksum() {
        assert_eq!(decode(&with_checksum(b"a=1\0b\0\0"), Layout::Single), Err(CodecError::NoEquals));
        assert_eq!(decode(&with_checksum(b"a=1"), Layout::Single), Err(CodecError::Unterminated));
        assert!(matches!(decode(&with_checksum(b"=1\0\0"), Layout::Single), Err(CodecError::Name { .. })));
        assert!(decode(&with_checksum(b"a=1\0"), Layout::Single).is_ok());
        assert_eq!(decode(&with_checksum(b""), Layout::Single), Ok((Environment::default(), 0)));
        for length in 0..5 {
            assert!(decode(&vec![0; length], Layout::Redundant).is_err());
        }
    }

    #[test]
    fn the_newer_copy_counts_across_the_wrap_of_the_counter() {
        for (first, second, copy) in [
            (1, 1, Copy::First),
            (1, 2, Copy::Second),
            (2, 1, Copy::First),
            (255, 0, Copy::Second),
            (0, 255, Copy::First),
            (0, 127, Copy::Second),
            (0, 128, Copy::First),
        ] {
            let current = current_copy(&redundant("a", first), &redundant("b", second)).unwrap();
            assert_eq!(current.copy, copy, "flags {first} and {second}");
        }
        let current = current_copy(&redundant("a", 254), &redundant("b", 255)).unwrap();
        assert_eq!(current.next(), (Copy::First, 0));
    }

    #[test]
    fn any_single_copy_may_be_damaged_anywhere() {
        let (old, new) = (redundant("a", 4), redundant("b", 5));
        for at in 0..SIZE {
            let mut torn = new.clone();
            torn[at] ^= 0x10;
            let survivor = current_copy(&old, &torn).unwrap();
            // The flags are outside the checksum: a flip there cannot be seen, but never makes both unreadable.
            if at != 4 {
                assert_eq!(survivor.environment.get("nerves_fw_active"), Some("a"));
                assert_eq!(survivor.next(), (Copy::Second, 5));
            }
            let survivor = current_copy(&torn, &new).unwrap();
            assert_eq!(survivor.environment.get("nerves_fw_active"), Some("b"));
        }
        assert!(matches!(current_copy(&[0; SIZE], &[0xFF; SIZE]), Err(CodecError::NoCopy { .. })));
    }
}
