//! Archives, configurations and file systems, as the applet meets them.

use std::io;
use std::path::PathBuf;

use super::archive::reader::ArchiveReader;
use super::fat::{Blocks, Volume};
use super::firmware::Metadata;
use super::language::parser::{read_configuration, read_meta_conf};
use super::language::variables::Variables;

/// What an archive of a few KiB may unpack to; the applet itself has no such limit.
const MOST: usize = 1 << 20;

/// An archive, read to its end.
pub fn archive(data: &[u8]) {
    let _ = Metadata::read(data);
    let (mut archive, mut buffer, mut read) = (ArchiveReader::new(data), [0; 4096], 0);
    while let Ok(Some(_)) = archive.next_entry() {
        while read < MOST
            && let Ok(count @ 1..) = archive.read(&mut buffer)
        {
            read += count;
        }
    }
}

/// `meta.conf` of an archive.
pub fn meta_conf(data: &[u8]) {
    let _ = read_meta_conf(data.to_vec(), &mut Variables::default());
}

/// A configuration to make an archive of, in a folder with nothing to include.
pub fn fwup_conf(data: &[u8]) {
    let folder = PathBuf::from("/proc/self/nothing");
    let _ = read_configuration("fwup.conf".into(), folder, data.to_vec(), &mut Variables::default());
}

/// A FAT file system, and everything that is done to one.
pub fn fat(data: &[u8]) {
    let mut disk = Disk(data.to_vec());
    let Ok(mut volume) = Volume::open(&mut disk, 0) else { return };
    let _ = volume.is_file(&mut disk, "boot.txt");
    if let Ok(mut file) = volume.read(&mut disk, "boot.txt") {
        let mut piece = [0; 512];
        for _ in 0..64 {
            if !matches!(file.read(&mut volume, &mut disk, &mut piece), Ok(1..)) {
                break;
            }
        }
    }
    let _ = volume.mkdir(&mut disk, "a folder");
    let _ = volume.touch(&mut disk, "a folder/a longer name.txt");
    if let Ok(mut file) = volume.create(&mut disk, "b.bin")
        && file.write(&mut volume, &mut disk, &[7; 3000]).is_ok()
    {
        let _ = file.finish(&mut volume, &mut disk);
    }
    let _ = volume.rename(&mut disk, "b.bin", "boot.txt", true);
    let _ = volume.set_label(&mut disk, "FUZZ");
    let _ = volume.remove(&mut disk, "boot.txt", false);
    let _ = volume.flush(&mut disk);
}

/// What is behind the end reads as zeros and cannot be written.
struct Disk(Vec<u8>);

impl Blocks for Disk {
    fn read(&mut self, block: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let from = usize::try_from(block).ok().and_then(|block| self.0.get(block.checked_mul(512)?..));
        let from = from.unwrap_or_default();
        let count = out.len().min(from.len());
        out[..count].copy_from_slice(&from[..count]);
        Ok(())
    }

    fn write(&mut self, block: u64, data: &[u8], _streamed: bool) -> io::Result<()> {
        let at = usize::try_from(block).ok().and_then(|block| block.checked_mul(512));
        let to = at.and_then(|at| self.0.get_mut(at..at.checked_add(data.len())?));
        to.ok_or_else(|| io::Error::other("behind the end"))?.copy_from_slice(data);
        Ok(())
    }
}
