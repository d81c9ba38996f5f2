//! Files that survive a power cut: temporary file, fsync, rename, fsync of the folder.
//!
//! The one place where state is written. A file written here is found with its old bytes or its new ones,
//! never with some of each. It knows nothing of what the files mean.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

/// Replaces a file: after a power cut at any moment it is the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let pending = Pending::write(path, bytes, mode)?;
    pending.file.sync_all().map_err(FileError::of("sync", &pending.temporary))?;
    pending.rename()?;
    sync_folder(path)
}

/// Replaces a file so that no reader ever sees half of it; for files that need not outlive the machine.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    Pending::write(path, bytes, mode)?.rename()
}

/// Reads a whole file, unless it is longer than `limit` bytes.
///
/// What lies there instead of a file, such as a pipe or a terminal, holds nobody up for more than [`PATIENCE`]:
/// a daemon must start whatever it finds.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(FileError::of("open", path))?;
    let mut bytes = Vec::new();
    Patient { file, until: Instant::now() + PATIENCE }
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(FileError::of("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLong { path: path.into(), limit });
    }
    Ok(bytes)
}

/// How long a pipe or a terminal may take to say what it has to say.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for what is not there yet, but not for ever.
struct Patient {
    file: File,
    until: Instant,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = self.until.saturating_duration_since(Instant::now());
                    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                    let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut ready, left)? == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                result => return result,
            }
        }
    }
}

/// Makes a folder with exactly this mode, and its parents (0755), where they are missing.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(FileError::of("make the folder", parent))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(FileError::of("set the mode of", path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(FileError::of("make the folder", path)(error)),
    }
}

/// Removes temporary files that a power cut or a kill left in a folder. Call it before anybody writes there.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_temporary(&entry.file_name()) {
            // A leftover that stays costs its space and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// An exclusive flock(2), held until dropped. The kernel frees it when its last holder dies.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock on a file (made when missing), waiting at most this long for another holder.
    pub fn wait(path: &Path, at_most: Duration) -> Result<Self, FileError> {
        let file = open_lock(path)?;
        let give_up = Instant::now() + at_most;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => return Err(FileError::Locked { path: path.into() }),
                Err(TryLockError::Error(error)) => return Err(FileError::of("lock", path)(error)),
            }
        }
    }
}

/// Opens the file of a lock, making it (0600) when missing; nothing in it is changed.
pub fn open_lock(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(FileError::of("open", path))
}

/// A temporary file with all its bytes, not yet in its place; removed when it never gets there.
struct Pending<'a> {
    path: &'a Path,
    temporary: PathBuf,
    file: File,
    renamed: bool,
}

impl<'a> Pending<'a> {
    fn write(path: &'a Path, bytes: &[u8], mode: u32) -> Result<Self, FileError> {
        let temporary = temporary_name(path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(FileError::of("make", &temporary))?;
        let mut pending = Self { path, temporary, file, renamed: false };
        let written = pending
            .file
            .set_permissions(Permissions::from_mode(mode))
            .and_then(|()| pending.file.write_all(bytes));
        written.map_err(FileError::of("write", &pending.temporary))?;
        Ok(pending)
    }

    fn rename(mut self) -> Result<(), FileError> {
        fs::rename(&self.temporary, self.path).map_err(FileError::of("replace", self.path))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// `.NAME.PID-COUNT.tmp` beside the file: rename(2) needs the same file system.
fn temporary_name(path: &Path) -> Result<PathBuf, FileError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().ok_or_else(|| FileError::NoName { path: path.into() })?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{count}{TEMPORARY_END}", std::process::id()));
    Ok(path.with_file_name(temporary))
}

fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(TEMPORARY_END.as_bytes())
}

/// Makes a rename or removal in the folder of `path` last.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems have nothing to sync about a folder and say so (fsync(2), EINVAL).
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(FileError::of("sync", folder)(error)),
        _ => Ok(()),
    }
}

const TEMPORARY_END: &str = ".myelin-tmp";
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What could not be done with which file.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is longer than {limit} bytes: not read", path = path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("{path} is locked by another process: try again when it has ended", path = path.display())]
    Locked { path: PathBuf },
    #[error("{path} is no name of a file", path = path.display())]
    NoName { path: PathBuf },
}

impl FileError {
    /// For `map_err`: completes "cannot WHAT PATH".
    pub fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }

    /// There is no such file, and none can be there (a parent is no folder).
    pub fn is_not_found(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_limited(&path, 100).unwrap(), b"", "nobody writes");
        let mut writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        writer.write_all(b"some").unwrap();
        let began = Instant::now();
        assert!(matches!(read_limited(&path, 100), Err(FileError::Io { .. })), "a writer that does not end");
        assert!(began.elapsed() < PATIENCE * 5);
    }

    #[test]
    fn a_cut_before_the_rename_leaves_the_old_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_atomic(&path, b"old", 0o600).unwrap();
        for length in 0..=8 {
            let pending = Pending::write(&path, b"new text", 0o600).unwrap();
            // What the disk may hold of a file that was never synced.
            pending.file.set_len(length).unwrap();
            std::mem::forget(pending);
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
        remove_leftovers(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomic(&path, b"new text", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new text");
    }

    #[test]
    fn readers_never_see_half_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (short, long) = (vec![b'a'; 10], vec![b'b'; 100_000]);
        replace(&path, &short, 0o644).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..100 {
                    replace(&path, &long, 0o644).unwrap();
                    replace(&path, &short, 0o644).unwrap();
                }
            });
            while !writer.is_finished() {
                let bytes = fs::read(&path).unwrap();
                assert!(bytes == short || bytes == long, "{} bytes", bytes.len());
            }
        });
    }

    #[test]
    fn the_mode_is_the_one_asked_for_and_failures_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_atomic(&path, b"x", 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        write_atomic(&path, b"x", 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);

        let taken = folder.path().join("folder");
        make_dir(&taken.join("full"), 0o700).unwrap();
        assert!(write_atomic(&taken, b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn folders_are_made_with_their_parents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/myelin");
        make_dir(&path, 0o700).unwrap();
        make_dir(&path, 0o755).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&folder.path().join("data")), 0o755);
        replace(&folder.path().join("file"), b"", 0o600).unwrap();
        assert!(make_dir(&folder.path().join("file"), 0o700).is_err());
    }

    #[test]
    fn a_second_holder_waits_and_then_gives_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::wait(&path, Duration::ZERO).unwrap();
        let second = FileLock::wait(&path, Duration::from_millis(50));
        assert!(matches!(second, Err(FileError::Locked { .. })));
        drop(held);
        FileLock::wait(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn long_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        replace(&path, &[0; 11], 0o600).unwrap();
        assert!(matches!(read_limited(&path, 10), Err(FileError::TooLong { .. })));
        assert_eq!(read_limited(&path, 11).unwrap().len(), 11);
        assert!(read_limited(&folder.path().join("none"), 1).unwrap_err().is_not_found());
    }
}
