//! Who may log in: the keys of the configuration and of the authorized_keys files.
//!
//! Owns reading them, fresh at each login, so that a change needs no restart. A bad line or file costs
//! that line or file and nothing else, and is named (`file:line`, never its content). Never writes.

mod certificate;
pub mod command;
mod line;
mod options;
mod own;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use russh::keys::PublicKey;
use thiserror::Error;
use tracing::warn;

use crate::config::{BootPartitionKeys, Config, Ssh};
use crate::logging::Seldom;

use line::check_size;
pub use line::{Key, LineError, key_in_line, parse_line};
pub use options::Options;
pub use options::time::Expiry;

/// How much of a file is read.
pub const MAX_FILE: u64 = 1 << 20;
/// How many lines of a file, or of an item of the configuration, are read.
pub const MAX_LINES: usize = 4096;
/// Faults of one user's own files that are named at once.
const MAX_NAMED: usize = 8;

/// The files that hold keys for all users; `myelin keys` writes the first.
pub fn files(config: &Config) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        config.ssh.authorized_keys_file.iter().filter_map(|path| own::common(path)).collect();
    if files.is_empty() {
        files.push(config.state_dir.join("ssh/authorized_keys"));
    }
    files
}

/// Whether there are others, which are another for each user.
pub fn are_personal(ssh: &Ssh) -> bool {
    ssh.authorized_keys_file.iter().any(|path| own::common(path).is_none())
}

/// One more file, which is only ever read. One that is among the others too is read once.
fn boot_partition_file(config: &Config) -> Option<PathBuf> {
    match &config.ssh.boot_partition_keys {
        BootPartitionKeys::Path(path) if !files(config).contains(path) => Some(path.clone()),
        _ => None,
    }
}

/// The files of keys that may not log in; `myelin keys` writes the first.
pub fn revoked_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    [config.state_dir.join("ssh/revoked_keys")].into_iter().chain(config.ssh.revoked_keys.iter().cloned())
}

/// Where a key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Config,
    /// What authorized_keys_command said.
    Command {
        line: usize,
    },
    File {
        path: PathBuf,
        line: usize,
    },
    /// A file on the boot partition, which whoever holds the card can write.
    BootPartition {
        path: PathBuf,
        line: usize,
    },
}

impl Source {
    /// Whether it is a file in `folder`.
    pub fn lies_in(&self, folder: &Path) -> bool {
        match self {
            Self::Config | Self::Command { .. } => false,
            Self::File { path, .. } | Self::BootPartition { path, .. } => path.starts_with(folder),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("config"),
            Self::Command { line } => write!(f, "authorized_keys_command:{line}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::BootPartition { path, line } => write!(f, "{}:{line} (boot partition)", path.display()),
        }
    }
}

/// A key that may log in, and who says so.
#[derive(Clone, Debug)]
pub struct AuthorizedKey {
    pub key: Key,
    pub source: Source,
}

/// A line that lets nobody log in.
#[derive(Clone, Debug)]
pub struct Refused {
    pub source: Source,
    pub reason: LineError,
}

/// What is wrong with a whole file.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("{path}: cannot be read: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: only the first {MAX_FILE} bytes and {MAX_LINES} lines are used", path = .path.display())]
    TooLarge { path: PathBuf },
    #[error("{path}: ignored, because others than its owner and root may write it: chmod go-w, chown root (or strict_modes = false)", path = .path.display())]
    Writable { path: PathBuf },
    #[error("{path}: others than its owner and root may write it; used all the same, because nobody could log in without: chmod go-w, chown root", path = .path.display())]
    WritableButUsed { path: PathBuf },
    #[error("{path}: ignored, because others than its user and root may change {part}: chmod go-w, chown (or strict_modes = false)", path = .path.display(), part = .part.display())]
    Loose { path: PathBuf, part: PathBuf },
    #[error("{path}:{line}: no key is found in the line, so it revokes none; a line is: TYPE BASE64 COMMENT", path = .path.display())]
    RevokesNothing { path: PathBuf, line: usize },
}

/// Everything that the configuration and the files say about keys, at one moment.
#[derive(Debug, Default)]
pub struct KeyList {
    pub keys: Vec<AuthorizedKey>,
    /// Keys that may not log in, whoever says that they may; none of them is among `keys`.
    pub revoked: Vec<AuthorizedKey>,
    pub refused: Vec<Refused>,
    pub file_errors: Vec<FileError>,
}

impl KeyList {
    /// Reads them all. A missing file is no error.
    pub fn collect(config: &Config) -> Self {
        let mut list = Self::default();
        for path in revoked_files(config) {
            // Whoever may write here can only take away.
            if let Some((content, _)) = list.read(&path) {
                list.add_revoked(&path, &content);
            }
        }
        for item in &config.ssh.authorized_keys {
            list.add_lines(item.as_bytes(), config.ssh.required_rsa_size, &|_| Source::Config);
        }
        let mut loose = Vec::new();
        let authorities = config.ssh.trusted_user_ca_keys.iter().cloned();
        for path in files(config).into_iter().chain(boot_partition_file(config)).chain(authorities) {
            let Some((content, trusted)) = list.read(&path) else { continue };
            if config.ssh.strict_modes && !trusted {
                loose.push((path, content));
                continue;
            }
            list.add_file(config, &path, &content);
        }
        let nobody = list.keys.is_empty();
        for (path, content) in loose {
            if !nobody {
                list.file_errors.push(FileError::Writable { path });
                continue;
            }
            list.add_file(config, &path, &content);
            list.file_errors.push(FileError::WritableButUsed { path });
        }
        list
    }

    /// The entry that lets the owner of this key log in from `peer` now, the first if there are several; or why
    /// none does.
    pub fn authorize(&self, key: &PublicKey, peer: IpAddr) -> Result<&AuthorizedKey, &'static str> {
        if self.is_revoked(key) {
            return Err("key is revoked");
        }
        let mut reason = "key not authorized";
        let is_it = |entry: &&AuthorizedKey| entry.key.matches(key) && !entry.key.options().is_authority();
        for entry in self.keys.iter().filter(is_it) {
            match entry.key.options().refusal(peer) {
                None => return Ok(entry),
                Some(refusal) => reason = refusal,
            }
        }
        Err(reason)
    }

    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.iter().any(|entry| entry.key.matches(key))
    }

    /// Logs the faults of files that are one user's, now and then: there are other lists, and strangers make us read them.
    pub fn warn_seldom(&self) {
        static LINES: Seldom = Seldom::new();
        let faults = self.faults();
        if !faults.is_empty() && LINES.is_due().is_some() {
            faults.iter().take(MAX_NAMED).for_each(|fault| warn!("authorized keys: {fault}"));
        }
    }

    fn faults(&self) -> BTreeSet<String> {
        let refused =
            self.refused.iter().map(|line| format!("{}: key refused: {}", line.source, line.reason));
        refused.chain(self.file_errors.iter().map(ToString::to_string)).collect()
    }

    fn add_revoked(&mut self, path: &Path, content: &[u8]) {
        for (index, line) in content.split(|byte| *byte == b'\n').take(MAX_LINES).enumerate() {
            let (path, line, text) = (path.to_owned(), index + 1, String::from_utf8_lossy(line));
            if let Some(key) = key_in_line(&text) {
                self.revoked.push(AuthorizedKey { key, source: Source::File { path, line } });
            } else if !matches!(text.trim().as_bytes().first(), None | Some(b'#')) {
                self.file_errors.push(FileError::RevokesNothing { path, line });
            }
        }
    }

    fn read(&mut self, path: &Path) -> Option<(Vec<u8>, bool)> {
        match read_regular(path, MAX_FILE + 1) {
            Ok((content, metadata)) => {
                Some((self.whole_lines(path, content), only_owner_writes(path, &metadata)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(source) => {
                self.file_errors.push(FileError::Read { path: path.to_owned(), source });
                None
            }
        }
    }

    fn whole_lines(&mut self, path: &Path, mut content: Vec<u8>) -> Vec<u8> {
        if content.len() as u64 > MAX_FILE {
            // A line that was cut is no line.
            let whole = content.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            content.truncate(whole);
            self.file_errors.push(FileError::TooLarge { path: path.to_owned() });
        }
        content
    }

    fn add_file(&mut self, config: &Config, path: &Path, content: &[u8]) {
        if content.split(|byte| *byte == b'\n').nth(MAX_LINES).is_some_and(|rest| !rest.is_empty()) {
            self.file_errors.push(FileError::TooLarge { path: path.to_owned() });
        }
        let on_boot_partition = boot_partition_file(config).as_deref() == Some(path);
        let before = self.keys.len();
        self.add_lines(content, config.ssh.required_rsa_size, &|line| match on_boot_partition {
            true => Source::BootPartition { path: path.to_owned(), line },
            false => Source::File { path: path.to_owned(), line },
        });
        if config.ssh.trusted_user_ca_keys.iter().any(|authorities| authorities == path) {
            for entry in self.keys.iter_mut().skip(before) {
                entry.key.make_authority(&config.ssh.authorized_principals);
            }
        }
    }

    fn add_lines(&mut self, content: &[u8], required_rsa_size: u32, source: &dyn Fn(usize) -> Source) {
        let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
        for (index, line) in content.split(|byte| *byte == b'\n').take(MAX_LINES).enumerate() {
            // Comments may be in any encoding; the rest of a good line is ASCII.
            let parsed = parse_line(&String::from_utf8_lossy(line)).and_then(|key| {
                key.as_ref().map_or(Ok(()), |key| key.check_size(required_rsa_size)).map(|()| key)
            });
            match parsed {
                Ok(None) => {}
                Ok(Some(key)) if self.revoked.iter().any(|entry| entry.key.same(&key)) => {}
                Ok(Some(key)) => self.keys.push(AuthorizedKey { key, source: source(index + 1) }),
                Err(reason) => self.refused.push(Refused { source: source(index + 1), reason }),
            }
        }
    }
}

/// Remembers which faults stand in the log, so that reading at each login names each of them once.
#[derive(Debug, Default)]
pub struct Reported(BTreeSet<String>);

impl Reported {
    /// Logs the faults of `list` that the list before it did not have.
    pub fn warn_new(&mut self, list: &KeyList) {
        let now = list.faults();
        for fault in now.difference(&self.0) {
            warn!("authorized keys: {fault}");
        }
        self.0 = now;
    }
}

/// Reads at most `limit` bytes of a regular file; a pipe or a device in its place is an error, not a wait.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok((content, metadata))
}

/// Whether only its owner, who is root or ourselves, can change the file. A folder in which others may
/// rename lets them put another file in its place.
fn only_owner_writes(path: &Path, file: &Metadata) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    let trusted = |metadata: &Metadata, sticky_is_fine: bool| {
        let mode = metadata.permissions().mode();
        let owner = metadata.uid();
        (owner == 0 || owner == ours) && (mode & 0o022 == 0 || (sticky_is_fine && mode & 0o1000 != 0))
    };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    trusted(file, false) && folder.metadata().is_ok_and(|metadata| trusted(&metadata, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN+Wjn4+4Fcvl2JlKpggT+wCRxpSvtqqpVrQrKN1/A22";

    fn config(file: &Path) -> Config {
        let mut config = Config::default();
        config.ssh.authorized_keys_file = vec![file.to_owned()];
        config.ssh.boot_partition_keys = BootPartitionKeys::Disabled;
        config
    }

    fn file_with(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_keys");
        write(&path, content, mode);
        (folder, path)
    }

    #[expect(clippy::disallowed_methods, reason = "the test is about reading")]
    fn write(path: &Path, content: &[u8], mode: u32) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn public(line: &str) -> PublicKey {
        PublicKey::from_openssh(line).unwrap()
    }

    #[test]
    fn one_good_key_works_among_bad_lines_and_each_bad_line_is_named() {
        let content = format!(
            "\u{feff}# comment\r\n\r\ngarbage\r\nssh-ed25519 AAAA!\r\nssh-dss AAAAB3NzaC1kc3MAAACB\r\n\
             frobnicate {OTHER}\r\nssh-ed25519 AAAA\r\n{KEY} me"
        );
        let (_folder, path) = file_with(content.as_bytes(), 0o600);
        let list = KeyList::collect(&config(&path));
        let found = list.authorize(&public(KEY), HERE).unwrap();
        assert_eq!(found.source, Source::File { path: path.clone(), line: 8 });
        assert_eq!(found.source.to_string(), format!("{}:8", path.display()));
        assert!(list.authorize(&public(OTHER), HERE).is_err());
        assert_eq!(list.refused.len(), 5);
    }

    #[test]
    fn the_boot_partition_gives_keys_until_the_image_switches_that_off() {
        let (_folder, path) = file_with(KEY.as_bytes(), 0o600);
        let (_boot, boot_path) = file_with(format!("{OTHER}\r\n").as_bytes(), 0o755);
        let mut config = config(&path);
        config.ssh.boot_partition_keys = BootPartitionKeys::Path(boot_path.clone());
        let list = KeyList::collect(&config);
        let found = list.authorize(&public(OTHER), HERE).unwrap();
        assert_eq!(found.source.to_string(), format!("{}:1 (boot partition)", boot_path.display()));
        config.ssh.boot_partition_keys = BootPartitionKeys::Disabled;
        assert!(KeyList::collect(&config).authorize(&public(OTHER), HERE).is_err());
    }

    #[test]
    fn a_revoked_key_is_none_wherever_it_stands() {
        let (_folder, path) = file_with(format!("{KEY}\n{OTHER}\n").as_bytes(), 0o600);
        let (_deny, deny) = file_with(format!("# out\nrubbish\n{KEY} me\n").as_bytes(), 0o644);
        let mut config = config(&path);
        config.ssh.authorized_keys = vec![KEY.into()];
        config.ssh.revoked_keys = vec![deny.clone(), "/nonexistent/revoked".into()];
        let list = KeyList::collect(&config);
        assert_eq!(list.authorize(&public(KEY), HERE).unwrap_err(), "key is revoked");
        assert!(list.authorize(&public(OTHER), HERE).is_ok());
        assert_eq!((list.keys.len(), list.revoked.len()), (1, 1));
        assert!(
            matches!(&list.file_errors[..], [FileError::RevokesNothing { line: 2, path }] if *path == deny)
        );
    }

    #[test]
    fn a_comment_in_latin_1_does_not_hide_its_key() {
        let mut content = format!("{KEY} Andr").into_bytes();
        content.push(0xe9);
        let (_folder, path) = file_with(&content, 0o600);
        assert!(KeyList::collect(&config(&path)).authorize(&public(KEY), HERE).is_ok());
    }

    #[test]
    fn items_of_the_configuration_hold_several_lines() {
        let mut config = config(Path::new("/nonexistent/authorized_keys"));
        config.ssh.authorized_keys = vec![format!("# two\n{KEY}\n{OTHER}\n"), "rubbish".into()];
        let list = KeyList::collect(&config);
        assert_eq!(list.authorize(&public(OTHER), HERE).unwrap().source, Source::Config);
        assert_eq!((list.keys.len(), list.refused.len(), list.file_errors.len()), (2, 1, 0));
    }

    #[test]
    fn a_file_that_others_may_write_is_ignored_unless_nobody_could_log_in() {
        let (_folder, path) = file_with(KEY.as_bytes(), 0o666);
        let mut config = config(&path);
        let list = KeyList::collect(&config);
        assert!(list.authorize(&public(KEY), HERE).is_ok());
        assert!(matches!(list.file_errors[..], [FileError::WritableButUsed { .. }]));

        config.ssh.authorized_keys = vec![OTHER.into()];
        let list = KeyList::collect(&config);
        assert!(list.authorize(&public(KEY), HERE).is_err());
        assert!(matches!(list.file_errors[..], [FileError::Writable { .. }]));

        config.ssh.strict_modes = false;
        assert!(KeyList::collect(&config).authorize(&public(KEY), HERE).is_ok());
    }

    #[test]
    fn a_folder_or_a_pipe_in_place_of_the_file_is_named_and_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let mut config = config(&pipe);
        config.ssh.authorized_keys_file.push(folder.path().to_owned());
        let list = KeyList::collect(&config);
        assert!(matches!(list.file_errors[..], [FileError::Read { .. }, FileError::Read { .. }]));
    }

    #[test]
    fn what_lies_beyond_the_limits_is_not_read() {
        let (_folder, path) = file_with(format!("{}{KEY}\n", "\n".repeat(MAX_LINES)).as_bytes(), 0o600);
        let list = KeyList::collect(&config(&path));
        assert!(list.keys.is_empty());
        assert!(matches!(list.file_errors[..], [FileError::TooLarge { .. }]));

        let long = format!("{KEY}\n{}", "x".repeat(MAX_FILE as usize));
        let (_folder, path) = file_with(long.as_bytes(), 0o600);
        let list = KeyList::collect(&config(&path));
        assert_eq!((list.keys.len(), list.refused.len()), (1, 0));
        assert!(matches!(list.file_errors[..], [FileError::TooLarge { .. }]));
    }

    #[test]
    fn a_short_rsa_key_is_refused_by_the_configured_size() {
        let rsa = include_str!("../../tests/data/rsa1024.pub");
        let mut config = config(Path::new("/nonexistent"));
        config.ssh.authorized_keys = vec![rsa.into()];
        let list = KeyList::collect(&config);
        assert!(matches!(list.refused[0].reason, LineError::RsaTooSmall { bits: 1024, required: 2048 }));
        config.ssh.required_rsa_size = 1024;
        assert!(KeyList::collect(&config).authorize(&public(rsa), HERE).is_ok());
    }

    #[test]
    fn a_fault_is_reported_once_and_again_after_it_was_mended() {
        let (_folder, path) = file_with(b"garbage", 0o600);
        let mut reported = Reported::default();
        reported.warn_new(&KeyList::collect(&config(&path)));
        assert_eq!(reported.0.len(), 1);
        write(&path, KEY.as_bytes(), 0o600);
        reported.warn_new(&KeyList::collect(&config(&path)));
        assert!(reported.0.is_empty());
    }
}
