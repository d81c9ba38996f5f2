//! One update at a time, and none after a good one until the reboot.
//!
//! The lock is flock(2) on `runtime_dir/update.lock`. The fwup process inherits the descriptor, so that a
//! killed worker does not free the lock while fwup still writes; the kernel frees it when the last holder has
//! ended, and a file that nobody holds is no lock. Who writes the environment block holds it too.
//!
//! Beside it lie `update.json`, the progress of the holder, and `installed.json`, the mark that an installed
//! firmware waits for the reboot. Both mean nothing after the reboot, so none of them is synced.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

use crate::files::{self, FileError};

/// The right to write the inactive slot and the environment. Dropped, it is free, unless a child holds it too.
#[derive(Debug)]
pub struct UpdateLock {
    file: File,
    runtime_dir: PathBuf,
    holder: String,
}

/// How far an update is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Who updates, for people: `ssh 10.0.0.5`.
    pub holder: String,
    /// Bytes received.
    pub bytes: u64,
    pub percent: Option<u8>,
}

/// A firmware that is installed and waits for the reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub uuid: Option<String>,
    pub version: Option<String>,
}

impl UpdateLock {
    /// For an update: refused while another one runs, and after a good one until the reboot.
    pub fn for_update(runtime_dir: &Path, holder: &str) -> Result<Self, LockError> {
        let lock = Self::acquire(runtime_dir, holder)?;
        match installed(runtime_dir) {
            Some(installed) => Err(LockError::WaitsForReboot { installed }),
            None => Ok(lock),
        }
    }

    /// For whoever else writes the environment.
    pub fn acquire(runtime_dir: &Path, holder: &str) -> Result<Self, LockError> {
        let (mut file, has_text) = open(runtime_dir)?;
        let give_up = Instant::now() + GRACE;
        // Somebody who only asks whether there is a holder has it for an instant.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock if Instant::now() < give_up => std::thread::sleep(RETRY),
                TryLockError::WouldBlock => return Err(busy(runtime_dir, has_text.then_some(&mut file))),
                TryLockError::Error(error) => {
                    return Err(FileError::of("lock", &runtime_dir.join(LOCK))(error).into());
                }
            }
        }
        if has_text {
            let written = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
            if let Err(error) = written {
                warn!(%error, "the update lock does not name its holder");
            }
        }
        let lock = Self { file, runtime_dir: runtime_dir.into(), holder: holder.into() };
        lock.report(0, None);
        Ok(lock)
    }

    /// Frees it, whoever has inherited the descriptor: programs between fork and exec have it too, and a disk that does
    /// not answer keeps them there. For when fwup has ended.
    pub fn free(self) {
        let _ = self.file.unlock();
    }

    /// Tells everyone how far the update is. A failure costs them the news and nothing else.
    pub fn report(&self, bytes: u64, percent: Option<u8>) {
        let progress = Progress { holder: self.holder.clone(), bytes, percent };
        if let Ok(json) = serde_json::to_vec(&progress) {
            let _ = files::replace(&self.runtime_dir.join(PROGRESS), &json, 0o644);
        }
    }

    /// Marks that a firmware waits for the reboot. Call it before the lock goes.
    ///
    /// Where the mark cannot be written this process remembers it: better one refusal too many than an update
    /// into the running slot.
    pub fn set_installed(&self, installed: &Installed) {
        let mark = Mark { boot: kernel_boot_id(), installed: installed.clone() };
        let path = self.runtime_dir.join(INSTALLED);
        let written = serde_json::to_vec(&mark).map_err(|error| error.to_string());
        let written = written.and_then(|json| files::replace(&path, &json, 0o644).map_err(|e| e.to_string()));
        if let Err(error) = written {
            warn!(error, "the mark of the installed firmware is not on disk; only this process knows of it");
            if let Ok(mut unwritten) = UNWRITTEN.lock() {
                unwritten.insert(self.runtime_dir.clone(), installed.clone());
            }
        }
    }
}

impl AsFd for UpdateLock {
    /// To be inherited by fwup: it is closed on exec until the child says otherwise.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The firmware that waits for the reboot, if one does.
pub fn installed(runtime_dir: &Path) -> Option<Installed> {
    let unwritten = UNWRITTEN.lock().ok().and_then(|unwritten| unwritten.get(runtime_dir).cloned());
    unwritten.or_else(|| {
        let bytes = match files::read_limited(&runtime_dir.join(INSTALLED), MAX_JSON) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return None,
            // There is a mark, whatever it says.
            Err(_) => return Some(Installed::default()),
        };
        let mark: Mark = serde_json::from_slice(&bytes).unwrap_or_default();
        // A runtime_dir that a reboot does not empty must not refuse updates for ever.
        let this_boot = mark.boot.is_none() || mark.boot == kernel_boot_id();
        this_boot.then_some(mark.installed)
    })
}

/// The update that runs now, if one does.
pub fn running(runtime_dir: &Path) -> Option<Progress> {
    let mut file = File::open(runtime_dir.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(progress(runtime_dir, Some(&mut file))),
        _ => None,
    }
}

/// The file of the lock, and whether a name can stand in it.
///
/// Where there can be no such file (a read-only or full runtime_dir) the lock is on the nearest folder, which
/// needs no writing: two updates at once could destroy the device, and none at all could not save it.
fn open(runtime_dir: &Path) -> Result<(File, bool), LockError> {
    let made = files::make_dir(runtime_dir, 0o755);
    match made.and_then(|()| files::open_lock(&runtime_dir.join(LOCK))) {
        Ok(file) => Ok((file, true)),
        Err(error) => {
            let folder = runtime_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
            warn!(%error, folder = %folder.display(), "no file for the update lock; locking the folder");
            Ok((File::open(folder).map_err(FileError::of("open", folder))?, false))
        }
    }
}

fn busy(runtime_dir: &Path, file: Option<&mut File>) -> LockError {
    let Progress { holder, percent, .. } = progress(runtime_dir, file);
    LockError::Busy { holder, percent }
}

/// What the holder says; its name stands in the lock file, the rest may be an earlier holder's.
fn progress(runtime_dir: &Path, file: Option<&mut File>) -> Progress {
    let mut holder = String::new();
    if let Some(file) = file {
        let _ = file.seek(SeekFrom::Start(0));
        let _ = file.take(MAX_HOLDER).read_to_string(&mut holder);
    }
    let told = files::read_limited(&runtime_dir.join(PROGRESS), MAX_JSON).ok();
    let told = told.and_then(|bytes| serde_json::from_slice::<Progress>(&bytes).ok());
    match told {
        Some(progress) if holder.is_empty() || progress.holder == holder => progress,
        _ if holder.is_empty() => Progress { holder: "somebody".into(), bytes: 0, percent: None },
        _ => Progress { holder, bytes: 0, percent: None },
    }
}

/// The mark on disk, with the boot it belongs to.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    boot: Option<String>,
    #[serde(flatten)]
    installed: Installed,
}

/// The kernel's own id of this boot.
pub fn kernel_boot_id() -> Option<String> {
    let id = files::read_limited(Path::new("/proc/sys/kernel/random/boot_id"), MAX_JSON).ok()?;
    Some(String::from_utf8(id).ok()?.trim().to_owned())
}

/// Marks that could not be written, by runtime_dir.
static UNWRITTEN: Mutex<BTreeMap<PathBuf, Installed>> = Mutex::new(BTreeMap::new());

const LOCK: &str = "update.lock";
const PROGRESS: &str = "update.json";
const INSTALLED: &str = "installed.json";
const MAX_JSON: u64 = 4096;
const MAX_HOLDER: u64 = 256;
const GRACE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(5);

/// Why an update cannot begin now.
#[derive(Debug, Error)]
pub enum LockError {
    #[error("update in progress ({holder}{})", percent.map(|p| format!(", {p} %")).unwrap_or_default())]
    Busy { holder: String, percent: Option<u8> },
    #[error("firmware {installed} is installed and waits for a reboot")]
    WaitsForReboot { installed: Installed },
    #[error("no update lock: {0}")]
    File(#[from] FileError),
}

impl LockError {
    /// 75 is EX_TEMPFAIL: try again later.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Busy { .. } | Self::WaitsForReboot { .. } => 75,
            Self::File(_) => 1,
        }
    }
}

impl std::fmt::Display for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.version, &self.uuid) {
            (Some(version), Some(uuid)) => write!(f, "{version} ({uuid})"),
            (Some(name), None) | (None, Some(name)) => f.write_str(name),
            (None, None) => f.write_str("of unknown version"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_second_update_is_told_who_is_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let lock = UpdateLock::for_update(&dir, "ssh 10.0.0.5").unwrap();
        assert_eq!(running(&dir).unwrap().percent, None);
        lock.report(4200, Some(42));
        let refusal = UpdateLock::for_update(&dir, "ssh 10.0.0.6").unwrap_err();
        assert_eq!(refusal.to_string(), "update in progress (ssh 10.0.0.5, 42 %)");
        assert_eq!(refusal.exit_status(), 75);
        let progress = Progress { holder: "ssh 10.0.0.5".into(), bytes: 4200, percent: Some(42) };
        assert_eq!(running(&dir), Some(progress));
        drop(lock);
        assert_eq!(running(&dir), None);
        let lock = UpdateLock::for_update(&dir, "hub").unwrap();
        assert_eq!(running(&dir).unwrap().bytes, 0);
        drop(lock);
    }

    #[test]
    fn a_file_without_a_holder_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        files::replace(&folder.path().join(LOCK), b"a dead worker", 0o600).unwrap();
        files::replace(&folder.path().join(PROGRESS), b"{broken", 0o600).unwrap();
        assert_eq!(running(folder.path()), None);
        UpdateLock::for_update(folder.path(), "ssh").unwrap();
    }

    #[test]
    fn a_child_that_inherits_the_lock_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let lock = UpdateLock::for_update(folder.path(), "ssh").unwrap();
        let fd = lock.as_fd().as_raw_fd();
        let mut sleep = Command::new("sleep");
        sleep.arg("30");
        crate::sys::inherit(&mut sleep, fd);
        let mut child = sleep.spawn().unwrap();
        drop(lock);
        assert!(matches!(UpdateLock::acquire(folder.path(), "hub"), Err(LockError::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        UpdateLock::acquire(folder.path(), "hub").unwrap();
    }

    #[test]
    fn an_installed_firmware_refuses_updates_but_not_other_writers() {
        let folder = tempfile::tempdir().unwrap();
        let lock = UpdateLock::for_update(folder.path(), "ssh").unwrap();
        lock.set_installed(&Installed { uuid: Some("1234".into()), version: Some("2.0".into()) });
        drop(lock);
        let refusal = UpdateLock::for_update(folder.path(), "ssh").unwrap_err();
        assert_eq!(refusal.to_string(), "firmware 2.0 (1234) is installed and waits for a reboot");
        assert_eq!(refusal.exit_status(), 75);
        UpdateLock::acquire(folder.path(), "validation").unwrap();
        // A reboot empties the folder.
        std::fs::remove_file(folder.path().join(INSTALLED)).unwrap();
        UpdateLock::for_update(folder.path(), "ssh").unwrap();
    }

    #[test]
    fn a_mark_of_another_boot_is_none_and_a_broken_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join(INSTALLED);
        files::replace(&mark, br#"{"boot":"another","uuid":"1"}"#, 0o644).unwrap();
        assert_eq!(installed(folder.path()), None);
        files::replace(&mark, b"{", 0o644).unwrap();
        assert_eq!(installed(folder.path()), Some(Installed::default()));
    }

    #[test]
    fn without_a_folder_to_write_there_is_still_one_update_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        files::replace(&file, b"", 0o600).unwrap();
        // Nobody, root included, can make a folder below a file.
        let dir = file.join("run");
        let lock = UpdateLock::for_update(&dir, "ssh").unwrap();
        assert!(matches!(UpdateLock::for_update(&dir, "hub"), Err(LockError::Busy { .. })));
        lock.set_installed(&Installed::default());
        drop(lock);
        assert!(matches!(UpdateLock::for_update(&dir, "hub"), Err(LockError::WaitsForReboot { .. })));
    }
}
