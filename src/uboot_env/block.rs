//! Reads and changes an environment on a block device or in a file.
//!
//! Of two copies only the one not in use is written, and what was written is read back from the device: after
//! a power cut at any byte one of them is whole. A single copy is written at once, as U-Boot itself does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use thiserror::Error;

use super::codec::{self, CodecError, Copy, Environment, Layout};
use super::location::{self, Location, LocationError, Locations};

/// An environment on a device.
#[derive(Clone, Debug)]
pub struct Block {
    locations: Locations,
}

/// Where the bytes of a change go.
struct Target<'a> {
    location: &'a Location,
    layout: Layout,
    flags: u8,
}

impl Block {
    /// As a fw_env.config says.
    pub fn from_config(path: &Path) -> Result<Self, BlockError> {
        Ok(Self { locations: location::read(path)? })
    }

    pub fn read(&self) -> Result<Environment, BlockError> {
        self.read_for_update().map(|(environment, _)| environment)
    }

    /// Changes variables and writes them, if anything is different then. The caller holds the update lock.
    pub fn update(
        &self,
        change: impl FnOnce(&mut Environment) -> Result<(), CodecError>,
    ) -> Result<(), BlockError> {
        let (mut environment, target) = self.read_for_update()?;
        let before = environment.clone();
        let path = &target.location.path;
        change(&mut environment).map_err(|source| BlockError::Encode { path: path.clone(), source })?;
        if environment == before {
            return Ok(());
        }
        let bytes = codec::encode(&environment, target.layout, target.location.size, target.flags)
            .map_err(|source| BlockError::Encode { path: path.clone(), source })?;
        write_block(target.location, &bytes)
    }

    /// Writes what counts to the copy that does not, unless it says the same already: then either may be lost.
    /// The caller holds the update lock.
    pub fn settle(&self) -> Result<(), BlockError> {
        let Locations::Redundant(..) = &self.locations else { return Ok(()) };
        let (environment, target) = self.read_for_update()?;
        let other = codec::decode(&read_block(target.location).unwrap_or_default(), Layout::Redundant);
        if other.is_ok_and(|(other, _)| other == environment) {
            return Ok(());
        }
        let path = &target.location.path;
        let bytes = codec::encode(&environment, target.layout, target.location.size, target.flags)
            .map_err(|source| BlockError::Encode { path: path.clone(), source })?;
        write_block(target.location, &bytes)
    }

    /// The environment, and where its next version goes.
    fn read_for_update(&self) -> Result<(Environment, Target<'_>), BlockError> {
        match &self.locations {
            Locations::Single(location) => {
                let environment = read_single(location)?;
                Ok((environment, Target { location, layout: Layout::Single, flags: 0 }))
            }
            Locations::Redundant(first, second) => {
                // One copy that cannot even be read (a failing card) must not cost the other.
                let (one, two) = match (read_block(first), read_block(second)) {
                    (Err(error), Err(_)) => return Err(error),
                    (one, two) => (one.unwrap_or_default(), two.unwrap_or_default()),
                };
                let current = codec::current_copy(&one, &two)
                    .map_err(|source| BlockError::Decode { path: first.path.clone(), source })?;
                let (copy, flags) = current.next();
                let location = match copy {
                    Copy::First => first,
                    Copy::Second => second,
                };
                Ok((current.environment, Target { location, layout: Layout::Redundant, flags }))
            }
        }
    }
}

/// A reader may meet a writer in the middle of a single copy: what is wrong is read again.
fn read_single(location: &Location) -> Result<Environment, BlockError> {
    let mut tries = 1;
    loop {
        match codec::decode(&read_block(location)?, Layout::Single) {
            Ok((environment, _)) => return Ok(environment),
            Err(CodecError::Checksum) if tries < READ_TRIES => {
                tries += 1;
                std::thread::sleep(READ_PAUSE);
            }
            Err(source) => return Err(BlockError::Decode { path: location.path.clone(), source }),
        }
    }
}

fn read_block(location: &Location) -> Result<Vec<u8>, BlockError> {
    let file = File::open(&location.path).map_err(BlockError::of("open", &location.path))?;
    read_from(&file, location)
}

fn read_from(file: &File, location: &Location) -> Result<Vec<u8>, BlockError> {
    let failed = |error| BlockError::of("read", &location.path)(error);
    let offset = start(file, location).map_err(failed)?;
    let mut bytes = vec![0; location.size];
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(bytes)
}

/// Writes, waits for the device, and compares what the device then says.
fn write_block(location: &Location, bytes: &[u8]) -> Result<(), BlockError> {
    let path = &location.path;
    let failed = |error| BlockError::of("write", path)(error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .map_err(BlockError::of("open for writing", path))?;
    if file.metadata().map_err(failed)?.file_type().is_char_device() {
        // Raw flash must be erased first.
        return Err(BlockError::Flash { path: path.clone() });
    }
    let offset = start(&file, location).map_err(failed)?;
    file.write_all_at(bytes, offset).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    // Else the comparison would only see the page cache. Where that is not possible it still sees that.
    let (at, length) = (offset.try_into().unwrap_or(0), bytes.len().try_into().unwrap_or(0));
    let _ = posix_fadvise(&file, at, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    if read_from(&file, location)? != bytes {
        return Err(BlockError::ReadBack { path: path.clone(), offset });
    }
    Ok(())
}

/// The offset from the beginning; the size of a block device is where its end can be sought.
fn start(mut file: &File, location: &Location) -> io::Result<u64> {
    if let Ok(offset) = u64::try_from(location.offset) {
        return Ok(offset);
    }
    let end = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    end.checked_add_signed(location.offset)
        .ok_or_else(|| io::Error::other("the offset lies before the beginning of the device"))
}

const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Error)]
pub enum BlockError {
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error("cannot {what} the boot environment on {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the boot environment on {path} cannot be used: {source}; write it with fwup's `complete` task \
             or with fw_setenv", path = path.display())]
    Decode { path: PathBuf, source: CodecError },
    #[error("the boot environment on {path} cannot take the change: {source}", path = path.display())]
    Encode { path: PathBuf, source: CodecError },
    #[error("{path} gave back other bytes than were written at {offset:#x}: the card is failing, replace it; \
             what was in force before still is, if the environment has two copies", path = path.display())]
    ReadBack { path: PathBuf, offset: u64 },
    #[error("{path} is raw flash, which only fw_setenv can write: nothing was changed", path = path.display())]
    Flash { path: PathBuf },
}

impl BlockError {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    const SIZE: usize = 0x400;

    struct Disk {
        _folder: tempfile::TempDir,
        path: PathBuf,
        block: Block,
    }

    /// A disk image with one environment in each copy, `old` in the first and `now` in the second.
    fn disk(copies: usize) -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let mut bytes = vec![0xAA; 0x4000];
        let layout = if copies == 1 { Layout::Single } else { Layout::Redundant };
        let mut config = String::new();
        for copy in 0..copies {
            let mut environment = Environment::default();
            environment.set("value", if copy + 1 == copies { "now" } else { "old" }).unwrap();
            let block = codec::encode(&environment, layout, SIZE, 255_u8.wrapping_add(copy as u8)).unwrap();
            let offset = 0x1000 * (copy + 1);
            bytes[offset..offset + SIZE].copy_from_slice(&block);
            config += &format!("{} {offset:#x} {SIZE:#x}\n", path.display());
        }
        files::replace(&path, &bytes, 0o600).unwrap();
        let config_path = folder.path().join("fw_env.config");
        files::replace(&config_path, config.as_bytes(), 0o600).unwrap();
        Disk { block: Block::from_config(&config_path).unwrap(), _folder: folder, path }
    }

    impl Disk {
        fn value(&self) -> String {
            self.block.read().unwrap().get("value").unwrap().to_owned()
        }

        fn set(&self, value: &str) -> Result<(), BlockError> {
            self.block.update(|environment| environment.set("value", value))
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(&self.path).unwrap()
        }

        fn put(&self, bytes: &[u8]) {
            files::replace(&self.path, bytes, 0o600).unwrap();
        }
    }

    fn copy_of(bytes: &[u8], copy: usize) -> &[u8] {
        &bytes[0x1000 * copy..][..SIZE]
    }

    #[test]
    fn a_change_goes_to_the_copy_not_in_use_and_to_no_other_byte() {
        let disk = disk(2);
        let before = disk.bytes();
        assert_eq!(disk.value(), "now");
        disk.set("new").unwrap();
        let after = disk.bytes();
        assert_eq!(disk.value(), "new");
        assert_eq!(copy_of(&after, 2), copy_of(&before, 2));
        assert_eq!((after.len(), &after[..0x1000]), (before.len(), &before[..0x1000]));
        disk.set("newer").unwrap();
        assert_eq!(copy_of(&disk.bytes(), 1), copy_of(&after, 1));
        assert_eq!(disk.value(), "newer");
    }

    #[test]
    fn a_power_cut_at_any_byte_of_a_change_leaves_the_old_value_or_the_new_one() {
        let disk = disk(2);
        let before = disk.bytes();
        disk.set("new").unwrap();
        let after = disk.bytes();
        for cut in 0..=SIZE {
            let mut torn = before.clone();
            torn[0x1000..0x1000 + cut].copy_from_slice(&after[0x1000..0x1000 + cut]);
            disk.put(&torn);
            let value = disk.value();
            assert!(value == if torn == after { "new" } else { "now" }, "{value} after {cut} bytes");
        }
    }

    #[test]
    fn any_single_copy_may_be_damaged() {
        let disk = disk(2);
        let whole = disk.bytes();
        for (copy, value) in [(1, "now"), (2, "old")] {
            let mut damaged = whole.clone();
            damaged[0x1000 * copy + 100] ^= 1;
            disk.put(&damaged);
            assert_eq!(disk.value(), value);
            // The damaged copy is the one that is written next.
            disk.set("mended").unwrap();
            let mended = disk.bytes();
            assert_eq!(copy_of(&mended, 3 - copy), copy_of(&whole, 3 - copy));
            assert_eq!(disk.value(), "mended");
        }
    }

    #[test]
    fn settled_either_copy_may_be_lost_and_a_cut_on_the_way_loses_nothing() {
        let disk = disk(2);
        disk.set("new").unwrap();
        let (before, first) = (disk.bytes(), copy_of(&disk.bytes(), 1).to_vec());
        disk.block.settle().unwrap();
        let after = disk.bytes();
        assert_eq!(copy_of(&after, 1), first);
        for copy in [1, 2] {
            let mut damaged = after.clone();
            damaged[0x1000 * copy + 100] ^= 1;
            disk.put(&damaged);
            assert_eq!(disk.value(), "new");
        }
        for cut in 0..=SIZE {
            let mut torn = before.clone();
            torn[0x2000..0x2000 + cut].copy_from_slice(&after[0x2000..0x2000 + cut]);
            disk.put(&torn);
            assert_eq!(disk.value(), "new");
        }
        disk.put(&after);
        disk.block.settle().unwrap();
        assert_eq!(disk.bytes(), after);
        // A damaged copy is mended.
        let mut damaged = after.clone();
        damaged[0x1000 + 100] ^= 1;
        disk.put(&damaged);
        disk.block.settle().unwrap();
        let mut damaged = disk.bytes();
        damaged[0x2000 + 100] ^= 1;
        disk.put(&damaged);
        assert_eq!(disk.value(), "new");
    }

    #[test]
    fn a_disk_that_ends_before_the_second_copy_still_gives_the_first() {
        let disk = disk(2);
        let bytes = disk.bytes();
        disk.put(&bytes[..0x2000]);
        assert_eq!(disk.value(), "old");
    }

    #[test]
    fn a_single_copy_is_written_in_place() {
        let disk = disk(1);
        assert_eq!(disk.value(), "now");
        disk.set("new").unwrap();
        assert_eq!(disk.value(), "new");
        disk.put(&vec![0; 0x4000]);
        assert!(matches!(disk.block.read(), Err(BlockError::Decode { .. })));
        assert!(disk.set("x").is_err());
        assert_eq!(disk.bytes(), vec![0; 0x4000]);
    }

    #[test]
    fn nothing_is_written_when_nothing_changes_or_it_does_not_fit() {
        let disk = disk(2);
        let before = disk.bytes();
        disk.set("now").unwrap();
        assert!(matches!(disk.set(&"x".repeat(SIZE)), Err(BlockError::Encode { .. })));
        assert_eq!(disk.bytes(), before);
    }

    #[test]
    fn offsets_may_count_from_the_end() {
        let disk = disk(1);
        let location = Location { path: disk.path.clone(), offset: 0x1000 - 0x4000, size: SIZE };
        let block = Block { locations: Locations::Single(location) };
        assert_eq!(block.read().unwrap().get("value"), Some("now"));
    }
}
