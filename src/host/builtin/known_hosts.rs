//! known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): what they say about a host, and new lines for them.
//!
//! The bytes of keys are compared as they stand there, in base64: a line that nobody can parse matches nothing.
//! Authorities (`@cert-authority`) are passed over, host certificates are not asked for.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;

use crate::config::pattern_matches;
use crate::files::read_limited;

/// More than any file of a person; a longer one is not read.
const MAX_FILE: u64 = 16 << 20;

/// The files that were there, with their text.
pub struct KnownHosts(Vec<(PathBuf, String)>);

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
}

/// What is known about a host and the key that it showed.
#[derive(Debug, PartialEq, Eq)]
pub enum Knowledge {
    Known,
    /// Nobody has seen this host.
    Unknown,
    /// It had a key of another type. It was asked for that one first, and has it no more.
    OtherType(Place),
    /// It had another key of this type.
    Changed(Place),
    /// This key must not be trusted any more.
    Revoked(Place),
}

impl Knowledge {
    fn rank(&self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::OtherType(_) => 1,
            Self::Changed(_) => 2,
            Self::Known => 3,
            Self::Revoked(_) => 4,
        }
    }
}

impl KnownHosts {
    /// Reads the files that are there. `complain` hears of those that cannot be read.
    pub fn read<'a>(paths: impl Iterator<Item = &'a PathBuf>, mut complain: impl FnMut(&str)) -> Self {
        let mut files = Vec::new();
        for path in paths {
            if !path.exists() {
                continue;
            }
            match read_limited(path, MAX_FILE) {
                Ok(bytes) => files.push((path.clone(), String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) => complain(&error.to_string()),
            }
        }
        Self(files)
    }

    /// The same of a text.
    #[cfg(any(test, fuzzing))]
    pub fn of(text: &str) -> Self {
        Self(vec![("known_hosts".into(), text.into())])
    }

    /// What the files say about `key` at `host`, a name as [`name`] makes it.
    pub fn look_up(&self, host: &str, key: &PublicKey) -> Knowledge {
        let Some((kind, key)) = words(key) else { return Knowledge::Unknown };
        let mut found = Knowledge::Unknown;
        self.each_line_of(host, &mut |place, line| {
            let same = line.key == key;
            let weight = match line.marker {
                Some("@revoked") if same => Knowledge::Revoked(place),
                Some(_) => return,
                None if same => Knowledge::Known,
                None if line.kind == kind => Knowledge::Changed(place),
                None => Knowledge::OtherType(place),
            };
            // The first line of the weightiest kind.
            if weight.rank() > found.rank() {
                found = weight;
            }
        });
        found
    }

    /// The types of the keys that a host is known by.
    pub fn types(&self, host: &str) -> Vec<String> {
        let mut types = Vec::new();
        self.each_line_of(host, &mut |_, line| {
            if line.marker.is_none() {
                types.push(line.kind.to_owned());
            }
        });
        types
    }

    fn each_line_of(&self, host: &str, then: &mut dyn FnMut(Place, Line<'_>)) {
        for (path, text) in &self.0 {
            for (number, line) in (1..).zip(text.lines()) {
                if let Some(line) = Line::parse(line).filter(|line| is_among(host, line.hosts)) {
                    then(Place { file: path.clone(), line: number }, line);
                }
            }
        }
    }

    /// Whether a line that is added to this file begins a line.
    fn ends_with_newline(&self, path: &Path) -> bool {
        let text = self.0.iter().find(|(file, _)| file == path).map(|(_, text)| text.as_str());
        text.is_none_or(|text| text.is_empty() || text.ends_with('\n'))
    }

    /// Adds a host. The line is one write at the end of the file: others may write there too, and the file may be a
    /// link to another place, so it is not replaced.
    pub fn add(&self, path: &Path, host: &str, key: &PublicKey) -> io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let begin = if self.ends_with_newline(path) { "" } else { "\n" };
        let (kind, key) = words(key).ok_or(io::ErrorKind::InvalidData)?;
        let line = format!("{begin}{host} {kind} {key}\n");
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(line.as_bytes())?;
        // Not every place has what is to be synced, such as /dev/null; the line is written in any case.
        let _ = file.sync_data();
        Ok(())
    }
}

/// The type of a key and its bytes in base64.
fn words(key: &PublicKey) -> Option<(String, String)> {
    let text = key.to_openssh().ok()?;
    let mut words = text.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?))
}

/// What a host is called in the files.
pub fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

struct Line<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    kind: &'a str,
    key: &'a str,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let hosts = words.next().filter(|hosts| !hosts.starts_with('#'))?;
        Some(Self { marker, hosts, kind: words.next()?, key: words.next()? })
    }
}

/// Whether a host is meant by a list of patterns: one has to match, and none of those with a `!`.
fn is_among(host: &str, patterns: &str) -> bool {
    let mut among = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(host, pattern) => return false,
            Some(_) => {}
            None => among |= matches(host, pattern),
        }
    }
    among
}

fn matches(host: &str, pattern: &str) -> bool {
    if let Some(hashed) = pattern.strip_prefix(HASHED) {
        return has_hash(host, hashed) == Some(true);
    }
    pattern_matches(&pattern.to_ascii_lowercase(), host)
}

/// Marks a name that is not to be read: HMAC-SHA1 of it, with a salt for a key.
const HASHED: &str = "|1|";

fn has_hash(host: &str, salt_and_hash: &str) -> Option<bool> {
    let (salt, hash) = salt_and_hash.split_once('|')?;
    let (salt, hash) = (BASE64.decode(salt.as_bytes()).ok()?, BASE64.decode(hash.as_bytes()).ok()?);
    Some(Hmac::<Sha1>::new_from_slice(&salt).ok()?.chain_update(host).verify_slice(&hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

    fn key(base64: &str) -> PublicKey {
        PublicKey::from_openssh(&format!("ssh-ed25519 {base64}")).unwrap()
    }

    fn look_up(text: &str, host: &str) -> Knowledge {
        KnownHosts::of(text).look_up(host, &key(ONE))
    }

    fn place(line: usize) -> Place {
        Place { file: "known_hosts".into(), line }
    }

    #[test]
    fn a_key_is_known_changed_or_new() {
        let text =
            format!("# a comment\n\ndev,10.0.0.5 ssh-ed25519 {ONE} of the lab\nold ssh-ed25519 {TWO}\n");
        assert_eq!(look_up(&text, "dev"), Knowledge::Known);
        assert_eq!(look_up(&text, "10.0.0.5"), Knowledge::Known);
        assert_eq!(look_up(&text, "[dev]:2222"), Knowledge::Unknown);
        assert_eq!(look_up(&text, "old"), Knowledge::Changed(place(4)));
        assert_eq!(look_up("dev ssh-rsa AAAA\n", "dev"), Knowledge::OtherType(place(1)));
        // A host may have several keys of one type, such as after a change that was made known before.
        assert_eq!(
            look_up(&format!("dev ssh-ed25519 {TWO}\ndev ssh-ed25519 {ONE}"), "dev"),
            Knowledge::Known
        );
        assert_eq!(KnownHosts::of(&text).types("dev"), ["ssh-ed25519"]);
    }

    #[test]
    fn a_revoked_key_is_revoked_wherever_the_line_stands() {
        let text = format!("dev ssh-ed25519 {ONE}\n@revoked * ssh-ed25519 {ONE}\n");
        assert_eq!(look_up(&text, "dev"), Knowledge::Revoked(place(2)));
        let other = format!("dev ssh-ed25519 {ONE}\n@revoked * ssh-ed25519 {TWO}\n");
        assert_eq!(look_up(&other, "dev"), Knowledge::Known);
    }

    #[test]
    fn authorities_and_broken_lines_are_nothing() {
        for text in [
            &format!("@cert-authority * ssh-ed25519 {ONE}"),
            "dev",
            "@revoked",
            "@",
            "dev ssh-ed25519",
            ",,, x y",
        ] {
            assert_eq!(look_up(text, "dev"), Knowledge::Unknown, "{text}");
        }
        for pattern in ["|1|", "|1||", "|1|AAAA", "|1|####|AAAA", "|2|a|b", "!", "!dev"] {
            assert_eq!(
                look_up(&format!("{pattern} ssh-ed25519 {ONE}"), "dev"),
                Knowledge::Unknown,
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_match_as_ssh_has_them() {
        for (patterns, host, expected) in [
            ("*.example", "dev.example", true),
            ("*.example,!dev.example", "dev.example", false),
            ("!dev.example,*.example", "dev.example", false),
            ("DEV.*", "dev.example", true),
            ("d?v", "dev", true),
            ("d?v", "dv", false),
            ("*", "", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbX", false),
            ("[dev]:*", "[dev]:2222", true),
            ("dev", "dev2", false),
        ] {
            assert_eq!(is_among(host, patterns), expected, "{patterns} {host}");
        }
        assert!(!matches(&"a".repeat(5000), &("*a".repeat(2000) + "b")));
    }

    #[test]
    fn a_hashed_name_is_found() {
        // ssh-keygen -H wrote it.
        let hashed = "|1|CzDYGKqO2NBDycegdS7f+MF3Uto=|AJONuY4AmUqaOxK1NBHVXjUcmwk=";
        assert!(is_among("[dev]:2222", hashed));
        assert!(!is_among("dev", hashed));
    }

    #[test]
    fn a_line_is_added_after_a_line_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/known_hosts");
        let read = || KnownHosts::read([path.clone()].iter(), |text| panic!("{text}"));
        read().add(&path, "one", &key(ONE)).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"# no end").unwrap();
        read().add(&path, &name("Two", 2222), &key(TWO)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("one ssh-ed25519 {ONE}\n# no end\n[two]:2222 ssh-ed25519 {TWO}\n"));
        let mode = |path: &Path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}
