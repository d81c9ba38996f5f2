//! Files that commands write and logins read: what was added since the boot. They are in runtime_dir, outlive the
//! worker and not the reboot; users that are to stay are in such a file in state_dir.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use crate::config::Config;
use crate::files::{self, FileError, FileLock};

/// How much of such a file is read.
const MAX_FILE: u64 = 64 << 10;
/// How long another command may take.
const LOCK_WAIT: Duration = Duration::from_secs(10);

pub fn path(config: &Config, name: &str) -> PathBuf {
    config.runtime_dir.join(name)
}

/// What is in it; `None` when nothing was added yet.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match files::read_limited(path, MAX_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces its content by what `edit` makes of it, locked against other commands.
pub fn change(
    config: &Config,
    path: &Path,
    edit: impl FnOnce(Option<Vec<u8>>) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    match path.parent() {
        Some(folder) if !path.starts_with(&config.runtime_dir) => files::make_dir(folder, 0o700)?,
        _ => files::make_dir(&config.runtime_dir, 0o755)?,
    }
    let _lock = FileLock::wait(&path.with_extension("lock"), LOCK_WAIT)?;
    let content = edit(read(path)?)?;
    if content.len() as u64 > MAX_FILE {
        bail!("{} would become too large: remove something first", path.display());
    }
    Ok(files::write_atomic(path, &content, 0o600)?)
}
