//! Comparing what a run left behind with what was recorded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::execute::Outcome;
use crate::scenario::{self, Image, Scenario};
use crate::{archive, fat, streams, uboot};

pub fn compare(scenario: &Scenario, outcome: &Outcome, work: &Path) -> Vec<String> {
    let expect = &scenario.expect;
    let mut differences = Vec::new();
    if outcome.timed_out {
        differences.push("it ran past the time limit".to_owned());
    }
    if outcome.exit != Some(expect.exit) {
        differences.push(format!("exit status: want {}, got {:?}", expect.exit, outcome.exit));
    }
    if expect.waits_for_close.is_some() && expect.waits_for_close != outcome.waits_for_close {
        differences.push(format!(
            "waits for its input to close: want {:?}, got {:?}",
            expect.waits_for_close, outcome.waits_for_close
        ));
    }
    for (name, expected, got) in
        [("stdout", &expect.stdout, &outcome.stdout), ("stderr", &expect.stderr, &outcome.stderr)]
    {
        let found = expected.as_ref().map_or(Ok(()), |expected| streams::compare(expected, got));
        differences.extend(found.err().map(|text| format!("{name}: {text}")));
    }

    let image = work.join("img.bin");
    if let Some(expected) = &expect.image {
        differences.extend(compare_image(expected, &image));
    }
    for area in &expect.fat {
        let found = range(&image, area.offset, area.length).map_err(|e| e.to_string());
        let found = found.and_then(|bytes| fat::summary(&bytes));
        differences.extend(compare_values(&format!("FAT volume at {}", area.offset), &area.volume, found));
    }
    for area in &expect.uboot {
        let found = range(&image, area.offset, area.length).map_err(|e| e.to_string());
        let found = found.and_then(|bytes| uboot::summary(&bytes, area.redundant));
        let what = format!("U-Boot environment at {}", area.offset);
        differences.extend(compare_values(&what, &area.environment, found));
    }
    differences.extend(expect.files.iter().filter_map(|file| compare_file(file, work).err()));
    if let Some(expected) = &expect.archive {
        differences.extend(compare_archive(expected, work));
    }
    differences
}

pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn compare_image(expected: &Image, path: &Path) -> Vec<String> {
    let exists = path.exists();
    if exists != expected.exists.unwrap_or(true) {
        return vec![format!("the image exists: {exists}, that is wrong")];
    }
    let mut differences = Vec::new();
    if !exists {
        return differences;
    }
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    if expected.size.is_some_and(|want| want != size) {
        differences.push(format!("image size: want {:?}, got {size}", expected.size));
    }
    if let Some(want) = &expected.sha256
        && hash_file(path).ok().as_ref() != Some(want)
    {
        differences.push("the image has other content".to_owned());
    }
    for r in &expected.ranges {
        match range(path, r.offset, r.length) {
            Ok(bytes) if sha256(&bytes) == r.sha256 => {}
            Ok(bytes) => differences.push(format!(
                "bytes {}+{} of the image ({}) differ; they begin {}",
                r.offset,
                r.length,
                r.what,
                HEXLOWER.encode(&bytes[..bytes.len().min(48)])
            )),
            Err(e) => differences.push(format!("bytes {}+{} ({}): {e}", r.offset, r.length, r.what)),
        }
    }
    differences
}

fn compare_file(expected: &scenario::File, work: &Path) -> Result<(), String> {
    let path = work.join(&expected.path);
    let exists = path.exists();
    if exists != expected.exists.unwrap_or(true) {
        return Err(format!("file {} exists: {exists}, that is wrong", expected.path));
    }
    if !exists {
        return Ok(());
    }
    let bytes = std::fs::read(&path).map_err(|e| format!("file {}: {e}", expected.path))?;
    let same_size = expected.size.is_none_or(|size| size == bytes.len() as u64);
    if !same_size || expected.sha256.as_ref().is_some_and(|hash| *hash != sha256(&bytes)) {
        let got = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        return Err(format!("file {} has other content, of {} bytes: {got:?}", expected.path, bytes.len()));
    }
    Ok(())
}

fn compare_archive(expected: &scenario::Archive, work: &Path) -> Vec<String> {
    let archive = std::fs::read(work.join(&expected.path)).map_err(|e| e.to_string());
    let (entries, meta) = match archive.and_then(|bytes| archive::list(&bytes)) {
        Ok(found) => found,
        Err(e) => return vec![format!("archive {}: {e}", expected.path)],
    };
    let mut differences = Vec::new();
    if entries != expected.entries {
        differences
            .push(format!("archive entries:\n      want {:?}\n      got  {entries:?}", expected.entries));
    }
    if expected.meta_conf.as_ref().is_some_and(|want| *want != meta) {
        let want = expected.meta_conf.as_deref().unwrap_or_default();
        differences.push(format!("meta.conf differs:\n--- want\n{want}--- got\n{meta}"));
    }
    differences
}

/// Compares the expected fields with those of what was found.
fn compare_values(
    what: &str,
    expected: &BTreeMap<String, Value>,
    found: Result<impl Serialize, String>,
) -> Vec<String> {
    let found = match found.and_then(|found| serde_json::to_value(found).map_err(|e| e.to_string())) {
        Ok(found) => found,
        Err(e) => return vec![format!("{what} cannot be read: {e}")],
    };
    let differs = |(field, want): (&String, &Value)| {
        let got = found.get(field).unwrap_or(&Value::Null);
        (got != want).then(|| format!("{what}: {field}:\n      want {want}\n      got  {got}"))
    };
    expected.iter().filter_map(differs).collect()
}

/// Images may be larger than memory.
fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(HEXLOWER.encode(&hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

fn range(path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
