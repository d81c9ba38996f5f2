//! Where on the destination the root file system lies that this system runs from. No action writes there, whatever
//! the archive says of the layout: a device with a half overwritten root can be lost.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::files;

/// Numbers in sysfs are short.
const MAX_NUMBER: u64 = 64;

/// In blocks. `None` where `/` is on another device, or on something that is none (an overlay, memory).
pub fn blocks_on(device: &File) -> Option<Range<u64>> {
    let root = Path::new("/").metadata().ok()?.dev();
    range(Path::new("/sys/dev/block"), root, device.metadata().ok()?.rdev())
}

fn range(sysfs: &Path, root: u64, device: u64) -> Option<Range<u64>> {
    if root == device {
        return Some(0..u64::MAX);
    }
    // A link into the folder of its disk (sysfs-block).
    let partition = sysfs.join(numbers(root)).canonicalize().ok()?;
    let read = |path: &Path| {
        let bytes = files::read_limited(path, MAX_NUMBER).ok()?;
        String::from_utf8(bytes).ok().map(|text| text.trim().to_owned())
    };
    if read(&partition.parent()?.join("dev"))? != numbers(device) {
        return None;
    }
    let start: u64 = read(&partition.join("start"))?.parse().ok()?;
    let size: u64 = read(&partition.join("size"))?.parse().ok()?;
    Some(start..start.saturating_add(size))
}

fn numbers(device: u64) -> String {
    format!("{}:{}", libc::major(device), libc::minor(device))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_partition_is_found_on_its_own_disk_only() {
        let folder = tempfile::tempdir().unwrap();
        let partition = folder.path().join("devices/mmcblk0/mmcblk0p5");
        files::make_dir(&partition, 0o755).unwrap();
        for (name, text) in [("start", "233472\n"), ("size", "262144\n"), ("../dev", "179:0\n")] {
            files::replace(&partition.join(name), text.as_bytes(), 0o644).unwrap();
        }
        symlink(&partition, folder.path().join("179:5")).unwrap();
        let find = |root, device| range(folder.path(), root, device);
        let (disk, root) = (libc::makedev(179, 0), libc::makedev(179, 5));
        assert_eq!(find(root, disk), Some(233_472..495_616));
        assert_eq!(find(root, libc::makedev(8, 0)), None);
        assert_eq!(find(libc::makedev(0, 25), disk), None);
        assert_eq!(find(root, root), Some(0..u64::MAX));
    }
}
