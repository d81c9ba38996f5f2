//! Following a path below a root without openat2(2): name by name, links by hand.
//!
//! Each folder on the way is held open, and `..` goes back to the one that was held before, so that nothing that is
//! moved or replaced meanwhile leads above the root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// What the kernel allows on one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Opens `path`, absolute or not, with `root` as its beginning and its end of `..`.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
    let mut walk = Walk { trail: Vec::new(), rest: Vec::new(), links: 0 };
    walk.go_on_with(path.as_os_str())?;
    loop {
        let here = walk.trail.last().map_or(root, AsFd::as_fd);
        let Some(name) = walk.rest.pop() else {
            // The path ends with a folder that we hold: no link can be there.
            return Ok(openat(here, ".", flags & !OFlag::O_NOFOLLOW, mode)?);
        };
        match name.as_bytes() {
            b"" | b"." => {}
            b".." => drop(walk.trail.pop()),
            _ if walk.rest.is_empty() => match last(here, &name, flags, mode)? {
                Step::Opened(fd) => return Ok(fd),
                Step::Link(target) => walk.go_on_with(&target)?,
            },
            _ => match last(here, &name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, mode)? {
                Step::Opened(fd) => walk.trail.push(fd),
                Step::Link(target) => walk.go_on_with(&target)?,
            },
        }
    }
}

struct Walk {
    /// The folders from the root to here.
    trail: Vec<OwnedFd>,
    /// Names still to go, the next one last.
    rest: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn go_on_with(&mut self, path: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS + 1 {
            return Err(Errno::ELOOP.into());
        }
        let bytes = path.as_bytes();
        if bytes.starts_with(b"/") {
            self.trail.clear();
        }
        // A slash at the end leaves an empty name, which makes the one before it a folder.
        let names = bytes.split(|&byte| byte == b'/').rev();
        self.rest.extend(names.map(|name| OsStr::from_bytes(name).to_owned()));
        Ok(())
    }
}

enum Step {
    Opened(OwnedFd),
    Link(OsString),
}

/// Opens one name in a folder, or says where the link leads that has this name.
fn last(folder: BorrowedFd<'_>, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<Step> {
    let follow = !flags.contains(OFlag::O_NOFOLLOW);
    match openat(folder, name, flags | OFlag::O_NOFOLLOW, mode) {
        Ok(fd) if follow && flags.contains(OFlag::O_PATH) && !flags.contains(OFlag::O_DIRECTORY) => {
            // O_PATH opens the link itself.
            let file = File::from(fd);
            if !file.metadata()?.is_symlink() {
                return Ok(Step::Opened(file.into()));
            }
            Ok(Step::Link(readlinkat(&file, "")?))
        }
        Ok(fd) => Ok(Step::Opened(fd)),
        // A link, or with O_DIRECTORY something that may be one.
        Err(error @ (Errno::ELOOP | Errno::ENOTDIR)) if follow => match readlinkat(folder, name) {
            Ok(target) => Ok(Step::Link(target)),
            Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
