//! Whole volumes: against an image that fwup made, and against dosfstools and mtools.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A destination in memory that delivers zeros beyond its end and counts what is asked of it.
pub(super) struct Ram {
    pub bytes: Vec<u8>,
    pub requests: u64,
    /// Writes until the power goes.
    pub writes_left: u64,
}

impl Ram {
    pub fn new(blocks: usize) -> Ram {
        Ram::with(vec![0; blocks * SECTOR])
    }

    pub fn with(bytes: Vec<u8>) -> Ram {
        Ram { bytes, requests: 0, writes_left: u64::MAX }
    }
}

impl Blocks for Ram {
    fn read(&mut self, block: u64, out: &mut [u8]) -> io::Result<()> {
        self.requests += 1;
        out.fill(0);
        if let Some(from) = self.bytes.get(block as usize * SECTOR..) {
            let n = out.len().min(from.len());
            out[..n].copy_from_slice(&from[..n]);
        }
        Ok(())
    }

    fn write(&mut self, block: u64, data: &[u8], _streamed: bool) -> io::Result<()> {
        self.requests += 1;
        self.writes_left =
            self.writes_left.checked_sub(1).ok_or_else(|| io::Error::other("the power is off"))?;
        let at = block as usize * SECTOR;
        match self.bytes.get_mut(at..at + data.len()) {
            Some(to) => to.copy_from_slice(data),
            None => return Err(io::Error::other("behind the end of the destination")),
        }
        Ok(())
    }
}

pub(super) fn write_file(
    vol: &mut Volume,
    dev: &mut Ram,
    path: &str,
    content: &[u8],
) -> Result<(), FatError> {
    let mut file = vol.create(dev, path)?;
    // Pieces of odd sizes, as they come out of a decompressor.
    for piece in content.chunks(100_001) {
        file.write(vol, dev, piece)?;
    }
    file.finish(vol, dev)
}

pub(super) fn read_file(vol: &mut Volume, dev: &mut Ram, path: &str) -> Result<Vec<u8>, FatError> {
    let mut file = vol.read(dev, path)?;
    let mut content = Vec::new();
    let mut piece = [0; 1000];
    loop {
        let n = file.read(vol, dev, &mut piece)?;
        if n == 0 {
            return Ok(content);
        }
        content.extend_from_slice(&piece[..n]);
    }
}

pub(super) fn copy_file(vol: &mut Volume, dev: &mut Ram, from: &str, to: &str) -> Result<(), FatError> {
    let mut source = vol.read(dev, from)?;
    let mut target = vol.create(dev, to)?;
    let mut piece = [0; 4096];
    loop {
        match source.read(vol, dev, &mut piece)? {
            0 => return target.finish(vol, dev),
            n => target.write(vol, dev, &piece[..n])?,
        }
    }
}

const TEXT: &[u8] = include_bytes!("../../../tests/vectors/fwup/payload/boot.txt");
const KERNEL: &[u8] = include_bytes!("../../../tests/vectors/fwup/payload/kernel.bin");
const SMALL: &[u8] = include_bytes!("../../../tests/vectors/fwup/payload/one-k.bin");
const BUILT: &[u8] = include_bytes!("../../../tests/vectors/fwup/img/fat-built.img.gz");
const LONG: &str = "sub/deeper/A long file name.img";

/// What the task `build` of the vectors does.
fn build(dev: &mut Ram, vol: &mut Volume) -> Result<(), FatError> {
    vol.set_label(dev, "VECTORS")?;
    vol.mkdir(dev, "sub")?;
    vol.mkdir(dev, "sub/")?;
    vol.mkdir(dev, "/sub/deeper")?;
    vol.touch(dev, "touched")?;
    vol.touch(dev, "touched")?;
    write_file(vol, dev, "config.txt", TEXT)?;
    write_file(vol, dev, LONG, KERNEL)?;
    copy_file(vol, dev, LONG, "Kernel8.img")?;
    write_file(vol, dev, "small", SMALL)?;
    write_file(vol, dev, "empty", b"")?;
    vol.attrib(dev, "small", true, true, true)?;
    vol.rename(dev, "config.txt", "sub/renamed.txt", false)?;
    vol.remove(dev, "touched", false)?;
    vol.remove(dev, "was/never/there", false)?;
    vol.flush(dev)
}

#[test]
fn builds_the_very_volume_that_fwup_builds() {
    let mut expected = Vec::new();
    flate2::read::GzDecoder::new(BUILT).read_to_end(&mut expected).expect("the vector is a gzip file");
    let mut dev = Ram::new(expected.len() / SECTOR);
    mkfs(&mut dev, 256, 2048).expect("a volume is made");
    let mut vol = Volume::open(&mut dev, 256).expect("the volume opens");
    build(&mut dev, &mut vol).expect("the volume is filled");
    // Behind the end of a file fwup leaves what its buffer held before; here there are zeros.
    let rest = |sector: usize| (sector * SECTOR + KERNEL.len() % SECTOR)..(sector + 1) * SECTOR;
    for ours in [rest(345), rest(385)] {
        assert!(dev.bytes[ours.clone()].iter().all(|b| *b == 0));
        expected[ours].fill(0);
    }
    let differing: Vec<usize> = (0..expected.len()).filter(|i| dev.bytes[*i] != expected[*i]).collect();
    assert!(differing.is_empty(), "bytes {:?} differ", &differing[..differing.len().min(40)]);
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("myelin-fat-{name}-{}", std::process::id()))
}

/// Lets fsck.fat look at a volume and returns what it says where it is not content.
fn fsck(volume: &[u8], name: &str) -> Option<String> {
    let path = temporary(name);
    std::fs::File::create(&path).and_then(|mut f| f.write_all(volume)).expect("the image is written");
    let out = Command::new("fsck.fat").arg("-n").arg(&path).output().expect("dosfstools are installed");
    let _ = std::fs::remove_file(&path);
    (!out.status.success()).then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program of mtools on a volume.
fn mtool(volume: &[u8], name: &str, program: &str, args: &[&str]) -> Vec<u8> {
    let path = temporary(name);
    std::fs::File::create(&path).and_then(|mut f| f.write_all(volume)).expect("the image is written");
    let out = Command::new(program)
        .env("MTOOLS_SKIP_CHECK", "1")
        .arg("-i")
        .arg(&path)
        .args(args)
        .output()
        .expect("mtools are installed");
    let _ = std::fs::remove_file(&path);
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 509) as u8).collect()
}

#[test]
fn every_kind_of_volume_passes_fsck_and_mtools_reads_it() {
    for (name, blocks) in [("fat12", 2048), ("fat12max", 4085), ("fat16", 16321), ("fat32", 77238)] {
        let mut dev = Ram::new(blocks);
        mkfs(&mut dev, 0, blocks as u64).expect("a volume is made");
        assert_eq!(fsck(&dev.bytes, name), None, "{name}, empty");
        let mut vol = Volume::open(&mut dev, 0).expect("the volume opens");
        build(&mut dev, &mut vol).expect("the volume is filled");
        // The boot sector says NO NAME whatever the label is (as fwup has it); fsck.fat dislikes that.
        vol.set_label(&mut dev, "").expect("the label is removed");
        let large = pattern(blocks * SECTOR / 3 + 7);
        write_file(&mut vol, &mut dev, "Large one.bin", &large).expect("a large file is written");
        write_file(&mut vol, &mut dev, "LARGE ONE.BIN", &large[1..]).expect("it is written again");
        assert_eq!(fsck(&dev.bytes, name), None, "{name}, filled");
        assert!(mtool(&dev.bytes, name, "mtype", &["::large one.bin"]) == large[1..], "{name}");
        assert!(mtool(&dev.bytes, name, "mtype", &["::sub/deeper/A long file name.img"]) == KERNEL, "{name}");
        let names = mtool(&dev.bytes, name, "mdir", &["-b", "-/", "-a", "::"]);
        let names = String::from_utf8_lossy(&names).into_owned();
        for wanted in ["::/Kernel8.img", "::/Large one.bin", "::/sub/renamed.txt", "::/small"] {
            assert!(names.lines().any(|l| l == wanted), "{name}: {wanted} is missing in\n{names}");
        }
        assert!(read_file(&mut vol, &mut dev, "large one.BIN").expect("it is read") == large[1..], "{name}");
    }
}

#[test]
fn volumes_of_dosfstools_with_large_clusters_are_used() {
    for (name, args, blocks) in [
        ("dos16", &["-F", "16", "-s", "8"][..], 131_072),
        ("dos32", &["-F", "32", "-s", "2"][..], 200_000),
        ("dos12", &["-F", "12", "-s", "4", "-f", "1"][..], 8000),
    ] {
        let path = temporary(&format!("{name}-made"));
        let file = std::fs::File::create(&path).expect("the image is created");
        file.set_len(blocks * SECTOR as u64).expect("the image gets its size");
        let made = Command::new("mkfs.fat").args(args).arg(&path).output().expect("dosfstools are installed");
        assert!(made.status.success());
        let mut dev = Ram::with(std::fs::read(&path).expect("the image is read"));
        let _ = std::fs::remove_file(&path);
        let mut vol = Volume::open(&mut dev, 0).expect("the volume opens");
        build(&mut dev, &mut vol).expect("the volume is filled");
        vol.set_label(&mut dev, "").expect("the label is removed");
        let large = pattern(1_000_001);
        write_file(&mut vol, &mut dev, "sub/large.bin", &large).expect("a large file is written");
        assert_eq!(fsck(&dev.bytes, name), None, "{name}");
        assert!(read_file(&mut vol, &mut dev, "sub/large.bin").expect("it is read") == large, "{name}");
        vol.remove(&mut dev, "sub/large.bin", true).expect("it is removed");
        vol.remove(&mut dev, LONG, true).expect("it is removed");
        vol.remove(&mut dev, "sub/deeper", true).expect("the folder is removed");
        assert_eq!(fsck(&dev.bytes, name), None, "{name}");
    }
}

fn fresh(blocks: usize) -> (Ram, Volume) {
    let mut dev = Ram::new(blocks);
    mkfs(&mut dev, 0, blocks as u64).expect("a volume is made");
    let vol = Volume::open(&mut dev, 0).expect("the volume opens");
    (dev, vol)
}

#[test]
fn many_long_names_extend_a_folder_and_get_different_short_names() {
    let (mut dev, mut vol) = fresh(77238);
    vol.mkdir(&mut dev, "overlays").expect("a folder is made");
    for i in 0..300 {
        let path = format!("overlays/a rather long name, number {i}.dtbo");
        write_file(&mut vol, &mut dev, &path, path.as_bytes()).expect("a file is written");
    }
    for i in (0..300).step_by(2) {
        vol.remove(&mut dev, &format!("overlays/a rather long name, number {i}.dtbo"), true)
            .expect("removed");
    }
    for i in 0..200 {
        vol.touch(&mut dev, &format!("overlays/another file with a long name {i}")).expect("a file is made");
    }
    assert_eq!(fsck(&dev.bytes, "names"), None);
    for i in (1..300).step_by(2) {
        let path = format!("overlays/a rather long name, number {i}.dtbo");
        assert_eq!(read_file(&mut vol, &mut dev, &path).expect("it is read"), path.as_bytes());
    }
}

#[test]
fn a_full_root_folder_and_a_full_volume_are_errors() {
    let (mut dev, mut vol) = fresh(128);
    let refused = (0..600).map(|i| vol.touch(&mut dev, &format!("f{i}"))).find_map(Result::err);
    assert!(matches!(refused, Some(FatError::FolderFull(_))), "{refused:?}");
    assert_eq!(fsck(&dev.bytes, "fullroot"), None);

    let (mut dev, mut vol) = fresh(128);
    let refused = write_file(&mut vol, &mut dev, "large", &pattern(128 * SECTOR));
    assert!(matches!(refused, Err(FatError::Full)), "{refused:?}");
    vol.remove(&mut dev, "large", true).expect("it is removed");
    assert!(matches!(vol.mkdir(&mut dev, "f"), Err(FatError::Full)));
}

#[test]
fn renaming_follows_the_rules() {
    let (mut dev, mut vol) = fresh(4085);
    vol.mkdir(&mut dev, "a").expect("a folder is made");
    vol.mkdir(&mut dev, "a/b").expect("a folder is made");
    write_file(&mut vol, &mut dev, "a/b/file", b"1").expect("a file is written");
    write_file(&mut vol, &mut dev, "other", b"2").expect("a file is written");
    let dev = &mut dev;

    assert!(matches!(vol.rename(dev, "a", "a/b/c", false), Err(FatError::IntoItself(_))));
    assert!(matches!(vol.rename(dev, "nosuch", "x", true), Err(FatError::NotFound(_))));
    assert!(matches!(vol.rename(dev, "a/b/file", "other", false), Err(FatError::Exists(_))));
    vol.rename(dev, "a/b/file", "other", true).expect("it replaces the other");
    assert_eq!(read_file(&mut vol, dev, "other").expect("it is read"), b"1");
    vol.rename(dev, "other", "OTHER", false).expect("the case changes");
    vol.rename(dev, "OTHER", "OTHER", true).expect("nothing changes");
    assert_eq!(read_file(&mut vol, dev, "other").expect("it is read"), b"1");
    vol.rename(dev, "a/b", "moved", false).expect("a folder moves");
    vol.touch(dev, "moved/x").expect("a file is made");
    assert_eq!(fsck(&dev.bytes, "rename"), None);
    assert!(matches!(vol.remove(dev, "moved", true), Err(FatError::NotEmpty(_))));
    vol.remove(dev, "a", true).expect("the empty folder is removed");
    assert_eq!(fsck(&dev.bytes, "rename"), None);
}

#[test]
fn attributes_and_labels_are_kept_and_respected() {
    let (mut dev, mut vol) = fresh(4085);
    let dev = &mut dev;
    vol.touch(dev, "f").expect("a file is made");
    assert!(matches!(vol.attrib(dev, "nosuch", true, false, false), Err(FatError::NotFound(_))));
    vol.attrib(dev, "f", true, false, true).expect("attributes are set");
    assert!(matches!(vol.remove(dev, "f", false), Err(FatError::ReadOnly(_))));
    assert!(matches!(vol.create(dev, "f"), Err(FatError::ReadOnly(_))));
    vol.touch(dev, "f").expect("touching changes nothing");
    vol.attrib(dev, "f", false, false, false).expect("attributes are cleared");
    vol.remove(dev, "f", true).expect("it is removed");
    assert!(matches!(vol.remove(dev, "f", true), Err(FatError::NotFound(_))));

    vol.set_label(dev, "boot-a").expect("a label is set");
    vol.set_label(dev, "boot-b").expect("a label is replaced");
    let label =
        |dev: &Ram| String::from_utf8_lossy(&mtool(&dev.bytes, "label", "mdir", &["::"])).into_owned();
    assert!(label(dev).contains("is BOOT-B"), "{}", label(dev));
    assert!(!vol.is_file(dev, "BOOT-B").expect("it is looked for"), "a label is no file");
    vol.set_label(dev, "").expect("a label is removed");
    assert!(label(dev).contains("has no label"), "{}", label(dev));
    for bad in ["twelve chars", "a.b", "a?b"] {
        assert!(matches!(vol.set_label(dev, bad), Err(FatError::Label(_))), "{bad}");
    }
}

#[test]
fn files_and_folders_are_told_apart() {
    let (mut dev, mut vol) = fresh(4085);
    let dev = &mut dev;
    vol.mkdir(dev, "d").expect("a folder is made");
    vol.touch(dev, "f").expect("a file is made");
    assert!(vol.is_file(dev, "F").expect("it is looked for"));
    assert!(!vol.is_file(dev, "d").expect("it is looked for"));
    assert!(!vol.is_file(dev, "d/x").expect("it is looked for"));
    assert!(matches!(vol.mkdir(dev, "f"), Err(FatError::Exists(_))));
    assert!(matches!(vol.touch(dev, "d"), Err(FatError::IsFolder(_))));
    assert!(matches!(vol.create(dev, "d"), Err(FatError::IsFolder(_))));
    assert!(matches!(vol.read(dev, "d"), Err(FatError::IsFolder(_))));
    assert!(matches!(vol.create(dev, "f/x"), Err(FatError::NoFolder(_))));
    assert!(matches!(vol.mkdir(dev, "no/such"), Err(FatError::NoFolder(_))));
    assert!(matches!(vol.touch(dev, "/"), Err(FatError::Name(_))));
    assert!(matches!(vol.touch(dev, "d/../x"), Err(FatError::Name(_))));
}
