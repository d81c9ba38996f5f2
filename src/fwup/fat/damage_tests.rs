//! Damaged volumes: whatever the bytes are, every operation ends, soon, and without a panic.

use super::tests::{Ram, copy_file, read_file, write_file};
use super::*;

/// Most requests that the operations below may need on a volume of some MiB; a loop needs more.
const PATIENCE: u64 = 400_000;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn built(blocks: usize) -> Ram {
    let mut dev = Ram::new(blocks);
    mkfs(&mut dev, 0, blocks as u64).expect("a volume is made");
    let mut vol = Volume::open(&mut dev, 0).expect("the volume opens");
    let content: Vec<u8> = (0..60_000).map(|i| i as u8).collect();
    vol.mkdir(&mut dev, "sub").expect("a folder is made");
    vol.mkdir(&mut dev, "sub/deeper").expect("a folder is made");
    for i in 0..20 {
        vol.touch(&mut dev, &format!("sub/some long file name {i}")).expect("a file is made");
    }
    write_file(&mut vol, &mut dev, "sub/deeper/Kernel image", &content).expect("a file is written");
    write_file(&mut vol, &mut dev, "config.txt", &content[..700]).expect("a file is written");
    dev
}

/// Everything once; errors are fine.
fn use_it(dev: &mut Ram) {
    let Ok(mut vol) = Volume::open(dev, 0) else { return };
    let vol = &mut vol;
    let _ = vol.is_file(dev, "sub/deeper/kernel image");
    let _ = read_file(vol, dev, "sub/deeper/kernel image");
    let _ = copy_file(vol, dev, "sub/deeper/Kernel image", "sub/copy of it");
    let _ = write_file(vol, dev, "config.txt", &[7; 5000]);
    let _ = vol.set_label(dev, "x");
    let _ = vol.mkdir(dev, "sub/another folder with a long name");
    let _ = vol.touch(dev, "sub/some long file name 100");
    let _ = vol.rename(dev, "sub/deeper", "moved", true);
    let _ = vol.rename(dev, "config.txt", "moved/Kernel image", true);
    let _ = vol.attrib(dev, "moved/kernel image", true, true, true);
    let _ = vol.remove(dev, "sub/deeper/Kernel image", false);
    let _ = vol.remove(dev, "sub/some long file name 3", true);
    let _ = vol.remove(dev, "sub", false);
    let _ = vol.flush(dev);
}

/// `seeds` volumes, each with some of its first bytes changed: boot sector, tables, folders.
fn mutate(blocks: usize, seeds: std::ops::Range<u64>, area: usize) {
    let good = built(blocks);
    for seed in seeds {
        let mut state = seed * 2 + 1;
        let mut dev = Ram::with(good.bytes.clone());
        for _ in 0..=random(&mut state) % 24 {
            // Half of the changes go to where it hurts most.
            let within = if random(&mut state) & 1 == 0 { 64 } else { area };
            let at = random(&mut state) as usize % within;
            dev.bytes[at] = match random(&mut state) % 4 {
                0 => 0,
                1 => 0xFF,
                _ => random(&mut state) as u8,
            };
        }
        use_it(&mut dev);
        assert!(dev.requests < PATIENCE, "seed {seed}: {} requests", dev.requests);
    }
}

#[test]
fn changed_bytes_never_crash_or_hang() {
    mutate(2048, 0..1500, 60 * SECTOR);
    mutate(4200, 1500..2000, 70 * SECTOR);
    mutate(66_600, 2000..2200, 1100 * SECTOR);
}

#[test]
fn changed_tables_and_folders_never_crash_or_hang() {
    let good = built(2048);
    // Only the tables and folders: the boot sector stays good, so that every operation gets far.
    for seed in 0..1500u64 {
        let mut state = seed * 2 + 1;
        let mut dev = Ram::with(good.bytes.clone());
        for _ in 0..=random(&mut state) % 60 {
            let at = SECTOR + random(&mut state) as usize % (55 * SECTOR);
            dev.bytes[at] = random(&mut state) as u8 & if seed % 2 == 0 { 0xFF } else { 0x3F };
        }
        use_it(&mut dev);
        assert!(dev.requests < PATIENCE, "seed {seed}: {} requests", dev.requests);
    }
}

#[test]
fn loops_end() {
    let mut dev = built(2048);
    let table = |dev: &mut Ram, cluster: usize, next: u16| {
        let at = SECTOR + cluster + cluster / 2;
        let old = u16_at(&dev.bytes, at);
        put_u16(
            &mut dev.bytes,
            at,
            if cluster % 2 == 1 { old & 0xF | next << 4 } else { old & 0xF000 | next },
        );
    };
    // The first cluster of "sub" follows itself, and no entry in it is the last one.
    table(&mut dev, 2, 2);
    let mut vol = Volume::open(&mut dev, 0).expect("the volume opens");
    let missing = vol.is_file(&mut dev, "sub/not there");
    assert!(matches!(missing, Err(FatError::Damaged(_))), "{missing:?}");
    assert!(dev.requests < PATIENCE);
}

#[test]
fn an_interruption_at_any_write_leaves_the_other_files_alone() {
    let good = built(2048);
    let content = vec![9; 30_000];
    let work = |dev: &mut Ram| -> Result<(), FatError> {
        let mut vol = Volume::open(dev, 0)?;
        write_file(&mut vol, dev, "sub/some long file name 5", &content)?;
        write_file(&mut vol, dev, "config.txt", &content)?;
        vol.mkdir(dev, "sub/more")?;
        vol.rename(dev, "config.txt", "sub/more/a long name for it", true)?;
        vol.remove(dev, "sub/some long file name 5", true)
    };
    let mut interrupted = 0;
    loop {
        let mut dev = Ram::with(good.bytes.clone());
        dev.writes_left = interrupted;
        let done = work(&mut dev);
        dev.writes_left = u64::MAX;
        let mut vol = Volume::open(&mut dev, 0).expect("the volume opens");
        let other = read_file(&mut vol, &mut dev, "sub/deeper/Kernel image").expect("it is read");
        assert!(other.len() == 60_000 && other.iter().enumerate().all(|(i, b)| *b == i as u8));
        // What was interrupted is readable too: old, new, empty or gone, but never something else.
        for name in ["config.txt", "sub/some long file name 5", "sub/more/a long name for it"] {
            if vol.is_file(&mut dev, name).expect("the folder is read") {
                let found = read_file(&mut vol, &mut dev, name).expect("it is read");
                assert!(
                    found.is_empty() || found == content || found.len() == 700,
                    "{name}: {}",
                    found.len()
                );
            }
        }
        // And the volume can be used again.
        work(&mut dev)
            .or_else(|e| match e {
                FatError::NotFound(_) | FatError::Exists(_) => Ok(()),
                e => Err(e),
            })
            .expect("the work is done");
        if done.is_ok() {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 20);
}

#[test]
fn sizes_that_the_volume_cannot_have_are_refused() {
    let good = built(2048);
    for (at, bytes) in [
        (510, &[0, 0][..]),
        (11, &[0, 4]),
        (13, &[0]),
        (13, &[3]),
        (14, &[0, 0]),
        (16, &[0]),
        (16, &[3]),
        (17, &[0, 0]),
        (17, &[1, 0]),
        (19, &[10, 0]),
        (19, &[0xFF, 0xFF]),
        (22, &[1, 0]),
        (22, &[0xFF, 0xFF]),
    ] {
        let mut dev = Ram::with(good.bytes.clone());
        dev.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        let opened = Volume::open(&mut dev, 0);
        assert!(matches!(opened, Err(FatError::NotFat { .. })), "{at}: {bytes:?}");
    }
}
