//! GUIDs in the mixed byte order of GPT.

/// Sixteen bytes as they stand on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

/// Characters of the text form.
const TEXT: usize = 36;
/// For each byte on the disk, where its two digits are in the text: the first three groups are numbers,
/// stored with the low byte first.
const PLACES: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Guid {
    /// Reads `8-4-4-4-12` hexadecimal digits; what follows them does not count.
    pub fn parse(text: &[u8]) -> Option<Guid> {
        let text = text.get(..TEXT)?;
        if HYPHENS.iter().any(|at| text[*at] != b'-') {
            return None;
        }
        let digit = |at: usize| char::from(text[at]).to_digit(16);
        let mut bytes = [0; 16];
        for (byte, at) in bytes.iter_mut().zip(PLACES) {
            *byte = (digit(at)? << 4 | digit(at + 1)?) as u8;
        }
        Some(Guid(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_groups_are_stored_low_byte_first() {
        let guid = Guid::parse(b"00112233-4455-6677-8899-aAbBcCdDeEfF").expect("a good GUID");
        let stored =
            [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF];
        assert_eq!(guid.0, stored);
        for bad in [
            "",
            "00112233-4455-6677-8899-aAbBcCdDeEf",
            "00112233x4455-6677-8899-aAbBcCdDeEfF",
            "g0112233-4455-6677-8899-aAbBcCdDeEfF",
        ] {
            assert_eq!(Guid::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
