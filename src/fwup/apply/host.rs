//! Actions that reach beyond the destination: commands, host files, the reboot parameter.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use thiserror::Error;

use super::resource::Piece;
use crate::fwup::disk::sync_where_possible;
use crate::fwup::language::shown;
use crate::fwup::language::variables::Variables;
use crate::sys;

/// `/bin/sh -c COMMAND` with the variables in its environment. It must not read the archive from stdin.
pub fn shell(command: &[u8], variables: &Variables) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(command)).stdin(Stdio::null()).env_clear();
    let usable = |text: &[u8]| !text.contains(&0);
    for (name, value) in variables.iter() {
        if usable(name) && usable(value) && !name.is_empty() && !name.contains(&b'=') {
            shell.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
    }
    shell
}

pub fn execute(command: &[u8], variables: &Variables) -> Result<(), HostError> {
    let failed = |source| HostError::Command { command: shown(command), source };
    check(command, shell(command, variables).status().map_err(failed)?)
}

/// Writes the parameter of the next reboot, where the init system looks for it.
pub fn reboot_param(path: Option<&Path>, text: &[u8]) -> Result<(), HostError> {
    let open = |path: &Path| OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| HostError::Write { path, source }
    };
    let (path, opened) = match path {
        Some(path) => (path, open(path)),
        None => match open(Path::new(SYSTEMD_REBOOT_PARAM)) {
            Ok(file) => (Path::new(SYSTEMD_REBOOT_PARAM), Ok(file)),
            Err(_) => (Path::new(REBOOT_PARAM), open(Path::new(REBOOT_PARAM))),
        },
    };
    opened.and_then(|mut file| file.write_all(text)).map_err(failed(path))
}

/// Where the data of a resource goes outside of the destination.
pub enum HostWriter {
    /// `path_write`
    File { path: PathBuf, file: File },
    /// `pipe_write`
    Pipe { command: Vec<u8>, child: Child, failed: Option<io::Error> },
    /// `ubi_volume_write`
    Volume { path: PathBuf, file: File },
}

impl HostWriter {
    pub fn file(path: &[u8]) -> Result<Self, HostError> {
        let path = PathBuf::from(OsStr::from_bytes(path));
        match File::create(&path) {
            Ok(file) => Ok(Self::File { path, file }),
            Err(source) => Err(HostError::Write { path, source }),
        }
    }

    pub fn pipe(command: &[u8], variables: &Variables) -> Result<Self, HostError> {
        let child = shell(command, variables).stdin(Stdio::piped()).spawn();
        let child = child.map_err(|source| HostError::Command { command: shown(command), source })?;
        Ok(Self::Pipe { command: command.to_vec(), child, failed: None })
    }

    /// A UBI volume must know how much comes; closing it commits the update.
    pub fn volume(device: &[u8], size: u64) -> Result<Self, HostError> {
        let path = PathBuf::from(OsStr::from_bytes(device));
        let opened = OpenOptions::new().write(true).open(&path).and_then(|file| {
            sys::ubi_start_update(&file, i64::try_from(size).map_err(io::Error::other)?)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Self::Volume { path, file }),
            Err(source) => Err(HostError::Write { path, source }),
        }
    }

    pub fn write(&mut self, piece: &Piece) -> Result<(), HostError> {
        match self {
            Self::File { path, file } => write_with_holes(file, piece)
                .map_err(|source| HostError::Write { path: path.clone(), source }),
            Self::Volume { path, file } => {
                write_plain(file, piece).map_err(|source| HostError::Write { path: path.clone(), source })
            }
            Self::Pipe { child, failed, .. } => {
                // A command may stop reading; what counts is how it ends.
                if let (Some(stdin), None) = (&mut child.stdin, &failed) {
                    *failed = write_plain(stdin, piece).err();
                }
                Ok(())
            }
        }
    }

    /// Ends it: the file is on its medium, the command has ended well, the update of the volume is committed.
    pub fn finish(self) -> Result<(), HostError> {
        match self {
            Self::File { path, file } => {
                sync_where_possible(&file).map_err(|source| HostError::Write { path, source })
            }
            Self::Volume { path, file } => {
                nix::unistd::close(file).map_err(|errno| HostError::Write { path, source: errno.into() })
            }
            Self::Pipe { command, mut child, failed } => {
                drop(child.stdin.take());
                let status = child.wait();
                check(
                    &command,
                    status.map_err(|e| HostError::Command { command: shown(&command), source: e })?,
                )?;
                match failed {
                    Some(source) => Err(HostError::Command { command: shown(&command), source }),
                    None => Ok(()),
                }
            }
        }
    }
}

fn write_with_holes(file: &mut File, piece: &Piece) -> io::Result<()> {
    match piece {
        Piece::Data(bytes) => file.write_all(bytes),
        Piece::Hole { length, last } => {
            let skipped = if *last { length - 1 } else { *length };
            file.seek(SeekFrom::Current(i64::try_from(skipped).map_err(io::Error::other)?))?;
            if *last { file.write_all(&[0]) } else { Ok(()) }
        }
    }
}

fn write_plain(out: &mut impl Write, piece: &Piece) -> io::Result<()> {
    match piece {
        Piece::Data(bytes) => out.write_all(bytes),
        Piece::Hole { length, .. } => io::copy(&mut io::Read::take(io::repeat(0), *length), out).map(drop),
    }
}

fn check(command: &[u8], status: ExitStatus) -> Result<(), HostError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(status), _) => Err(HostError::Status { command: shown(command), status }),
        (None, signal) => Err(HostError::Signal { command: shown(command), signal: signal.unwrap_or(0) }),
    }
}

const SYSTEMD_REBOOT_PARAM: &str = "/run/systemd/reboot-param";
const REBOOT_PARAM: &str = "/run/reboot-param";

#[derive(Debug, Error)]
pub enum HostError {
    #[error("cannot run '{command}': {source}")]
    Command { command: String, source: io::Error },
    #[error("'{command}' failed with exit status {status}")]
    Status { command: String, status: i32 },
    #[error("'{command}' was ended by signal {signal}")]
    Signal { command: String, signal: i32 },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}
