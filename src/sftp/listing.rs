//! Folders: their names in portions, each with its attributes and with a line as `ls -l` prints it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User};

use super::attributes::{self, path_of};
use super::packet::{put_string, put_u32};
use crate::sys;

/// Names in one answer.
pub const MAX_NAMES: usize = 100;
/// Owners whose names are remembered.
const MAX_OWNERS: usize = 256;
/// Times older than this are shown with their year, as `ls -l` does.
const HALF_A_YEAR: i64 = 365 * 24 * 3600 / 2;

/// An open folder.
pub struct Listing {
    pub folder: File,
    entries: ReadDir,
    /// `.` and `..` come first; how many of them are still to come.
    dots: usize,
    is_top: bool,
}

impl Listing {
    /// `is_top`: there is nothing above this folder that the client may see.
    pub fn new(folder: File, is_top: bool) -> io::Result<Self> {
        let entries = fs::read_dir(path_of(&folder))?;
        Ok(Self { folder, entries, dots: 2, is_top })
    }

    /// The next name with what is known of it; an entry that has just gone is left out.
    fn next(&mut self) -> io::Result<Option<(OsString, Metadata)>> {
        if self.dots > 0 {
            self.dots -= 1;
            return if self.dots == 1 { self.dot(".") } else { self.dot("..") };
        }
        for entry in self.entries.by_ref() {
            let entry = entry?;
            if let Ok(metadata) = entry.metadata() {
                return Ok(Some((entry.file_name(), metadata)));
            }
        }
        Ok(None)
    }

    fn dot(&self, name: &str) -> io::Result<Option<(OsString, Metadata)>> {
        let metadata = if self.is_top || name == "." {
            self.folder.metadata()?
        } else {
            File::from(openat(&self.folder, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
                .metadata()?
        };
        Ok(Some((name.into(), metadata)))
    }

    /// The next names as a NAME answer holds them, and how many they are: none at the end.
    pub fn batch(&mut self, owners: &mut Owners) -> io::Result<(u32, Vec<u8>)> {
        let (mut count, mut bytes) = (0, Vec::new());
        while count < MAX_NAMES as u32 {
            let Some((name, metadata)) = self.next()? else { break };
            put_name(&mut bytes, &name, &owners.long_name(&name, &metadata));
            attributes::put(&mut bytes, &metadata);
            count += 1;
        }
        Ok((count, bytes))
    }
}

fn put_name(bytes: &mut Vec<u8>, name: &OsStr, long_name: &[u8]) {
    put_string(bytes, name.as_bytes());
    put_string(bytes, long_name);
}

/// The one name of an answer that is a path: without attributes, as OpenSSH's server does it.
pub fn put_path(bytes: &mut Vec<u8>, path: &OsStr) {
    put_u32(bytes, 1);
    put_name(bytes, path, path.as_bytes());
    put_u32(bytes, 0);
}

/// Names of users and groups, looked up once.
#[derive(Default)]
pub struct Owners {
    users: BTreeMap<u32, Option<String>>,
    groups: BTreeMap<u32, Option<String>>,
}

impl Owners {
    pub fn user(&mut self, id: u32) -> Option<String> {
        remembered(&mut self.users, id, || Some(User::from_uid(Uid::from_raw(id)).ok()??.name))
    }

    pub fn group(&mut self, id: u32) -> Option<String> {
        remembered(&mut self.groups, id, || Some(Group::from_gid(Gid::from_raw(id)).ok()??.name))
    }

    /// A line of `ls -l`; some clients show nothing else.
    fn long_name(&mut self, name: &OsStr, metadata: &Metadata) -> Vec<u8> {
        let user = self.user(metadata.uid()).unwrap_or_else(|| metadata.uid().to_string());
        let group = self.group(metadata.gid()).unwrap_or_else(|| metadata.gid().to_string());
        let (mode, links, size) = (mode_text(metadata.mode()), metadata.nlink(), metadata.size());
        let time = time_text(metadata.mtime());
        let mut line = format!("{mode} {links:>4} {user:<8} {group:<8} {size:>8} {time} ").into_bytes();
        line.extend_from_slice(name.as_bytes());
        line
    }
}

fn remembered(
    names: &mut BTreeMap<u32, Option<String>>,
    id: u32,
    look_up: impl FnOnce() -> Option<String>,
) -> Option<String> {
    if names.len() >= MAX_OWNERS && !names.contains_key(&id) {
        names.clear();
    }
    names.entry(id).or_insert_with(look_up).clone()
}

/// `drwxr-xr-x` and so on.
fn mode_text(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    // The special bit of each class takes the place of its `x`.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

fn time_text(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
    let Some(time) = sys::local_time(seconds) else { return "-".into() };
    let month = usize::try_from(time.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"-");
    let day = time.tm_mday;
    if (now - HALF_A_YEAR..=now + HALF_A_YEAR).contains(&seconds) {
        format!("{month} {day:>2} {:02}:{:02}", time.tm_hour, time.tm_min)
    } else {
        format!("{month} {day:>2}  {:>4}", i64::from(time.tm_year) + 1900)
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o020_600, "crw-------"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }
}
