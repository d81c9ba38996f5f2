//! Finding removable media that may be written to.

use std::fs::{File, read_to_string};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, makedev, minor};

use super::DiskError;

pub struct Candidate {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// SD cards and USB sticks that are not the disk of the running system.
pub fn find() -> Vec<Candidate> {
    let disks = ('a'..='y').map(|letter| format!("sd{letter}"));
    let cards = (0..16).map(|number| format!("mmcblk{number}"));
    disks.chain(cards).filter_map(|name| candidate(&name)).collect()
}

/// One `PATH,BYTES` line each.
pub fn listing(candidates: &[Candidate]) -> String {
    candidates.iter().map(|one| format!("{},{}\n", one.path.display(), one.size)).collect()
}

/// The one medium there is.
pub fn only() -> Result<Candidate, DiskError> {
    let mut found = find();
    match found.len() {
        0 => Err(DiskError::NoMedium),
        1 => found.pop().ok_or(DiskError::NoMedium),
        _ => {
            let _ = std::io::stderr().write_all(listing(&found).as_bytes());
            Err(DiskError::SeveralMedia)
        }
    }
}

/// The one medium there is, if somebody at the terminal agrees.
pub fn confirmed(accepted: bool, stdin_is_archive: bool) -> Result<PathBuf, DiskError> {
    let path = only()?.path;
    if accepted {
        return Ok(path);
    }
    if stdin_is_archive {
        return Err(DiskError::CannotAsk);
    }
    let _ = write!(std::io::stderr(), "Write to {}? Everything on it may be lost. [y/N] ", path.display());
    let mut answer = [0];
    let answered = std::io::stdin().read(&mut answer);
    match answered {
        Ok(1) if answer[0].eq_ignore_ascii_case(&b'y') => Ok(path),
        _ => Err(DiskError::NotConfirmed { path }),
    }
}

fn candidate(name: &str) -> Option<Candidate> {
    let path = Path::new("/dev").join(name);
    let device = path.metadata().ok()?.rdev();
    let is_removable = major(device) == MMC_MAJOR
        || read_to_string(format!("/sys/block/{name}/removable")).is_ok_and(|text| text.starts_with('1'));
    if !is_removable || root_disk() == Some(device) {
        return None;
    }
    let size = seek_size(&path).or_else(|| sysfs_size(name)).filter(|&size| size >= SMALLEST)?;
    Some(Candidate { path, size })
}

/// The disk that `/` lies on: partitions count in the low four bits.
fn root_disk() -> Option<u64> {
    let device = Path::new("/").metadata().ok()?.dev();
    Some(makedev(major(device), minor(device) & !0xF))
}

fn seek_size(path: &Path) -> Option<u64> {
    File::open(path).ok()?.seek(SeekFrom::End(0)).ok()
}

fn sysfs_size(name: &str) -> Option<u64> {
    let blocks: u64 = read_to_string(format!("/sys/block/{name}/size")).ok()?.trim().parse().ok()?;
    blocks.checked_mul(512)
}

const MMC_MAJOR: u64 = 179;
const SMALLEST: u64 = 1024 * 1024;
