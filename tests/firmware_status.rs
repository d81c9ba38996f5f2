#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
//! `myelin firmware status` on a disk image with a redundant environment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

const SIZE: usize = 0x8000;
const OFFSETS: [usize; 2] = [0x20000, 0x40000];

struct Device {
    folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let disk = path("disk.img");
        fs::write(&disk, vec![0; 0x60000]).unwrap();
        let lines = OFFSETS.map(|offset| format!("{} {offset:#x} {SIZE:#x}\n", disk.display()));
        fs::write(path("fw_env.config"), lines.concat()).unwrap();
        let config = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\n[firmware]\ndevpath = {disk:?}\nenv_config = {:?}\n",
            path("state"),
            path("run"),
            path("fw_env.config")
        );
        fs::write(path("config.toml"), config).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes one copy of the environment as U-Boot lays it out.
    fn put(&self, copy: usize, flags: u8, variables: &[&str]) {
        let mut data = variables.concat().replace(' ', "\0").into_bytes();
        data.extend([0, 0]);
        data.resize(SIZE - 5, 0xFF);
        let mut block = crc32fast::hash(&data).to_le_bytes().to_vec();
        block.push(flags);
        block.extend(data);
        let mut disk = fs::read(self.path("disk.img")).unwrap();
        disk[OFFSETS[copy]..][..SIZE].copy_from_slice(&block);
        fs::write(self.path("disk.img"), disk).unwrap();
    }

    fn status(&self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.args(["firmware", "status", "--json", "--config"]).arg(self.path("config.toml"));
        let output = command.output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

const OLD: &str = "a.nerves_fw_uuid=one a.nerves_fw_version=1.0 nerves_fw_active=a nerves_fw_validated=1";
const NEW: &str = "a.nerves_fw_uuid=one b.nerves_fw_uuid=two b.nerves_fw_version=2.0 nerves_fw_active=b nerves_fw_validated=0";

#[test]
fn the_choice_flips_with_the_update_and_the_running_slot_with_the_reboot() {
    let device = Device::new();
    device.put(0, 1, &[OLD]);
    let before = device.status();
    assert_eq!((&before["running"], &before["next"]), (&json!("a"), &json!("a")));
    assert_eq!(before["slots"]["a"]["validated"], true);
    assert_eq!(before["devpath"], json!(device.path("disk.img")));

    device.put(1, 2, &[NEW]);
    let updated = device.status();
    assert_eq!((&updated["running"], &updated["next"]), (&json!("a"), &json!("b")));
    assert_eq!(updated["slots"]["b"]["version"], "2.0");
    assert_eq!(updated["slots"]["b"]["validated"], false);
    assert_eq!(updated["boot_id"], before["boot_id"]);

    // What stands in for a reboot.
    fs::remove_dir_all(device.path("run")).unwrap();
    let rebooted = device.status();
    assert_eq!((&rebooted["running"], &rebooted["next"]), (&json!("b"), &json!("b")));
    assert_ne!(rebooted["boot_id"], before["boot_id"]);
}

#[test]
fn a_damaged_copy_leaves_the_other_and_two_leave_nothing_known() {
    let device = Device::new();
    device.put(0, 1, &[OLD]);
    device.put(1, 2, &[NEW]);
    let damage = |offset: usize| {
        let mut disk = fs::read(device.path("disk.img")).unwrap();
        disk[offset + 1000] ^= 1;
        fs::write(device.path("disk.img"), disk).unwrap();
    };
    damage(OFFSETS[1]);
    assert_eq!(device.status()["next"], "a");
    damage(OFFSETS[0]);
    let status = device.status();
    assert_eq!((&status["next"], &status["slots"]["a"]["uuid"]), (&json!(null), &json!(null)));
    assert!(status["problem"].as_str().unwrap().contains("neither copy"));
}
