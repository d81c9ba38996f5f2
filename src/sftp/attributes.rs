//! What is known of a file, and what a client wants it to be (draft-ietf-secsh-filexfer-02 section 5).

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::packet::{Fields, put_u32, put_u64};
use super::refusal::Refusal;
use crate::sys;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// Attributes that a client sets; each may be missing.
#[derive(Debug, Default)]
pub struct Attributes {
    pub size: Option<u64>,
    owner: Option<(u32, u32)>,
    pub permissions: Option<u32>,
    /// Of the last access and the last change, in seconds.
    times: Option<(u32, u32)>,
}

impl Attributes {
    pub fn read(fields: &mut Fields<'_>) -> Result<Self, Refusal> {
        let flags = fields.u32()?;
        let pair = |flag: u32, fields: &mut Fields<'_>| {
            (flags & flag != 0).then(|| Ok::<_, Refusal>((fields.u32()?, fields.u32()?))).transpose()
        };
        let size = (flags & SIZE != 0).then(|| fields.u64()).transpose()?;
        let owner = pair(OWNER, fields)?;
        let permissions = (flags & PERMISSIONS != 0).then(|| fields.u32()).transpose()?;
        let times = pair(TIMES, fields)?;
        if flags & EXTENDED != 0 {
            // Of nobody's we know a meaning; the packet bounds their number.
            for _ in 0..fields.u32()? {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(Self { size, owner, permissions: permissions.map(|mode| mode & 0o7777), times })
    }

    /// Sets everything but the size of what `fd` is open on, O_PATH or not: first the owner, because the kernel
    /// takes set-user-ID bits away with it, and last the times, which the others change.
    pub fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if let Some((user, group)) = self.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            fchownat(fd, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?;
        }
        if let Some(mode) = self.permissions {
            fs::set_permissions(path_of(fd), Permissions::from_mode(mode))?;
        }
        if let Some((access, change)) = self.times {
            let time = |seconds: u32| TimeSpec::new(sys::to_time(seconds.into()), 0);
            let flags = UtimensatFlags::FollowSymlink;
            utimensat(AT_FDCWD, &path_of(fd), &time(access), &time(change), flags)?;
        }
        Ok(())
    }
}

/// The name under which the kernel finds what `fd` is open on, even an O_PATH descriptor (proc_pid_fd(5)).
pub fn path_of(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// Appends what is known of a file.
pub fn put(bytes: &mut Vec<u8>, metadata: &Metadata) {
    // The protocol ends in 2106, and begins in 1970.
    let time = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    put_u32(bytes, SIZE | OWNER | PERMISSIONS | TIMES);
    put_u64(bytes, metadata.size());
    for value in
        [metadata.uid(), metadata.gid(), metadata.mode(), time(metadata.atime()), time(metadata.mtime())]
    {
        put_u32(bytes, value);
    }
}
