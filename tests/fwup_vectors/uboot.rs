//! U-Boot environments, decoded.

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Serialize)]
pub struct Summary {
    crc_ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vars: Option<BTreeMap<String, String>>,
}

pub fn summary(area: &[u8], redundant: bool) -> Result<Summary, String> {
    let (crc, rest) = area.split_first_chunk::<4>().ok_or("the image ends before it")?;
    let (flags, data) = if redundant { rest.split_at(1) } else { rest.split_at(0) };
    let crc_ok = crc32fast::hash(data) == u32::from_le_bytes(*crc);
    let mut vars = BTreeMap::new();
    if crc_ok {
        for item in data.split(|b| *b == 0).take_while(|item| !item.is_empty()) {
            let item = String::from_utf8_lossy(item).into_owned();
            let (name, value) = item.split_once('=').ok_or(format!("no '=' in {item:?}"))?;
            vars.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(Summary { crc_ok, flags: flags.first().copied(), vars: crc_ok.then_some(vars) })
}
