//! Unmounting what is mounted from the destination.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::DiskError;
use crate::fwup::output::Output;

/// Unmounts everything whose device name begins with the path, in the order of the list.
pub fn unmount_all(device: &Path, output: &Output) -> Result<(), DiskError> {
    let mounts = std::fs::read("/proc/mounts").map_err(|source| DiskError::Mounts { source })?;
    for mount_point in mounted_from(device, &mounts) {
        if !unmount(&mount_point) {
            output.info(format!("cannot unmount {}", mount_point.display()));
            return Err(DiskError::Unmount { path: mount_point });
        }
    }
    Ok(())
}

fn mounted_from(device: &Path, mounts: &[u8]) -> Vec<PathBuf> {
    let lines = mounts.split(|&byte| byte == b'\n');
    let mount_point = |line: &[u8]| {
        let mut words = line.split(|&byte| byte == b' ');
        let from = decode(words.next()?);
        from.starts_with(device.as_os_str().as_bytes()).then_some(())?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(decode(words.next()?))))
    };
    lines.filter_map(mount_point).collect()
}

/// Where somebody keeps /etc/mtab, umount(8) must know what happens.
fn unmount(mount_point: &Path) -> bool {
    if Path::new("/etc/mtab").exists() {
        return Command::new("/bin/umount").arg(mount_point).status().is_ok_and(|status| status.success());
    }
    nix::mount::umount(OsStr::new(mount_point)).is_ok()
}

/// Undoes the octal escapes of /proc/mounts, such as `\040` for a space.
fn decode(word: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                text.push(value);
                rest = &after[3..];
            }
            _ => {
                text.push(byte);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_the_device_are_found() {
        let mounts =
            b"/dev/sdb1 /media/a\\040b vfat rw 0 0\nproc /proc proc rw 0 0\n/dev/sdc1 /c ext4 rw 0 0\n\
                       /dev/sdb2 /d ext4 rw 0 0\n";
        let found = mounted_from(Path::new("/dev/sdb"), mounts);
        assert_eq!(found, [Path::new("/media/a b"), Path::new("/d")]);
    }
}
