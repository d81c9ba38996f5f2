//! `autoboot.txt` of a Raspberry Pi: which slot its firmware starts, and which it tries once (spec platform.md 3).
//!
//! FAT has no journal, so the file is never made anew: both versions have the same length and fit one sector, and
//! the change is one overwrite in place. After a power cut the sector holds the old text or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use thiserror::Error;

use crate::firmware::slots::Slot;

/// What the boot firmware reads of the file, and a sector of the card.
const MAX_LEN: usize = 512;
/// The boot partitions of the slots, in every layout that has such a file.
const PARTITIONS: [(Slot, u8); 2] = [(Slot::A, b'2'), (Slot::B, b'3')];
const KEY: &[u8] = b"boot_partition=";

/// The slot that a plain reboot starts.
pub fn chosen(path: &Path) -> Result<Slot, AutobootError> {
    let text = read(&open(path, false)?).map_err(AutobootError::of("read", path))?;
    let places = Places::find(&text).ok_or_else(|| AutobootError::Text { path: path.into() })?;
    slot_of(&text, places.all).ok_or_else(|| AutobootError::Text { path: path.into() })
}

/// Makes a plain reboot start `slot`. Nothing is written when it does already.
pub fn commit(path: &Path, slot: Slot) -> Result<(), AutobootError> {
    let old = read(&open(path, false)?).map_err(AutobootError::of("read", path))?;
    let new = with_slot(&old, slot).ok_or_else(|| AutobootError::Text { path: path.into() })?;
    if new == old {
        return Ok(());
    }
    let writable = Writable::make(path)?;
    let result = overwrite(path, &new);
    drop(writable);
    result
}

/// One write of the same length into the same sector, and a look at what the card then says.
fn overwrite(path: &Path, new: &[u8]) -> Result<(), AutobootError> {
    let file = open(path, true)?;
    file.write_all_at(new, 0).and_then(|()| file.sync_all()).map_err(AutobootError::of("write", path))?;
    // Else the comparison would only see the page cache.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let now = read(&file).map_err(AutobootError::of("read back", path))?;
    if now == new { Ok(()) } else { Err(AutobootError::ReadBack { path: path.into() }) }
}

fn open(path: &Path, write: bool) -> Result<File, AutobootError> {
    // Never with O_TRUNC: a cut after it would leave an empty file.
    OpenOptions::new().read(true).write(write).open(path).map_err(AutobootError::of("open", path))
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::Seek::seek(&mut &*file, io::SeekFrom::Start(0))?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_LEN {
        return Err(io::Error::other("longer than the 512 bytes that the boot firmware reads"));
    }
    Ok(text)
}

/// Where the digits of the two partitions stand.
#[derive(Clone, Copy)]
struct Places {
    /// Of a plain start: `[all]`.
    all: usize,
    /// Of the one that is tried once: `[tryboot]`.
    tryboot: Option<usize>,
}

impl Places {
    /// Exactly one of each, with one digit; anything else was written by somebody with other plans.
    fn find(text: &[u8]) -> Option<Self> {
        let (mut all, mut tryboot, mut filter) = (None, None, Filter::All);
        let mut start = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let end = start + line.trim_ascii_end().len();
            let begin = start + line.len() - line.trim_ascii_start().len();
            let word = text.get(begin..end).unwrap_or_default();
            if word.starts_with(b"[") {
                filter = match word {
                    b"[all]" => Filter::All,
                    b"[tryboot]" => Filter::Tryboot,
                    _ => Filter::Other,
                };
            } else if let Some(value) = word.strip_prefix(KEY) {
                let place = match filter {
                    Filter::All => &mut all,
                    Filter::Tryboot => &mut tryboot,
                    Filter::Other => return None,
                };
                if value.len() != 1 || place.replace(begin + KEY.len()).is_some() {
                    return None;
                }
            }
            start += line.len();
        }
        Some(Self { all: all?, tryboot })
    }
}

enum Filter {
    All,
    Tryboot,
    Other,
}

fn slot_of(text: &[u8], place: usize) -> Option<Slot> {
    let digit = text.get(place)?;
    PARTITIONS.iter().find_map(|(slot, partition)| (partition == digit).then_some(*slot))
}

/// The text with `slot` as the plain start, and the other one to be tried; of the same length.
fn with_slot(text: &[u8], slot: Slot) -> Option<Vec<u8>> {
    let places = Places::find(text)?;
    slot_of(text, places.all)?;
    let mut new = text.to_vec();
    for (place, slot) in [(Some(places.all), slot), (places.tryboot, slot.other())] {
        let Some(place) = place else { continue };
        slot_of(text, place)?;
        let (_, partition) = PARTITIONS.iter().find(|(known, _)| *known == slot)?;
        *new.get_mut(place)? = *partition;
    }
    Some(new)
}

/// A boot partition that was made writable for the moment.
struct Writable {
    /// What was mounted read-only, and with which flags.
    restore: Option<(PathBuf, MsFlags)>,
}

impl Writable {
    fn make(path: &Path) -> Result<Self, AutobootError> {
        let failed = |errno: Errno| AutobootError::of("make writable the partition of", path)(errno.into());
        let flags = statvfs(path).map_err(failed)?.flags();
        if !flags.contains(FsFlags::ST_RDONLY) {
            return Ok(Self { restore: None });
        }
        let point = mount_point(path).map_err(AutobootError::of("find the mount point of", path))?;
        let kept = kept_flags(flags);
        remount(&point, kept).map_err(failed)?;
        Ok(Self { restore: Some((point, kept)) })
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        if let Some((point, flags)) = &self.restore
            && let Err(error) = remount(point, *flags | MsFlags::MS_RDONLY)
        {
            tracing::warn!(point = %point.display(), %error, "the boot partition stays writable");
        }
    }
}

fn remount(point: &Path, flags: MsFlags) -> nix::Result<()> {
    let none: Option<&Path> = None;
    mount(none, point, none, flags | MsFlags::MS_REMOUNT, none)
}

/// A remount sets all flags anew.
fn kept_flags(flags: FsFlags) -> MsFlags {
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_SYNCHRONOUS, MsFlags::MS_SYNCHRONOUS),
    ];
    pairs
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(MsFlags::empty(), |all, (_, flag)| all | *flag)
}

/// The highest folder above the file that is on the same device.
fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let device = |path: &Path| nix::sys::stat::stat(path).map(|stat| stat.st_dev);
    let path = path.canonicalize()?;
    let mut point = path.as_path();
    let ours = device(point)?;
    while let Some(parent) = point.parent()
        && device(parent)? == ours
    {
        point = parent;
    }
    Ok(point.into())
}

#[derive(Debug, Error)]
pub enum AutobootError {
    #[error("cannot {what} {path}, which says what the board starts: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} does not say boot_partition=2 or boot_partition=3 once for [all] and at most once for \
             [tryboot]: nothing was changed, mend it by hand", path = path.display())]
    Text { path: PathBuf },
    #[error("{path} gave back other bytes than were written: the card is failing, replace it", path = path.display())]
    ReadBack { path: PathBuf },
}

impl AutobootError {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::files;

    const A: &str = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
    const B: &str = "[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("autoboot.txt");
        files::replace(&path, text.as_bytes(), 0o644).unwrap();
        (folder, path)
    }

    #[test]
    fn the_slots_change_places() {
        let (_folder, path) = file(A);
        assert_eq!(chosen(&path).unwrap(), Slot::A);
        commit(&path, Slot::B).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), B);
        assert_eq!(chosen(&path).unwrap(), Slot::B);
        commit(&path, Slot::A).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), A);
    }

    #[test]
    fn line_ends_and_blanks_and_other_lines_stay() {
        let dos = A.replace('\n', "\r\n").replace("[tryboot]", "# once\r\n[tryboot]\r\n ");
        let new = with_slot(dos.as_bytes(), Slot::B).unwrap();
        assert_eq!(new.len(), dos.len());
        assert_eq!(new.iter().zip(dos.as_bytes()).filter(|(new, old)| new != old).count(), 2);
        assert_eq!(with_slot(b"boot_partition=2", Slot::B).unwrap(), b"boot_partition=3");
    }

    #[test]
    fn what_is_not_understood_is_not_changed() {
        for text in [
            "",
            "[all]\n",
            "boot_partition=4\n",
            "boot_partition=12\n",
            "boot_partition=2\nboot_partition=3\n",
            "[none]\nboot_partition=2\n",
            "[all]\nboot_partition=2\n[tryboot]\nboot_partition=1\n",
        ] {
            let (_folder, path) = file(text);
            assert!(matches!(commit(&path, Slot::B), Err(AutobootError::Text { .. })), "{text:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let (_folder, path) = file(&format!("{A}{}", "#".repeat(MAX_LEN)));
        assert!(matches!(commit(&path, Slot::B), Err(AutobootError::Io { .. })));
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_old_choice_or_the_new_one() {
        for (old, new) in [(A, B), (B, A)] {
            assert_eq!(
                with_slot(old.as_bytes(), Slot::from_name(if new == A { "a" } else { "b" }).unwrap())
                    .unwrap(),
                new.as_bytes()
            );
            assert!(old.len() == new.len() && old.len() <= MAX_LEN);
            // A sector is written whole or not at all, and even a torn one starts one of the two slots.
            for cut in 0..=old.len() {
                let torn = [&new.as_bytes()[..cut], &old.as_bytes()[cut..]].concat();
                let places = Places::find(&torn).unwrap();
                let chosen = slot_of(&torn, places.all);
                let of = |text: &str| slot_of(text.as_bytes(), Places::find(text.as_bytes()).unwrap().all);
                assert!(chosen == of(old) || chosen == of(new), "{cut}");
            }
        }
    }

    #[test]
    fn the_file_keeps_its_place_on_the_disk() {
        let (_folder, path) = file(A);
        let before = std::fs::metadata(&path).unwrap();
        for slot in [Slot::B, Slot::A, Slot::B] {
            commit(&path, slot).unwrap();
        }
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((before.ino(), before.len(), before.blocks()), (after.ino(), after.len(), after.blocks()));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_is_told_and_changes_nothing() {
        let (_folder, path) = file(A);
        // Nothing of this can be written, not even by root.
        assert!(matches!(commit(Path::new("/proc/version"), Slot::B), Err(AutobootError::Text { .. })));
        assert!(matches!(commit(&path.join("none"), Slot::B), Err(AutobootError::Io { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), A);
    }
}
