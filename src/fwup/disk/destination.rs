//! Opening the destination: what it is, how large it is, and what follows from that.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::medium::{Kind, Medium};
use super::{BLOCK, DiskError, mounts, running_root};
use crate::fwup::options::Options;
use crate::fwup::output::Output;

/// Opens the destination, once for the whole run.
pub fn open(path: &Path, options: &Options, output: &Output) -> Result<Medium, DiskError> {
    let failed = |source| DiskError::Open { path: path.into(), source };
    let metadata = path.metadata().ok();
    let is_regular = match &metadata {
        Some(metadata) => metadata.is_file(),
        None => !path.starts_with("/dev/"),
    };
    let max_size = options.max_size.map(|blocks| blocks.saturating_mul(BLOCK as u64));
    if path == Path::new("/dev/null") {
        let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        return Ok(medium(file, Kind::Null));
    }
    if is_regular {
        if metadata.as_ref().is_some_and(|metadata| metadata.permissions().mode() & 0o222 == 0) {
            return Err(DiskError::ReadOnly { path: path.into() });
        }
        if options.enable_trim {
            output.info("--enable-trim has no effect on a regular file");
        }
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o644);
        let file = open.open(path).map_err(failed)?;
        return Ok(Medium {
            hard_limit: max_size,
            soft_limit: metadata.map(|metadata| metadata.len()).filter(|&length| length > 0),
            verify: options.verify_writes.unwrap_or(false),
            minimize: options.minimize_writes,
            ..medium(file, Kind::Regular)
        });
    }
    if options.unmount {
        mounts::unmount_all(path, output)?;
    }
    let mut open = OpenOptions::new();
    open.read(true).write(true).custom_flags(libc::O_DIRECT);
    let mut file = match open.open(path) {
        // Some drivers have no direct access (open(2)).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open.custom_flags(0).open(path),
        opened => opened,
    }
    .map_err(failed)?;
    let size = file.seek(SeekFrom::End(0)).ok().filter(|&size| size > 0);
    if size.is_none() {
        output.info(format!("cannot find out the size of {}", path.display()));
    }
    Ok(Medium {
        hard_limit: match (size, max_size) {
            (Some(size), Some(limit)) => Some(size.min(limit)),
            (size, limit) => size.or(limit),
        },
        verify: options.verify_writes.unwrap_or(true),
        minimize: options.minimize_writes,
        discards: options.enable_trim,
        running_root: running_root::blocks_on(&file),
        ..medium(file, Kind::Device)
    })
}

fn medium(file: File, kind: Kind) -> Medium {
    let (hard_limit, soft_limit, running_root) = (None, None, None);
    Medium {
        file,
        kind,
        hard_limit,
        soft_limit,
        running_root,
        verify: false,
        minimize: false,
        discards: false,
    }
}
