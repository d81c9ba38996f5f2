//! The requests of version 3 (draft-ietf-secsh-filexfer-02 section 6), and who answers them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{Mode, mkdirat, umask};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use thiserror::Error;

use super::attributes::{self, Attributes};
use super::extensions::{self, Extension};
use super::handles::{Handle, Handles};
use super::listing::{self, Listing, Owners};
use super::options::Options;
use super::packet::{self, Answers, Fields, MAX_DATA, put_string, put_u32};
use super::refusal::Refusal;
use super::tree::Tree;
use crate::sys;

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

/// Flags of OPEN.
const FOR_READ: u32 = 1;
const FOR_WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

const VERSION: u32 = 3;
/// Permissions of what a client makes without saying any; the umask takes its part.
const NEW_FILE: u32 = 0o666;
const NEW_FOLDER: u32 = 0o777;

/// Why the server ends before its client does.
#[derive(Debug, Error)]
pub enum Broken {
    #[error("a request before the client has said its version")]
    NotStarted,
    #[error("a packet too short to be one")]
    NoPacket,
}

/// One client's session.
pub struct Server {
    pub(super) tree: Tree,
    pub(super) handles: Handles,
    pub(super) owners: Owners,
    pub(super) answers: Answers,
    pub(super) start: PathBuf,
    read_only: bool,
    is_started: bool,
}

/// An answer that is more than success.
pub(super) enum Reply {
    Done,
    /// It has been added to the answers already.
    Sent,
    Handle([u8; 4]),
    Attributes(File),
    Path(PathBuf),
}

pub(super) type Answered = Result<Reply, Refusal>;

impl Server {
    /// Fails when the configured root cannot be used: the whole file system is no substitute.
    pub fn new(options: &Options) -> io::Result<Self> {
        if let Some(mask) = options.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        let mut tree = match &options.root {
            Some(root) => Tree::below(root).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot use sftp_root {}: {error}", root.display()))
            })?,
            None => Tree::everything(),
        };
        if let Some(start) = &options.start {
            // One that is missing must not keep anybody out.
            tree.start_in(start).or_else(|_| tree.start_in(Path::new("/")))?;
        }
        let start = tree.real_path(Path::new(".")).unwrap_or_else(|_| "/".into());
        Ok(Self {
            tree,
            handles: Handles::new(options.max_handles),
            owners: Owners::default(),
            answers: Answers::default(),
            start,
            read_only: options.read_only,
            is_started: false,
        })
    }

    /// Answers one packet, given without its length.
    pub fn answer(&mut self, packet: &[u8]) -> Result<(), Broken> {
        let mut fields = Fields(packet);
        let header = fields.u8().and_then(|kind| Ok((kind, fields.u32()?)));
        let (kind, id) = header.map_err(|_| Broken::NoPacket)?;
        if kind == INIT {
            self.is_started = true;
            self.answers.add(packet::VERSION, VERSION, extensions::put_all);
            return Ok(());
        }
        if !self.is_started {
            return Err(Broken::NotStarted);
        }
        let replied = self.request(kind, id, &mut fields).and_then(|reply| {
            match reply {
                Reply::Done => self.answers.status(id, Ok(())),
                Reply::Sent => {}
                Reply::Handle(name) => {
                    self.answers.add(packet::HANDLE, id, |bytes| put_string(bytes, &name));
                }
                Reply::Attributes(file) => {
                    let metadata = file.metadata()?;
                    self.answers.add(packet::ATTRS, id, |bytes| attributes::put(bytes, &metadata));
                }
                Reply::Path(path) => {
                    self.answers.add(packet::NAME, id, |bytes| listing::put_path(bytes, path.as_os_str()));
                }
            }
            Ok(())
        });
        if let Err(refusal) = replied {
            self.answers.status(id, Err(refusal));
        }
        Ok(())
    }

    fn request(&mut self, kind: u8, id: u32, fields: &mut Fields<'_>) -> Answered {
        let extension = if kind == EXTENDED { Some(Extension::named(fields.string()?)?) } else { None };
        let changes = match (kind, &extension) {
            (WRITE | SETSTAT | FSETSTAT | REMOVE | MKDIR | RMDIR | RENAME | SYMLINK, _) => true,
            (_, Some(extension)) => extension.changes(),
            _ => false,
        };
        if changes {
            self.may_change()?;
        }
        match kind {
            OPEN => self.open(fields),
            CLOSE => self.handles.close(fields.string()?).map(|()| Reply::Done),
            READ => self.read(id, fields),
            WRITE => {
                let (handle, offset, data) = (fields.string()?, fields.u64()?, fields.string()?);
                self.handles.file(handle)?.write_all_at(data, in_file(offset)?)?;
                Ok(Reply::Done)
            }
            LSTAT => Ok(Reply::Attributes(self.tree.look(fields.path()?, false)?)),
            STAT => Ok(Reply::Attributes(self.tree.look(fields.path()?, true)?)),
            FSTAT => {
                let handle = self.handles.get(fields.string()?)?;
                Ok(Reply::Attributes(handle.as_fd().try_clone_to_owned()?.into()))
            }
            SETSTAT => {
                let (path, attributes) = (fields.path()?, Attributes::read(fields)?);
                if let Some(size) = attributes.size {
                    let flags = OFlag::O_WRONLY | PLAIN;
                    File::from(self.tree.open(path, flags, 0)?).set_len(in_file(size)?)?;
                }
                attributes.apply(self.tree.look(path, true)?.as_fd())?;
                Ok(Reply::Done)
            }
            FSETSTAT => {
                let (handle, attributes) = (self.handles.get(fields.string()?)?, Attributes::read(fields)?);
                if let (Some(size), Handle::File(file)) = (attributes.size, handle) {
                    file.set_len(in_file(size)?)?;
                }
                attributes.apply(handle.as_fd())?;
                Ok(Reply::Done)
            }
            OPENDIR => self.open_folder(fields),
            READDIR => self.read_folder(id, fields),
            REMOVE => self.remove(fields.path()?, UnlinkatFlags::NoRemoveDir),
            RMDIR => self.remove(fields.path()?, UnlinkatFlags::RemoveDir),
            MKDIR => {
                let (path, attributes) = (fields.path()?, Attributes::read(fields)?);
                let entry = self.tree.entry(path)?;
                let mode = Mode::from_bits_truncate(attributes.permissions.unwrap_or(NEW_FOLDER));
                mkdirat(&entry.folder, &entry.name, mode)?;
                Ok(Reply::Done)
            }
            REALPATH => {
                let path = fields.path()?;
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                Ok(Reply::Path(self.tree.real_path(path)?))
            }
            RENAME => {
                let (from, to) = (self.tree.entry(fields.path()?)?, self.tree.entry(fields.path()?)?);
                sys::rename_to_new(from.folder.as_fd(), &from.name, to.folder.as_fd(), &to.name)?;
                Ok(Reply::Done)
            }
            READLINK => {
                let link = self.tree.look(fields.path()?, false)?;
                if !link.metadata()?.is_symlink() {
                    return Err(Errno::EINVAL.into());
                }
                Ok(Reply::Path(readlinkat(&link, "")?.into()))
            }
            SYMLINK => {
                // The draft has them the other way round; OpenSSH does not, and all clients follow it.
                let (target, link) = (fields.path()?, self.tree.entry(fields.path()?)?);
                symlinkat(target, &link.folder, &link.name)?;
                Ok(Reply::Done)
            }
            EXTENDED => match extension {
                Some(extension) => self.extended(extension, id, fields),
                None => Err(Refusal::Unsupported),
            },
            _ => Err(Refusal::Unsupported),
        }
    }

    pub(super) fn may_change(&self) -> Result<(), Refusal> {
        if self.read_only { Err(Refusal::ReadOnly) } else { Ok(()) }
    }

    fn open(&mut self, fields: &mut Fields<'_>) -> Answered {
        let (path, wanted, attributes) = (fields.path()?, fields.u32()?, Attributes::read(fields)?);
        let mut flags = PLAIN
            | match (wanted & FOR_READ != 0, wanted & FOR_WRITE != 0) {
                (true, true) => OFlag::O_RDWR,
                (false, true) => OFlag::O_WRONLY,
                (_, false) => OFlag::O_RDONLY,
            };
        for (bit, flag) in [
            (APPEND, OFlag::O_APPEND),
            (CREATE, OFlag::O_CREAT),
            (TRUNCATE, OFlag::O_TRUNC),
            (EXCLUSIVE, OFlag::O_EXCL),
        ] {
            flags.set(flag, wanted & bit != 0);
        }
        if wanted & (FOR_WRITE | CREATE | TRUNCATE) != 0 {
            self.may_change()?;
        }
        self.handles.has_room()?;
        let mode = attributes.permissions.unwrap_or(NEW_FILE);
        let file = File::from(self.tree.open(path, flags, mode)?);
        Ok(Reply::Handle(self.handles.insert(Handle::File(file))))
    }

    fn read(&mut self, id: u32, fields: &mut Fields<'_>) -> Answered {
        let (handle, offset, length) = (fields.string()?, fields.u64()?, fields.u32()?);
        let file = self.handles.file(handle)?;
        let length = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
        let offset = in_file(offset)?;
        let done = self.answers.data(id, length, |buffer| fill(file, buffer, offset))?;
        if done == 0 && length > 0 { Err(Refusal::Eof) } else { Ok(Reply::Sent) }
    }

    fn open_folder(&mut self, fields: &mut Fields<'_>) -> Answered {
        let path = fields.path()?;
        self.handles.has_room()?;
        let folder = File::from(self.tree.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?);
        let is_top = self.tree.is_confined() && self.tree.real_path(path)? == Path::new("/");
        let listing = Listing::new(folder, is_top)?;
        Ok(Reply::Handle(self.handles.insert(Handle::Folder(listing))))
    }

    fn read_folder(&mut self, id: u32, fields: &mut Fields<'_>) -> Answered {
        let (count, names) = self.handles.folder(fields.string()?)?.batch(&mut self.owners)?;
        if count == 0 {
            return Err(Refusal::Eof);
        }
        self.answers.add(packet::NAME, id, |bytes| {
            put_u32(bytes, count);
            bytes.extend_from_slice(&names);
        });
        Ok(Reply::Sent)
    }

    fn remove(&self, path: &Path, what: UnlinkatFlags) -> Answered {
        let entry = self.tree.entry(path)?;
        unlinkat(&entry.folder, &entry.name, what)?;
        Ok(Reply::Done)
    }

    /// A second name for a file; a link of the first name is not followed.
    pub(super) fn hard_link(&self, fields: &mut Fields<'_>) -> Answered {
        let (from, to) = (self.tree.entry(fields.path()?)?, self.tree.entry(fields.path()?)?);
        linkat(&from.folder, &from.name, &to.folder, &to.name, AtFlags::empty())?;
        Ok(Reply::Done)
    }
}

/// Nothing that is opened may hold the server up: a pipe without a partner, or a terminal that becomes ours.
const PLAIN: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY).union(OFlag::O_LARGEFILE);

/// A position or size that the kernel has a number for.
pub(super) fn in_file(value: u64) -> Result<u64, Refusal> {
    if i64::try_from(value).is_ok() { Ok(value) } else { Err(Errno::EINVAL.into()) }
}

/// Reads until the buffer is full or the file ends: a short answer makes clients ask again.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}
