//! The manifest of a scenario.
//!
//! Whatever binds is read with unknown fields denied: a new kind of comparison must fail here, not be
//! left out without a word.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Scenario {
    pub name: String,
    pub stage: u32,
    pub argv: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub stdin: Stdin,
    #[serde(default)]
    pub handshake: bool,
    pub initial: Initial,
    pub expect: Expect,
    /// What fwup printed where that does not bind.
    #[serde(default)]
    pub reference: Reference,
}

#[derive(Default, Deserialize)]
pub struct Reference {
    pub stdout: Option<String>,
    pub stdout_hex: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stdin {
    Null,
    Hex {
        hex: String,
    },
    File {
        file: String,
        patch: Option<Patch>,
        length: Option<usize>,
        pad: Option<usize>,
        frame: Option<usize>,
        end_frame: Option<bool>,
        drop_tail: Option<usize>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    pub offset: u64,
    pub hex: String,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Initial {
    None,
    Zeros { size: u64, patches: Option<Vec<Patch>> },
    Fill { size: usize, byte: u8, patches: Option<Vec<Patch>> },
    File { file: String, size: usize, sha256: String, patches: Option<Vec<Patch>> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub exit: i32,
    pub waits_for_close: Option<bool>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub image: Option<Image>,
    #[serde(default)]
    pub fat: Vec<FatVolume>,
    #[serde(default)]
    pub uboot: Vec<UbootArea>,
    #[serde(default)]
    pub files: Vec<File>,
    pub archive: Option<Archive>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stream {
    Any,
    Exact { text: Option<String>, hex: Option<String> },
    Normalized { text: String },
    NormalizedCounts { text: String },
    NormalizedNickname { text: String },
    Contains { texts: Vec<String> },
    ErrorLine,
    NumericProgress { first: u32, last: u32 },
    Frames { frames: Vec<Frame>, rest_hex: String, progress: Option<FrameProgress> },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameProgress {
    Rising,
    Exact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    #[serde(rename = "type")]
    pub kind: String,
    pub code: u16,
    pub text: String,
    pub exact: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub exists: Option<bool>,
    pub size: Option<u64>,
    pub sha256: Option<String>,
    #[serde(default)]
    pub ranges: Vec<Range>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
    pub what: String,
    pub sha256: String,
}

/// What a reader must find on a volume, by the names of [`crate::fat::Summary`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FatVolume {
    pub offset: u64,
    pub length: u64,
    pub volume: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UbootArea {
    pub offset: u64,
    pub length: u64,
    pub redundant: bool,
    pub environment: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    pub exists: Option<bool>,
    pub size: Option<u64>,
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    pub path: String,
    pub entries: Vec<Entry>,
    pub meta_conf: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    pub method: String,
    pub size: u64,
    pub sha256: String,
}

/// All scenarios of the folder, in the order of their file names.
pub fn load(vectors: &Path) -> Vec<Scenario> {
    let folder = vectors.join("scenarios");
    let listing = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = listing.map(|entry| entry.expect("the folder can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let read = |path: &Path| -> Result<Scenario, Box<dyn std::error::Error>> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    paths.iter().map(|path| read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}
