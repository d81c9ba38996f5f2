//! The local file header of a ZIP entry (APPNOTE.TXT 4.3.7) and the two extra fields that matter.

use super::ArchiveError;

/// What stands in front of the data of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub method: Method,
    /// CRC and sizes follow the data.
    pub has_descriptor: bool,
    pub crc: u32,
    pub compressed_size: u64,
    pub size: u64,
    pub modified: Modified,
}

impl Entry {
    /// The size of the data, if the header tells it.
    pub fn known_size(&self) -> Option<u64> {
        let telling = !self.has_descriptor || (self.size != 0 && self.size != u64::from(u32::MAX));
        telling.then_some(self.size)
    }

    pub fn shown_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Stored,
    Deflated,
}

/// When an entry was changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modified {
    /// Seconds since 1970.
    Unix(i64),
    /// DOS time and date, in the local time of whoever made the archive.
    Dos { time: u16, date: u16 },
}

/// The fixed part, without its signature `PK\3\4`.
pub struct Fixed {
    flags: u16,
    method: u16,
    time: u16,
    date: u16,
    crc: u32,
    compressed_size: u32,
    size: u32,
    pub name_length: usize,
    pub extra_length: usize,
}

impl Fixed {
    pub const LENGTH: usize = 26;

    pub fn parse(bytes: &[u8; Self::LENGTH]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        Self {
            flags: half(2),
            method: half(4),
            time: half(6),
            date: half(8),
            crc: word(10),
            compressed_size: word(14),
            size: word(18),
            name_length: half(22).into(),
            extra_length: half(24).into(),
        }
    }

    pub fn with(self, name: Vec<u8>, extra: &[u8]) -> Result<Entry, ArchiveError> {
        let shown = || String::from_utf8_lossy(&name).into_owned();
        if self.flags & FLAG_ENCRYPTED != 0 {
            return Err(ArchiveError::Encrypted { name: shown() });
        }
        let method = match self.method {
            0 => Method::Stored,
            8 => Method::Deflated,
            method => return Err(ArchiveError::Method { name: shown(), method }),
        };
        let mut entry = Entry {
            name,
            method,
            has_descriptor: self.flags & FLAG_DESCRIPTOR != 0,
            crc: self.crc,
            compressed_size: self.compressed_size.into(),
            size: self.size.into(),
            modified: Modified::Dos { time: self.time, date: self.date },
        };
        for (id, field) in extra_fields(extra) {
            match id {
                EXTRA_ZIP64 => {
                    let (words, _) = field.as_chunks::<8>();
                    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
                    for size in [&mut entry.size, &mut entry.compressed_size] {
                        if *size == u64::from(u32::MAX) {
                            *size = words.next().unwrap_or(*size);
                        }
                    }
                }
                EXTRA_TIME => {
                    if let [flags, time @ ..] = field
                        && flags & 1 != 0
                        && let Some(seconds) = time.first_chunk()
                    {
                        entry.modified = Modified::Unix(i32::from_le_bytes(*seconds).into());
                    }
                }
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// The fields of an extra area; what is cut off at its end is left out.
fn extra_fields(mut extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[id0, id1, len0, len1], rest) = extra.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u16::from_le_bytes([len0, len1]).into())?;
        extra = rest;
        Some((u16::from_le_bytes([id0, id1]), field))
    })
}

const FLAG_ENCRYPTED: u16 = 1;
pub const FLAG_DESCRIPTOR: u16 = 1 << 3;
pub const EXTRA_ZIP64: u16 = 0x0001;
pub const EXTRA_TIME: u16 = 0x5455;
