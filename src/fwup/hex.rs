//! Lower-case hexadecimal digits.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

pub fn encode(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Digits of any case for exactly `N` bytes.
pub fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    HEXLOWER_PERMISSIVE.decode(digits).ok()?.try_into().ok()
}
