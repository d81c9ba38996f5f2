//! A reader for FAT volumes that shares nothing with the driver it judges.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::compare::sha256;

/// What is on a volume.
#[derive(Serialize)]
pub struct Summary {
    #[serde(rename = "type")]
    kind: String,
    serial: String,
    sectors: u32,
    sectors_per_cluster: u32,
    fats: u32,
    fat_copies_equal: bool,
    free_clusters: usize,
    label: Option<String>,
    dirs: Vec<String>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: String,
    size: usize,
    attributes: String,
    sha256: String,
}

pub fn summary(volume: &[u8]) -> Result<Summary, String> {
    let reader = Reader::open(volume)?;
    let mut summary = Summary {
        kind: format!("FAT{}", reader.bits),
        serial: format!("{:08x}", number(volume, if reader.bits == 32 { 67 } else { 39 }, 4)?),
        sectors: reader.sectors,
        sectors_per_cluster: reader.per_cluster,
        fats: reader.tables,
        fat_copies_equal: reader.copies_equal,
        free_clusters: reader.links[2..].iter().filter(|link| **link == 0).count(),
        label: None,
        dirs: Vec::new(),
        files: Vec::new(),
    };
    reader.collect(&reader.root()?, "", &mut summary)?;
    summary.dirs.sort();
    summary.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(summary)
}

struct Reader<'a> {
    volume: &'a [u8],
    bits: u32,
    sectors: u32,
    per_cluster: u32,
    tables: u32,
    copies_equal: bool,
    root_sector: u32,
    data_sector: u32,
    /// The first copy of the table, one number per cluster.
    links: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn open(volume: &'a [u8]) -> Result<Reader<'a>, String> {
        let field = |at, len| number(volume, at, len);
        if field(510, 2)? != 0xAA55 {
            return Err("it has no boot sector".to_owned());
        }
        let or = |small: u32, large: u32| if small != 0 { small } else { large };
        let per_cluster = field(13, 1)?.max(1);
        let reserved = field(14, 2)?;
        let tables = field(16, 1)?;
        let sectors = or(field(19, 2)?, field(32, 4)?);
        let table_sectors = or(field(22, 2)?, field(36, 4)?);
        let root_sector = reserved + tables * table_sectors;
        let data_sector = root_sector + field(17, 2)? / 16;
        let clusters = sectors.checked_sub(data_sector).ok_or("it has no data area")? / per_cluster;
        let bits = match clusters {
            0..=4085 => 12,
            4086..=65525 => 16,
            _ => 32,
        };
        let table = |copy: u32| slice(volume, reserved + copy * table_sectors, table_sectors);
        let first = table(0)?;
        let links = (0..clusters + 2).map(|cluster| link(first, bits, cluster)).collect::<Result<_, _>>()?;
        let copies_equal = tables < 2 || table(1)? == first;
        Ok(Reader {
            volume,
            bits,
            sectors,
            per_cluster,
            tables,
            copies_equal,
            root_sector,
            data_sector,
            links,
        })
    }

    fn root(&self) -> Result<Vec<u8>, String> {
        match self.bits {
            32 => self.chain(number(self.volume, 44, 4)?),
            _ => Ok(slice(self.volume, self.root_sector, self.data_sector - self.root_sector)?.to_vec()),
        }
    }

    fn chain(&self, first: u32) -> Result<Vec<u8>, String> {
        let last = if self.bits == 32 { 0x0FFF_FFF8 } else { (1 << self.bits) - 8 };
        let mut content = Vec::new();
        let mut seen = HashSet::new();
        let mut cluster = first;
        while cluster < last {
            let link = self.links.get(cluster as usize).filter(|_| cluster >= 2 && seen.insert(cluster));
            let next = *link.ok_or(format!("the chain from cluster {first} is broken at {cluster}"))?;
            let sector = self.data_sector + (cluster - 2) * self.per_cluster;
            content.extend_from_slice(slice(self.volume, sector, self.per_cluster)?);
            cluster = next;
        }
        Ok(content)
    }

    fn collect(&self, folder: &[u8], prefix: &str, summary: &mut Summary) -> Result<(), String> {
        // Parts of a long name by their place in it.
        let mut long: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
        for entry in folder.chunks_exact(32) {
            let attributes = entry[11];
            match entry[0] {
                0 => break,
                0xE5 => long.clear(),
                _ if attributes == 0x0F => {
                    let text = [&entry[1..11], &entry[14..26], &entry[28..32]].concat();
                    let units = text.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
                    long.insert(entry[0] & 0x3F, units.collect());
                }
                _ if attributes & 8 != 0 => {
                    summary.label = Some(ascii(&entry[..11]));
                    long.clear();
                }
                _ => {
                    let name = name(entry, &std::mem::take(&mut long));
                    if name != "." && name != ".." {
                        self.record(entry, format!("{prefix}{name}"), summary)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&self, entry: &[u8], path: String, summary: &mut Summary) -> Result<(), String> {
        let cluster = number(entry, 26, 2)? | number(entry, 20, 2)? << 16;
        if entry[11] & 0x10 != 0 {
            if path.matches('/').count() > 20 {
                return Err(format!("folders without end: {path}"));
            }
            self.collect(&self.chain(cluster)?, &format!("{path}/"), summary)?;
            summary.dirs.push(path);
            return Ok(());
        }
        let mut content = if cluster == 0 { Vec::new() } else { self.chain(cluster)? };
        content.truncate(number(entry, 28, 4)? as usize);
        let letters = [('R', 1), ('H', 2), ('S', 4)];
        let attributes = letters.iter().filter(|(_, bit)| entry[11] & bit != 0).map(|(c, _)| *c).collect();
        summary.files.push(File { path, size: content.len(), attributes, sha256: sha256(&content) });
        Ok(())
    }
}

fn name(entry: &[u8], long: &BTreeMap<u8, Vec<u16>>) -> String {
    if !long.is_empty() {
        let units: Vec<u16> = long.values().flatten().copied().take_while(|unit| *unit != 0).collect();
        return String::from_utf16_lossy(&units);
    }
    let half = |bytes: &[u8], lower: bool| {
        let text = ascii(bytes);
        if lower { text.to_lowercase() } else { text }
    };
    let base = half(&entry[..8], entry[12] & 0x08 != 0);
    match half(&entry[8..11], entry[12] & 0x10 != 0) {
        extension if extension.is_empty() => base,
        extension => format!("{base}.{extension}"),
    }
}

fn link(table: &[u8], bits: u32, cluster: u32) -> Result<u32, String> {
    let at = cluster as usize;
    match bits {
        12 => {
            let pair = number(table, at + at / 2, 2)?;
            Ok(if at % 2 == 1 { pair >> 4 } else { pair & 0xFFF })
        }
        16 => number(table, at * 2, 2),
        _ => Ok(number(table, at * 4, 4)? & 0x0FFF_FFFF),
    }
}

fn ascii(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// A little-endian number of 1 to 4 bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Result<u32, String> {
    let field = bytes.get(at..at + len).ok_or("the image ends before it")?;
    Ok(field.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
}

fn slice(volume: &[u8], sector: u32, count: u32) -> Result<&[u8], String> {
    let (from, to) = (sector as usize * 512, (sector as usize + count as usize) * 512);
    volume.get(from..to).ok_or_else(|| "the image ends before it".to_owned())
}
