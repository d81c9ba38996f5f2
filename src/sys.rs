//! System calls that no crate of ours wraps. The only `unsafe` of the daemon is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets a write to a closed pipe end the process, as users of `| head` expect from a command.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The error of the last system call, for wrappers that return -1.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Tells a block device that a range of bytes holds nothing any more.
pub fn discard(device: &impl AsFd, start: u64, length: u64) -> io::Result<()> {
    let range = [start, length];
    // SAFETY: BLKDISCARD reads two 64-bit numbers through its argument and keeps no pointer.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKDISCARD, range.as_ptr()) }).map(drop)
}

/// Starts writing a range of a file back, without waiting. Only a hint, so that there is no result.
pub fn start_writeback(file: &impl AsFd, offset: u64, length: u64) {
    let (file, flags) = (file.as_fd().as_raw_fd(), libc::SYNC_FILE_RANGE_WRITE);
    // SAFETY: takes numbers only; an invalid range is an error, which is of no interest here.
    unsafe { libc::sync_file_range(file, offset as _, length as _, flags) };
}

/// Announces an update of so many bytes to a UBI volume; the writes that follow are its content.
pub fn ubi_start_update(volume: &impl AsFd, length: i64) -> io::Result<()> {
    // SAFETY: UBI_IOCVOLUP reads one 64-bit number through its argument and keeps no pointer.
    check(unsafe { libc::ioctl(volume.as_fd().as_raw_fd(), UBI_IOCVOLUP, &raw const length) }).map(drop)
}

/// linux/fs.h: `_IO(0x12, 119)`
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);
/// mtd/ubi-user.h: `_IOW('O', 0, __s64)`
const UBI_IOCVOLUP: libc::Ioctl = libc::_IOW::<i64>(b'O' as u32, 0);
