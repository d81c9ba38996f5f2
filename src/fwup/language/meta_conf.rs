//! Turns a configuration back into text: `meta.conf`. Every byte counts, the UUID is made from them.

use blake2::Blake2b256;
use blake2::digest::Digest;

use super::schema::Kind;
use super::section::Section;
use crate::fwup::hex;
use crate::fwup::nickname::NICKNAMES;

/// The text of `meta.conf` for a configuration whose resources were measured.
pub fn text(configuration: &Section) -> Vec<u8> {
    let mut text = Vec::new();
    write_content(configuration, &mut text);
    if text.is_empty() { b"# Empty file\n".to_vec() } else { text }
}

/// `name=value` in the style of `meta.conf`.
pub fn setting(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", &quoted(value), b"\n"].concat()
}

/// The UUID of a firmware, from the bytes of its `meta.conf`.
pub struct Uuid([u8; 16]);

impl Uuid {
    pub fn of(meta_conf: &[u8]) -> Self {
        let hash = Blake2b256::new().chain_update(UUID_NAMESPACE).chain_update(meta_conf).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes[6] = bytes[6] & 0x0F | 0x50;
        Self(bytes)
    }

    /// `8-4-4-4-12` lower-case digits.
    pub fn to_text(&self) -> String {
        let digits = hex::encode(&self.0);
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }

    /// Two words that people can remember and say.
    pub fn nickname(&self) -> String {
        let word = |at: usize| NICKNAMES[usize::from(self.0[at])];
        format!("{}-{}", word(0), word(1))
    }
}

fn write_content(section: &Section, out: &mut Vec<u8>) {
    for entry in section.schema.entries.iter().filter(|entry| entry.printed) {
        match &entry.kind {
            Kind::Text(default) => {
                let value = section.text_or_default(entry.name);
                if !value.is_empty() && value != default.as_bytes() {
                    out.extend(setting(entry.name, value));
                }
            }
            Kind::Int(default) => {
                let value = section.int(entry.name);
                if value != *default {
                    out.extend(setting(entry.name, value.to_string().as_bytes()));
                }
            }
            Kind::Flag if section.flag(entry.name) => out.extend(setting(entry.name, b"true")),
            Kind::Flag => {}
            Kind::List | Kind::CallList => match section.list(entry.name) {
                [] => {}
                [value] => out.extend(setting(entry.name, value)),
                values => {
                    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
                    out.extend(
                        [entry.name.as_bytes(), b"={", &values.join(b",".as_slice()), b"}\n"].concat(),
                    );
                }
            },
            Kind::Section(_) => {
                section.sections(entry.name).iter().for_each(|child| write_section(child, out))
            }
        }
    }
}

fn write_section(section: &Section, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    write_content(section, &mut content);
    if content.is_empty() && !section.schema.kept_empty {
        return;
    }
    out.extend_from_slice(section.schema.kind.as_bytes());
    if section.schema.titled {
        out.extend([b" \"", section.title.as_slice(), b"\""].concat());
    }
    out.extend([b" {\n", content.as_slice(), b"}\n"].concat());
}

fn quoted(value: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if !value.is_empty() && value.iter().all(is_plain) {
        return value.to_vec();
    }
    let mut text = vec![b'"'];
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(b'"');
    text
}

const UUID_NAMESPACE: [u8; 16] =
    [0x20, 0x53, 0xdf, 0xfb, 0xd5, 0x1e, 0x43, 0x10, 0xb9, 0x3b, 0x95, 0x6d, 0xa8, 0x9f, 0x9f, 0x34];
