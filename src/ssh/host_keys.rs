//! The daemon's own keys: read, checked, made when missing, replaced when damaged, kept whatever happens.
//!
//! Owns the files `ssh_host_*_key` of one folder. Whatever is wrong with the folder (missing, read-only,
//! full, no folder at all) there is a key afterwards, in runtime_dir or in memory, and a warning that says
//! what to mend. Never deletes a key: a damaged one is moved aside.

mod certificate;
pub(super) mod key_file;

use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use russh::keys::{Certificate, HashAlg, PrivateKey};
use zeroize::Zeroizing;

use self::key_file::{KeyFileError, encode, encode_public, kind_of};
use super::authorized_keys::read_regular;
use crate::config::{Config, HostKeyType};
use crate::files;

pub use self::key_file::{GenerateError, generate};

/// No host key file is larger.
const MAX_FILE: u64 = 64 * 1024;

/// Where NervesSSH keeps its keys; a device that comes from there keeps its identity.
const NERVES_FOLDER: &str = "/data/nerves_ssh";

const ALL_TYPES: [HostKeyType; 3] = [HostKeyType::Ed25519, HostKeyType::Ecdsa, HostKeyType::Rsa];

/// The keys to serve, what the administrator should know, and what is still to be made.
pub struct HostKeys {
    /// One key an algorithm.
    pub keys: Vec<PrivateKey>,
    /// Of some of the keys.
    pub certificates: Vec<Certificate>,
    pub warnings: Vec<String>,
    /// Listed types that take long to make: call [`make`] in the background.
    pub pending: Vec<HostKeyType>,
}

impl HostKeys {
    /// `TYPE SHA256:…` of each key, for the log and `myelin status`.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(fingerprint).collect()
    }

    fn has(&self, kind: HostKeyType) -> bool {
        self.keys.iter().any(|key| kind_of(key) == Ok(kind))
    }

    /// The first key of an algorithm is the one that is served.
    fn add(&mut self, key: PrivateKey) {
        if self.keys.iter().all(|known| known.algorithm() != key.algorithm()) {
            self.keys.push(key);
        }
    }
}

/// Shows fingerprints only.
impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKeys")
            .field("keys", &self.fingerprints())
            .field("warnings", &self.warnings)
            .field("pending", &self.pending)
            .finish()
    }
}

/// `TYPE SHA256:…`
pub fn fingerprint(key: &PrivateKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Reads every host key and makes the quick ones that are missing.
pub fn load(config: &Config) -> HostKeys {
    load_with(config, Path::new(NERVES_FOLDER))
}

/// Makes a key of this type, and keeps it where the next [`load`] finds it.
pub fn make(config: &Config, kind: HostKeyType) -> Result<(PrivateKey, Vec<String>), GenerateError> {
    let key = generate(kind, &comment())?;
    let warnings = Folders::of(config).keep(kind, &key).into_iter().collect();
    Ok((key, warnings))
}

fn load_with(config: &Config, nerves: &Path) -> HostKeys {
    let folders = Folders::of(config);
    let mut found =
        HostKeys { keys: Vec::new(), certificates: Vec::new(), warnings: Vec::new(), pending: Vec::new() };
    for path in &config.ssh.host_key {
        match read_key(path) {
            Ok(key) => found.add(key),
            Err(error) => {
                found.warnings.push(format!("{}: host key not used: it {error}", path.display()));
            }
        }
    }
    let mut own = Vec::new();
    for kind in ALL_TYPES {
        own.extend(folders.find(kind, &mut found.warnings));
    }
    if own.is_empty() {
        own = folders.adopt(nerves, &mut found.warnings);
    }
    own.into_iter().for_each(|key| found.add(key));
    make_missing(config, &mut found);
    for path in &config.ssh.host_certificate {
        match certificate::read(path, &found.keys) {
            Ok(certificate) => found.certificates.push(certificate),
            Err(reason) => {
                found.warnings.push(format!("{}: host certificate not used: {reason}", path.display()));
            }
        }
    }
    found
}

fn make_missing(config: &Config, found: &mut HostKeys) {
    for &kind in &config.ssh.host_key_types {
        if found.has(kind) || found.pending.contains(&kind) {
            continue;
        }
        if kind == HostKeyType::Ed25519 {
            make_now(config, kind, found);
        } else {
            found.pending.push(kind);
        }
    }
    // Without any key nobody gets in, so then even the slow kind is worth the wait.
    if found.keys.is_empty() {
        let kind = found.pending.pop().unwrap_or(HostKeyType::Ed25519);
        make_now(config, kind, found);
    }
}

fn make_now(config: &Config, kind: HostKeyType, found: &mut HostKeys) {
    match make(config, kind) {
        Ok((key, warnings)) => {
            found.add(key);
            found.warnings.extend(warnings);
        }
        Err(error) => found.warnings.push(error.to_string()),
    }
}

/// Where our keys lie, and where they go as long as that place cannot be written.
struct Folders {
    state: PathBuf,
    runtime: PathBuf,
}

impl Folders {
    fn of(config: &Config) -> Self {
        let state = config.ssh.host_key_dir.clone().unwrap_or_else(|| config.state_dir.join("ssh"));
        Self { state, runtime: config.runtime_dir.join("ssh") }
    }

    fn find(&self, kind: HostKeyType, warnings: &mut Vec<String>) -> Option<PrivateKey> {
        let path = self.state.join(file_name(kind));
        match read_own(&path, kind) {
            Ok(key) => {
                warnings.extend(restrict(&path));
                return Some(key);
            }
            Err(ReadError::Missing) => {}
            Err(ReadError::Io(error)) => {
                warnings.push(format!("{}: host key not used: it cannot be read: {error}", path.display()));
            }
            Err(ReadError::Bad(error)) => warnings.push(set_aside(&path, &error)),
        }
        let key = read_own(&self.runtime.join(file_name(kind)), kind).ok()?;
        warnings.extend(self.keep(kind, &key));
        Some(key)
    }

    /// Copies the keys of NervesSSH, so that clients see no changed key after a migration.
    fn adopt(&self, nerves: &Path, warnings: &mut Vec<String>) -> Vec<PrivateKey> {
        if nerves == self.state {
            return Vec::new();
        }
        let mut keys = Vec::new();
        for kind in ALL_TYPES {
            if let Ok(key) = read_own(&nerves.join(file_name(kind)), kind) {
                warnings.extend(self.keep(kind, &key));
                keys.push(key);
            }
        }
        keys
    }

    /// Writes the key, to runtime_dir if it must be. The warning says how long it lasts.
    fn keep(&self, kind: HostKeyType, key: &PrivateKey) -> Option<String> {
        let error = store(&self.state, kind, key).err()?;
        let lasts = match store(&self.runtime, kind, key) {
            Ok(()) => "until the reboot",
            Err(_) => "until the daemon ends",
        };
        Some(format!(
            "{}: the host key cannot be kept there ({error}); {} is used {lasts}, then clients see another \
             key: make the folder writable",
            self.state.join(file_name(kind)).display(),
            fingerprint(key),
        ))
    }
}

fn file_name(kind: HostKeyType) -> &'static str {
    match kind {
        HostKeyType::Ed25519 => "ssh_host_ed25519_key",
        HostKeyType::Rsa => "ssh_host_rsa_key",
        HostKeyType::Ecdsa => "ssh_host_ecdsa_key",
    }
}

/// The comment of keys that are made.
fn comment() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    format!("myelin@{}", name.to_string_lossy())
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("is missing")]
    Missing,
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error(transparent)]
    Bad(#[from] KeyFileError),
}

fn read_key(path: &Path) -> Result<PrivateKey, ReadError> {
    if path.is_dir() {
        return Err(KeyFileError::Unreadable.into());
    }
    let (content, _) = read_regular(path, MAX_FILE + 1).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Missing,
        _ => ReadError::Io(error),
    })?;
    let content = Zeroizing::new(content);
    if content.len() as u64 > MAX_FILE {
        return Err(KeyFileError::TooLarge.into());
    }
    Ok(key_file::decode(&content)?)
}

fn read_own(path: &Path, kind: HostKeyType) -> Result<PrivateKey, ReadError> {
    let key = read_key(path)?;
    if kind_of(&key)? != kind {
        return Err(KeyFileError::OtherType(key.algorithm().to_string()).into());
    }
    Ok(key)
}

/// Moves a damaged file away, so that someone can look at it, and its name is free.
fn set_aside(path: &Path, error: &KeyFileError) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".corrupt");
    let place = match std::fs::rename(path, &aside) {
        Ok(()) => format!("moved to {}", Path::new(&aside).display()),
        Err(cause) => format!("it cannot be moved away: {cause}"),
    };
    format!("{}: host key not used: it {error}; {place}; clients may see another key", path.display())
}

/// Takes a private key away from other users of the device.
fn restrict(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    let ours = nix::unistd::geteuid();
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 && metadata.uid() == ours.as_raw() {
        return None;
    }
    let mended = std::os::unix::fs::chown(path, Some(ours.as_raw()), None)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)));
    let outcome = match mended {
        Ok(()) => {
            "it is ours and 0600 now; if others may have read it, delete it to get a new one".to_owned()
        }
        Err(error) => format!("it is used all the same, for that cannot be changed: {error}"),
    };
    Some(format!(
        "{}: the host key belonged to user {} and had mode {mode:o}; {outcome}",
        path.display(),
        metadata.uid()
    ))
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("a file is in the way")]
    InTheWay,
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Encode(#[from] russh::keys::ssh_key::Error),
}

fn store(folder: &Path, kind: HostKeyType, key: &PrivateKey) -> Result<(), StoreError> {
    files::make_dir(folder, 0o700)?;
    let path = folder.join(file_name(kind));
    if path.symlink_metadata().is_ok() {
        // A key that cannot be read now may be readable after a repair.
        return Err(StoreError::InTheWay);
    }
    let private = encode(key)?;
    files::write_atomic(&path, private.as_bytes(), 0o600)?;
    // Only a convenience for whoever collects known_hosts lines.
    if let Ok(public) = encode_public(key) {
        let _ = files::write_atomic(&path.with_extension("pub"), public.as_bytes(), 0o644);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Device {
        folder: tempfile::TempDir,
        config: Config,
    }

    impl Device {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = Config {
                state_dir: folder.path().join("state"),
                runtime_dir: folder.path().join("run"),
                ..Config::default()
            };
            Self { folder, config }
        }

        fn key_path(&self) -> PathBuf {
            self.config.state_dir.join("ssh/ssh_host_ed25519_key")
        }

        fn load(&self) -> HostKeys {
            load_with(&self.config, &self.folder.path().join("nerves"))
        }

        #[expect(clippy::disallowed_methods, reason = "the test stands in for a failing card")]
        fn put(&self, path: &Path, content: &[u8]) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }

    fn sample(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/hostkeys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_an_ed25519_key_and_the_second_keeps_it() {
        let device = Device::new();
        let first = device.load();
        assert_eq!((first.warnings.len(), first.pending.len()), (0, 0));
        assert_eq!(mode(&device.key_path()), 0o600);
        assert_eq!(mode(&device.config.state_dir.join("ssh")), 0o700);
        assert!(device.key_path().with_extension("pub").exists());
        let second = device.load();
        assert_eq!(first.fingerprints(), second.fingerprints());
        assert!(second.warnings.is_empty());
        assert!(first.fingerprints()[0].starts_with("ssh-ed25519 SHA256:"));
    }

    #[test]
    fn a_damaged_key_is_moved_aside_and_made_anew() {
        let rsa = sample("pkcs1-rsa");
        for content in
            [&b""[..], &[0xa5; 300], b"-----BEGIN OPENSSH PRIVATE KEY-----\n", &rsa, &[b'x'; 70_000]]
        {
            let device = Device::new();
            device.put(&device.key_path(), content);
            let keys = device.load();
            assert_eq!((keys.keys.len(), keys.warnings.len()), (1, 1), "{keys:?}");
            let aside = device.key_path().with_extension("corrupt");
            assert_eq!(std::fs::read(aside).unwrap(), content);
            assert_eq!(device.load().fingerprints(), keys.fingerprints());
        }
    }

    #[test]
    fn a_folder_in_place_of_the_key_is_moved_aside() {
        let device = Device::new();
        std::fs::create_dir_all(device.key_path()).unwrap();
        let keys = device.load();
        assert_eq!((keys.keys.len(), keys.warnings.len()), (1, 1), "{keys:?}");
        assert!(device.key_path().is_file());
    }

    #[test]
    fn a_folder_that_cannot_be_made_leaves_the_key_in_runtime_dir() {
        let device = Device::new();
        device.put(&device.config.state_dir, b"a file, not a folder");
        let first = device.load();
        assert_eq!((first.keys.len(), first.warnings.len()), (1, 1), "{first:?}");
        assert!(first.warnings[0].contains("until the reboot"), "{first:?}");
        // A worker that starts again serves the same key.
        assert_eq!(device.load().fingerprints(), first.fingerprints());
        // And it is kept for good as soon as that works.
        std::fs::remove_file(&device.config.state_dir).unwrap();
        assert_eq!(device.load().fingerprints(), first.fingerprints());
        assert!(device.key_path().is_file());
    }

    #[test]
    fn without_any_folder_the_key_lives_in_memory() {
        let device = Device::new();
        device.put(&device.config.state_dir, b"");
        device.put(&device.config.runtime_dir, b"");
        let keys = device.load();
        assert_eq!((keys.keys.len(), keys.warnings.len()), (1, 1));
        assert!(keys.warnings[0].contains("until the daemon ends"), "{keys:?}");
    }

    #[test]
    fn a_key_that_others_may_read_is_taken_back_and_used() {
        let device = Device::new();
        let before = device.load().fingerprints();
        std::fs::set_permissions(device.key_path(), PermissionsExt::from_mode(0o644)).unwrap();
        let keys = device.load();
        assert_eq!((keys.fingerprints(), keys.warnings.len()), (before, 1));
        assert_eq!(mode(&device.key_path()), 0o600);
    }

    #[test]
    fn a_folder_of_nerves_ssh_works_in_place() {
        let mut device = Device::new();
        let nerves = device.folder.path().join("nerves");
        device.put(&nerves.join("ssh_host_ed25519_key"), &sample("nerves-ed25519"));
        device.put(&nerves.join("ssh_host_rsa_key"), &sample("pkcs1-rsa"));
        device.config.ssh.host_key_dir = Some(nerves.clone());
        let keys = device.load();
        assert_eq!((keys.keys.len(), keys.warnings.len()), (2, 0), "{keys:?}");
        assert_eq!(std::fs::read(nerves.join("ssh_host_rsa_key")).unwrap(), sample("pkcs1-rsa"));
    }

    #[test]
    fn keys_of_nerves_ssh_are_copied_when_we_have_none() {
        let device = Device::new();
        let nerves = device.folder.path().join("nerves");
        device.put(&nerves.join("ssh_host_rsa_key"), &sample("pkcs1-rsa"));
        let keys = device.load();
        assert_eq!(keys.keys.len(), 2, "{keys:?}");
        assert!(nerves.join("ssh_host_rsa_key").exists());
        std::fs::remove_dir_all(&nerves).unwrap();
        assert_eq!(device.load().keys.len(), 2);
    }

    #[test]
    fn listed_files_are_read_and_never_touched() {
        let mut device = Device::new();
        let good = device.folder.path().join("good");
        let bad = device.folder.path().join("bad");
        device.put(&good, &sample("openssh-rsa"));
        device.put(&bad, b"garbage");
        device.config.ssh.host_key = vec![good, bad.clone(), "/nonexistent".into()];
        let keys = device.load();
        assert_eq!((keys.keys.len(), keys.warnings.len()), (2, 2), "{keys:?}");
        assert_eq!(std::fs::read(bad).unwrap(), b"garbage");
    }

    #[test]
    fn slow_kinds_are_left_to_the_background_unless_there_is_nothing_else() {
        let mut device = Device::new();
        device.config.ssh.host_key_types = vec![HostKeyType::Ed25519, HostKeyType::Ecdsa, HostKeyType::Rsa];
        assert_eq!(device.load().pending, [HostKeyType::Ecdsa, HostKeyType::Rsa]);
        make(&device.config, HostKeyType::Ecdsa).unwrap();
        assert_eq!(device.load().pending, [HostKeyType::Rsa]);

        let mut device = Device::new();
        device.config.ssh.host_key_types = vec![HostKeyType::Ecdsa];
        let keys = device.load();
        assert_eq!((keys.keys.len(), keys.pending.len()), (1, 0));
    }

    #[test]
    fn debug_output_shows_fingerprints_only() {
        let device = Device::new();
        let shown = format!("{:?}", device.load());
        assert!(shown.contains("SHA256:") && !shown.contains("PrivateKey"), "{shown}");
    }
}
