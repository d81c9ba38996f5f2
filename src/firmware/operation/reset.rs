//! The factory reset of an image without an operations archive: Myelin forgets what is its own on /data.
//! What other programs keep there is theirs; an archive's task, which knows the disk, does away with it too.

use std::path::Path;

use crate::config::Config;
use crate::files::{self, FileError};

/// Empties the state folder: host keys, keys added at run time, the device's own configuration.
pub fn run(config: &Config) -> Result<(), FileError> {
    empty(&config.state_dir)
}

/// A cut leaves some of it, and the next reset takes the rest.
fn empty(folder: &Path) -> Result<(), FileError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(FileError::of("read the folder", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(FileError::of("read the folder", folder))?.path();
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(FileError::of("remove", &path))?;
    }
    files::sync_folder(&folder.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_ours_is_left_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (data, other) = (folder.path().join("myelin"), folder.path().join("application"));
        files::make_dir(&data.join("ssh"), 0o700).unwrap();
        files::replace(&data.join("ssh/authorized_keys"), b"key", 0o600).unwrap();
        files::replace(&data.join("config.toml"), b"", 0o600).unwrap();
        files::replace(&other, b"precious", 0o600).unwrap();
        std::os::unix::fs::symlink(&other, data.join("link")).unwrap();
        let config = Config { state_dir: data.clone(), ..Config::default() };
        run(&config).unwrap();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        run(&Config { state_dir: data.join("none"), ..config }).unwrap();
    }
}
