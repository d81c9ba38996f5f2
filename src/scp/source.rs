//! `scp -f`: files go to the client.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Options;
use super::wire::Wire;

const BLOCK: usize = 64 << 10;

pub fn send(wire: &mut Wire, options: &Options, paths: &[PathBuf]) -> io::Result<()> {
    wire.is_accepted()?;
    paths.iter().try_for_each(|path| send_one(wire, options, path))
}

/// Sends a file or folder. What is wrong with it is the client's to know; an error is the end of the connection.
fn send_one(wire: &mut Wire, options: &Options, path: &Path) -> io::Result<()> {
    let name = path.as_os_str().as_bytes();
    if name.contains(&b'\n') {
        return wire
            .complain(name.split(|&byte| byte == b'\n').next().unwrap_or(name), "name with a line break");
    }
    // A pipe without a writer must not hold us up.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    match opened.and_then(|file| Ok((file.metadata()?, file))) {
        Ok((metadata, file)) if metadata.is_file() => send_file(wire, options, path, &metadata, file),
        Ok((metadata, _)) if metadata.is_dir() && options.recursive => {
            send_folder(wire, options, path, &metadata)
        }
        Ok(_) => wire.complain(name, "not a regular file"),
        Err(error) => wire.complain(name, &reason(&error)),
    }
}

/// Announces times, if they are wanted, and then the thing itself.
fn announce(
    wire: &mut Wire,
    options: &Options,
    kind: char,
    path: &Path,
    metadata: &Metadata,
    size: u64,
) -> io::Result<bool> {
    if options.preserve {
        wire.write(format!("T{} 0 {} 0\n", metadata.mtime().max(0), metadata.atime().max(0)).as_bytes())?;
        if !wire.is_accepted()? {
            return Ok(false);
        }
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).as_bytes();
    let start = format!("{kind}{:04o} {size} ", metadata.mode() & 0o7777);
    wire.write(&[start.as_bytes(), name, b"\n"].concat())?;
    wire.is_accepted()
}

fn send_file(
    wire: &mut Wire,
    options: &Options,
    path: &Path,
    metadata: &Metadata,
    mut file: File,
) -> io::Result<()> {
    let size = metadata.size();
    if !announce(wire, options, 'C', path, metadata, size)? {
        return Ok(());
    }
    // As many bytes as were announced, whatever the file does meanwhile.
    let (mut block, mut left, mut failed) = (vec![0; BLOCK], size, None);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let room = block.get_mut(..most).unwrap_or_default();
        let count = match file.read(room) {
            Ok(0) => Err("it became shorter".to_owned()),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(reason(&error)),
        };
        let count = count.unwrap_or_else(|text| {
            failed.get_or_insert(text);
            room.fill(0);
            most
        });
        wire.write(block.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    match failed {
        None => wire.accept()?,
        Some(text) => wire.complain(path.as_os_str().as_bytes(), &text)?,
    }
    wire.is_accepted().map(drop)
}

fn send_folder(wire: &mut Wire, options: &Options, path: &Path, metadata: &Metadata) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return wire.complain(path.as_os_str().as_bytes(), &reason(&error)),
    };
    if !announce(wire, options, 'D', path, metadata, 0)? {
        return Ok(());
    }
    for entry in entries {
        match entry {
            Ok(entry) => send_one(wire, options, &entry.path())?,
            Err(error) => wire.complain(path.as_os_str().as_bytes(), &reason(&error))?,
        }
    }
    wire.write(b"E\n")?;
    wire.is_accepted().map(drop)
}

/// The words of strerror(3), as scp's users know them.
pub fn reason(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |code| nix::Error::from_raw(code).desc().to_owned())
}
