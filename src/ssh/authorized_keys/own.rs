//! Files of keys that are another for each user: what stands in them opens that user's account and no other.
//!
//! Their user can write them, so they are opened with his rights, and as nothing but files.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use super::command::expand;
use super::{FileError, KeyList, MAX_FILE, Source};
use crate::config::{Config, check_user_name};

/// The path of a file that is the same for all; `None` if it is another for each.
pub fn common(path: &Path) -> Option<PathBuf> {
    let text = path.to_str()?;
    let has_token = text.replace("%%", "").contains('%');
    (!has_token).then(|| expand(text, &[]).into())
}

impl KeyList {
    /// The keys of the files of this user alone. Blocks, and belongs on a thread beside the work.
    pub fn of_user(config: &Config, name: &str, uid: Uid, gid: Gid, home: &OsStr) -> Self {
        let mut list = Self::default();
        // Who gives the name chooses a part of a path.
        if check_user_name(name).is_err() || name.contains('/') || matches!(name, "." | "..") {
            return list;
        }
        let (number, home) = (uid.to_string(), home.to_string_lossy());
        let values = [('u', name), ('U', number.as_str()), ('h', &*home)];
        for path in config.ssh.authorized_keys_file.iter().filter(|path| common(path).is_none()) {
            let path = PathBuf::from(expand(&path.to_string_lossy(), &values));
            if !path.is_absolute() {
                continue;
            }
            let read = {
                let _as_user = AsUser::begin(uid, gid);
                read(&path, Path::new(&*home), config.ssh.strict_modes.then_some(uid))
            };
            match read {
                Ok(content) => {
                    let content = list.whole_lines(&path, content);
                    let source = |line| Source::File { path: path.clone(), line };
                    list.add_lines(&content, config.ssh.required_rsa_size, &source);
                }
                Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => list.file_errors.push(error),
            }
        }
        list
    }
}

/// Reads a file whose owner is not trusted; with `strict` nobody but that user and root may be able to change it.
fn read(path: &Path, home: &Path, strict: Option<Uid>) -> Result<Vec<u8>, FileError> {
    let of = |source| FileError::Read { path: path.to_owned(), source };
    // A device may act when it is opened, so it is looked at first; what is opened then is what was looked at.
    let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).map_err(of)?;
    let metadata = place.metadata().map_err(of)?;
    if !metadata.is_file() {
        return Err(of(io::Error::other("not a regular file")));
    }
    let link = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    if let Some(user) = strict {
        let real = fs::read_link(&link).map_err(of)?;
        if let Some(part) = loose_part(&real, &metadata, home, user) {
            return Err(FileError::Loose { path: path.to_owned(), part });
        }
    }
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(link).map_err(of)?;
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(of)?;
    Ok(content)
}

/// The file, or the folder above it up to the home folder, that somebody else may change (`safe_path` of OpenSSH).
fn loose_part(real: &Path, file: &Metadata, home: &Path, user: Uid) -> Option<PathBuf> {
    let is_safe = |metadata: &Metadata| {
        (metadata.uid() == 0 || metadata.uid() == user.as_raw()) && metadata.mode() & 0o022 == 0
    };
    if !is_safe(file) {
        return Some(real.to_owned());
    }
    let home = home.canonicalize().ok();
    for folder in real.ancestors().skip(1) {
        if !folder.metadata().is_ok_and(|metadata| is_safe(&metadata)) {
            return Some(folder.to_owned());
        }
        if home.as_deref() == Some(folder) {
            break;
        }
    }
    None
}

/// As long as this lives, this thread opens files as that user does (setfsuid(2)). Only root can, and needs to.
struct AsUser(bool);

impl AsUser {
    fn begin(uid: Uid, gid: Gid) -> Self {
        let can = geteuid().is_root();
        if can {
            setfsgid(gid);
            setfsuid(uid);
        }
        Self(can)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        if self.0 {
            setfsuid(geteuid());
            setfsgid(getegid());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ\n";

    #[expect(clippy::disallowed_methods, reason = "the test is about reading")]
    fn write(path: &Path, mode: u32) {
        fs::write(path, KEY).unwrap();
        set_mode(path, mode);
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_chooses_its_own_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("ada"), 0o600);
        let mut config = Config::default();
        config.ssh.authorized_keys_file = vec![folder.path().join("%u"), "%h/keys".into()];
        config.ssh.strict_modes = false;
        let keys = |name: &str| {
            KeyList::of_user(&config, name, geteuid(), getegid(), OsStr::new("/nonexistent")).keys.len()
        };
        assert_eq!((keys("ada"), keys("bob"), keys("../ada"), keys("."), keys("")), (1, 0, 0, 0, 0));
        assert!(super::super::files(&config).iter().all(|path| path.ends_with("ssh/authorized_keys")));
    }

    #[test]
    fn what_others_may_change_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (home, inner) = (folder.path(), folder.path().join(".ssh"));
        fs::create_dir(&inner).unwrap();
        let file = inner.join("keys");
        write(&file, 0o600);
        let strict = || read(&file, home, Some(geteuid())).map(|content| content.len());
        assert_eq!(strict().unwrap(), KEY.len());
        for path in [&*file, &*inner, home] {
            let mode = path.metadata().unwrap().mode() & 0o777;
            set_mode(path, mode | 0o020);
            assert!(matches!(strict(), Err(FileError::Loose { part, .. }) if part == path));
            set_mode(path, mode);
        }
        assert!(read(&inner, home, None).is_err() && read(Path::new("/dev/null"), home, None).is_err());
    }
}
