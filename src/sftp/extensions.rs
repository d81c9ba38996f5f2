//! Requests beyond version 3: those that OpenSSH's server has, named in its PROTOCOL file, section 4.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Uid, User};

use super::attributes::Attributes;
use super::packet::{self, Fields, MAX_DATA, MAX_PACKET, put_string, put_u64};
use super::refusal::Refusal;
use super::requests::{Answered, Reply, Server, in_file};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    PosixRename,
    StatVfs,
    FStatVfs,
    HardLink,
    FSync,
    LSetStat,
    Limits,
    ExpandPath,
    CopyData,
    HomeDirectory,
    UsersGroupsById,
}

/// Names and versions, as the client learns them.
const ALL: [(Extension, &str, &str); 11] = [
    (Extension::PosixRename, "posix-rename@openssh.com", "1"),
    (Extension::StatVfs, "statvfs@openssh.com", "2"),
    (Extension::FStatVfs, "fstatvfs@openssh.com", "2"),
    (Extension::HardLink, "hardlink@openssh.com", "1"),
    (Extension::FSync, "fsync@openssh.com", "1"),
    (Extension::LSetStat, "lsetstat@openssh.com", "1"),
    (Extension::Limits, "limits@openssh.com", "1"),
    (Extension::ExpandPath, "expand-path@openssh.com", "1"),
    (Extension::CopyData, "copy-data", "1"),
    (Extension::HomeDirectory, "home-directory", "1"),
    (Extension::UsersGroupsById, "users-groups-by-id@openssh.com", "1"),
];

/// Users and groups that one request may ask for.
const MAX_IDS: usize = 1024;
/// What is copied in one go.
const COPY_BLOCK: usize = 64 << 10;

pub fn put_all(bytes: &mut Vec<u8>) {
    for (_, name, version) in ALL {
        put_string(bytes, name.as_bytes());
        put_string(bytes, version.as_bytes());
    }
}

impl Extension {
    pub fn named(name: &[u8]) -> Result<Self, Refusal> {
        let found = ALL.iter().find(|(_, known, _)| known.as_bytes() == name);
        found.map(|(extension, ..)| *extension).ok_or(Refusal::Unsupported)
    }

    /// Whether it changes the disk.
    pub fn changes(self) -> bool {
        matches!(self, Self::PosixRename | Self::HardLink | Self::FSync | Self::LSetStat | Self::CopyData)
    }
}

impl Server {
    pub(super) fn extended(&mut self, extension: Extension, id: u32, fields: &mut Fields<'_>) -> Answered {
        match extension {
            Extension::PosixRename => {
                let (from, to) = (self.tree.entry(fields.path()?)?, self.tree.entry(fields.path()?)?);
                renameat(&from.folder, &from.name, &to.folder, &to.name)?;
                Ok(Reply::Done)
            }
            Extension::StatVfs => {
                let file = self.tree.look(fields.path()?, true)?;
                self.file_system(id, &file)
            }
            Extension::FStatVfs => {
                let file = self.handles.get(fields.string()?)?.as_fd().try_clone_to_owned()?;
                self.file_system(id, &file)
            }
            Extension::HardLink => self.hard_link(fields),
            Extension::FSync => {
                self.handles.file(fields.string()?)?.sync_all()?;
                Ok(Reply::Done)
            }
            Extension::LSetStat => {
                let (path, attributes) = (fields.path()?, Attributes::read(fields)?);
                if attributes.size.is_some() {
                    // A link has no size of its own to set.
                    return Err(Refusal::Malformed);
                }
                attributes.apply(self.tree.look(path, false)?.as_fd())?;
                Ok(Reply::Done)
            }
            Extension::Limits => {
                let handles = self.handles.limit();
                self.answers.add(packet::EXTENDED_REPLY, id, |bytes| {
                    for value in [MAX_PACKET, MAX_DATA, MAX_DATA, handles] {
                        put_u64(bytes, value as u64);
                    }
                });
                Ok(Reply::Sent)
            }
            Extension::ExpandPath => {
                let path = self.expand(fields.path()?)?;
                Ok(Reply::Path(self.tree.real_path(&path)?))
            }
            Extension::CopyData => self.copy(fields),
            Extension::HomeDirectory => {
                let name = fields.string()?;
                Ok(Reply::Path(self.home(&String::from_utf8_lossy(name))?))
            }
            Extension::UsersGroupsById => self.names_of_ids(id, fields),
        }
    }

    fn file_system(&mut self, id: u32, file: &impl AsFd) -> Answered {
        let found = fstatvfs(file)?;
        // The bits of the extension: 1 read-only, 2 no set-user-ID.
        let has = |flag, bit| if found.flags().contains(flag) { bit } else { 0 };
        let flags = has(FsFlags::ST_RDONLY, 1) | has(FsFlags::ST_NOSUID, 2);
        #[allow(clippy::unnecessary_cast, reason = "these are narrower on 32-bit systems")]
        let values = [
            found.block_size() as u64,
            found.fragment_size() as u64,
            found.blocks() as u64,
            found.blocks_free() as u64,
            found.blocks_available() as u64,
            found.files() as u64,
            found.files_free() as u64,
            found.files_available() as u64,
            found.filesystem_id() as u64,
            flags,
            found.name_max() as u64,
        ];
        self.answers.add(packet::EXTENDED_REPLY, id, |bytes| {
            values.into_iter().for_each(|value| put_u64(bytes, value));
        });
        Ok(Reply::Sent)
    }

    /// A path that may begin with `~` or `~NAME`.
    fn expand(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let bytes = path.as_os_str().as_bytes();
        let Some(rest) = bytes.strip_prefix(b"~") else { return Ok(path.into()) };
        let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (name, below) = rest.split_at_checked(length).unwrap_or_default();
        let home = self.home(&String::from_utf8_lossy(name))?;
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Ok(home.join(std::ffi::OsStr::from_bytes(below)))
    }

    /// The home folder of a user, of ours for an empty name. Below a root there is none but where clients start.
    fn home(&self, name: &str) -> Result<PathBuf, Refusal> {
        if self.tree.is_confined() {
            return Ok(self.start.clone());
        }
        let user = if name.is_empty() {
            if let Some(home) = std::env::var_os("HOME") {
                return Ok(home.into());
            }
            User::from_uid(Uid::current())
        } else {
            User::from_name(name)
        };
        user.ok().flatten().map(|user| user.dir).ok_or(Refusal::NoSuchUser)
    }

    /// Copies from one open file to another, on the device.
    fn copy(&self, fields: &mut Fields<'_>) -> Answered {
        let (from, mut offset) = (self.handles.file(fields.string()?)?, in_file(fields.u64()?)?);
        let length = fields.u64()?;
        let (to, mut target) = (self.handles.file(fields.string()?)?, in_file(fields.u64()?)?);
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        if identity(from)? == identity(to)? {
            // It could go on for ever.
            return Err(Errno::EBUSY.into());
        }
        // Zero: to the end.
        let mut left = if length == 0 { u64::MAX } else { length };
        let mut block = vec![0; COPY_BLOCK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(COPY_BLOCK).min(COPY_BLOCK);
            let count = from.read_at(block.get_mut(..most).unwrap_or_default(), offset)?;
            if count == 0 {
                break;
            }
            to.write_all_at(block.get(..count).unwrap_or_default(), target)?;
            let count = count as u64;
            (offset, target, left) =
                (offset.saturating_add(count), target.saturating_add(count), left - count);
        }
        Ok(Reply::Done)
    }

    fn names_of_ids(&mut self, id: u32, fields: &mut Fields<'_>) -> Answered {
        let (users, groups) = (fields.string()?, fields.string()?);
        if users.len() + groups.len() > 4 * MAX_IDS {
            return Err(Refusal::Malformed);
        }
        let (mut user_names, mut group_names) = (Vec::new(), Vec::new());
        let mut each = |packed: &[u8], names: &mut Vec<u8>, is_user: bool| {
            let mut packed = Fields(packed);
            while let Ok(number) = packed.u32() {
                let name = if is_user { self.owners.user(number) } else { self.owners.group(number) };
                put_string(names, name.unwrap_or_default().as_bytes());
            }
        };
        each(users, &mut user_names, true);
        each(groups, &mut group_names, false);
        self.answers.add(packet::EXTENDED_REPLY, id, |bytes| {
            put_string(bytes, &user_names);
            put_string(bytes, &group_names);
        });
        Ok(Reply::Sent)
    }
}
