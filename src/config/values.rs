//! Values as sshd_config(5) writes them: times, sizes, and lists that may be one text with commas.

use std::fmt;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time: integer seconds, or text such as `"90s"`, `"2m"`, `"1h30m"` (sshd_config(5), TIME FORMATS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(Duration);

impl Seconds {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn duration(self) -> Duration {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

/// A size in bytes: an integer, or text such as `"64K"`, `"16M"`, `"1G"` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Permissions: text with octal digits, such as `"022"`, or an integer (TOML writes `0o022`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octal(pub u32);

pub fn parse_seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    if digits.is_empty() {
        return (!text.is_empty()).then_some(total);
    }
    total.checked_add(digits.parse().ok()?)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, factor) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 1 << 10),
        'M' => (&text[..text.len() - 1], 1 << 20),
        'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads an integer, or text through `parse`; `wanted` completes the sentence "must be …".
struct UnitVisitor {
    parse: fn(&str) -> Option<u64>,
    wanted: &'static str,
}

impl de::Visitor<'_> for UnitVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor =
            UnitVisitor { parse: parse_seconds, wanted: "seconds, or a time such as \"2m\" or \"1h30m\"" };
        deserializer.deserialize_any(visitor).map(Self::from_secs)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor =
            UnitVisitor { parse: parse_bytes, wanted: "bytes, or a size such as \"64K\" or \"1G\"" };
        deserializer.deserialize_any(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Octal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| u64::from_str_radix(text, 8).ok();
        let visitor = UnitVisitor { parse, wanted: "octal digits such as \"022\"" };
        let value = deserializer.deserialize_any(visitor)?;
        Ok(Self(u32::try_from(value).unwrap_or(u32::MAX)))
    }
}

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:03o}", self.0))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.as_secs())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TextOrList {
    Text(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrListVisitor;

        impl<'de> de::Visitor<'de> for TextOrListVisitor {
            type Value = TextOrList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrList, E> {
                Ok(TextOrList::Text(text.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<TextOrList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(TextOrList::List(list))
            }
        }

        deserializer.deserialize_any(TextOrListVisitor)
    }
}

/// What is read by itself (`layers`), such as a section inside of another. Only its name is taken here, because reading
/// it in both places would be twice the code.
pub fn elsewhere<'de, D: Deserializer<'de>, T: Default>(deserializer: D) -> Result<T, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| T::default())
}

/// For `deserialize_with`: a list, or one text with commas between the items.
pub fn comma_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    let items = match TextOrList::deserialize(d)? {
        TextOrList::List(items) => items,
        TextOrList::Text(text) => split_commas(&text).map(String::from).collect(),
    };
    items
        .iter()
        .map(|item| T::deserialize(StrDeserializer::<ValueError>::new(item)).map_err(de::Error::custom))
        .collect()
}

/// For `deserialize_with`: a list of words, or one word; never split, since arguments may hold anything.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match TextOrList::deserialize(deserializer)? {
        TextOrList::List(words) => words,
        TextOrList::Text(word) if word.is_empty() => Vec::new(),
        TextOrList::Text(word) => vec![word],
    })
}

/// For `deserialize_with`: one text with commas, or a list of its parts.
pub fn joined<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match TextOrList::deserialize(deserializer)? {
        TextOrList::Text(text) => text,
        TextOrList::List(items) => items.join(","),
    })
}

/// The items of a text with commas between them.
pub fn split_commas(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Whether a pattern with `*` and `?` matches the whole text (ssh_config(5), PATTERNS).
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the characters after the last `*` turn out not to match.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&letter) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t + 1));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == letter => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after_star, next)) = retry else { return false };
                (p, t) = (after_star, next);
                retry = Some((after_star, next + 1));
            }
        }
    }
    pattern.iter().skip(p).all(|&byte| byte == b'*')
}

/// An address and the port behind it, if there is one: `10.0.0.5:2222`, `[::1]:2222`, `*:2222`. An IPv6 address without
/// brackets has none, as in sshd_config(5). `None` for a port that is no number from 1 to 65535.
pub fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) if address.ends_with(']') || !address.contains(':') => (address, port),
        _ => return Some((text, None)),
    };
    port.parse().ok().filter(|&port| port != 0).map(|port| (address, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text) in
            [("LC_*", "LC_ALL"), ("*", ""), ("a?c", "abc"), ("*-ctr", "aes-ctr-ctr"), ("a*b*c", "aXbYc")]
        {
            assert!(pattern_matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("LC_*", "XLC_A"), ("a", "ab"), ("?", ""), ("*-ctr", "ctr"), ("a*b*c", "acb")]
        {
            assert!(!pattern_matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn times_are_read_as_sshd_config_writes_them() {
        assert_eq!(parse_seconds("90"), Some(90));
        assert_eq!(parse_seconds("1h30m"), Some(5400));
        assert_eq!(parse_seconds("2m5"), Some(125));
        assert_eq!(parse_seconds(""), None);
        assert_eq!(parse_seconds("m"), None);
        assert_eq!(parse_seconds("5y"), None);
        assert_eq!(parse_seconds("99999999999999999999w"), None);
    }

    #[test]
    fn sizes_take_binary_suffixes() {
        assert_eq!(parse_bytes("64K"), Some(65_536));
        assert_eq!(parse_bytes("1g"), Some(1 << 30));
        assert_eq!(parse_bytes("K"), None);
        assert_eq!(parse_bytes("-1"), None);
    }
}
