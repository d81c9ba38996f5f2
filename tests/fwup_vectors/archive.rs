//! The entries of a created archive, read through its central directory.

use std::io::Read;

use crate::compare::sha256;
use crate::scenario::Entry;

const END: &[u8] = b"PK\x05\x06";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// All entries in order, and the text of `meta.conf`.
pub fn list(zip: &[u8]) -> Result<(Vec<Entry>, String), String> {
    let end = zip.windows(4).rposition(|window| window == END).ok_or("it has no central directory")?;
    let count = u16_at(zip, end + 10)?;
    let mut at = u32_at(zip, end + 16)? as usize;
    let mut entries = Vec::new();
    let mut meta = String::new();
    for _ in 0..count {
        if bytes(zip, at, 4)? != CENTRAL {
            return Err(format!("no directory entry at {at}"));
        }
        let method = u16_at(zip, at + 10)?;
        let (crc, packed, size) = (u32_at(zip, at + 16)?, u32_at(zip, at + 20)?, u32_at(zip, at + 24)?);
        let name_len = usize::from(u16_at(zip, at + 28)?);
        let others = usize::from(u16_at(zip, at + 30)?) + usize::from(u16_at(zip, at + 32)?);
        let name = String::from_utf8_lossy(bytes(zip, at + 46, name_len)?).into_owned();
        let content = content(zip, u32_at(zip, at + 42)? as usize, method, packed as usize)?;
        if content.len() != size as usize || crc32fast::hash(&content) != crc {
            return Err(format!("{name} is not what the directory says"));
        }
        if name == "meta.conf" {
            meta = String::from_utf8_lossy(&content).into_owned();
        }
        let method = match method {
            0 => "store".to_owned(),
            8 => "deflate".to_owned(),
            other => other.to_string(),
        };
        entries.push(Entry { name, method, size: size.into(), sha256: sha256(&content) });
        at += 46 + name_len + others;
    }
    Ok((entries, meta))
}

fn content(zip: &[u8], at: usize, method: u16, packed: usize) -> Result<Vec<u8>, String> {
    if bytes(zip, at, 4)? != LOCAL {
        return Err(format!("no entry at {at}"));
    }
    let names = usize::from(u16_at(zip, at + 26)?) + usize::from(u16_at(zip, at + 28)?);
    let data = bytes(zip, at + 30 + names, packed)?;
    let mut content = Vec::new();
    match method {
        0 => content.extend_from_slice(data),
        _ => {
            flate2::read::DeflateDecoder::new(data).read_to_end(&mut content).map_err(|e| e.to_string())?;
        }
    }
    Ok(content)
}

fn bytes(zip: &[u8], at: usize, len: usize) -> Result<&[u8], String> {
    zip.get(at..at + len).ok_or_else(|| format!("it ends before byte {}", at + len))
}

fn u16_at(zip: &[u8], at: usize) -> Result<u16, String> {
    let b = bytes(zip, at, 2)?;
    Ok(u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(zip: &[u8], at: usize) -> Result<u32, String> {
    let b = bytes(zip, at, 4)?;
    Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
