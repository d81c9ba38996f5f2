//! Integers as the command line and the configuration language write them: strtoull(3) with base 0.

/// Optional spaces and sign, then decimal, `0x` hexadecimal or `0` octal; nothing may follow.
pub fn parse(text: &[u8]) -> Option<i128> {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', hex @ ..] => (16, hex),
        [b'0', octal @ ..] if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    let mut value: i128 = 0;
    for &digit in digits {
        value = value * i128::from(radix) + i128::from(char::from(digit).to_digit(radix)?);
        if value > i128::from(u64::MAX) {
            return None;
        }
    }
    Some(if negative { -value } else { value })
}

/// A number that is not negative and fits 64 bits.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    parse(text).and_then(|value| u64::try_from(value).ok())
}

/// A number that fits 64 bits with a sign.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    parse(text).and_then(|value| i64::try_from(value).ok())
}

const MOST_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_like_c() {
        for (text, value) in [
            ("0", 0),
            ("010", 8),
            ("0x10", 16),
            (" +7", 7),
            ("-1", -1),
            ("18446744073709551615", u64::MAX.into()),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["", " ", "x", "1x", "08", "0x", "1 ", "18446744073709551616", "--1"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
