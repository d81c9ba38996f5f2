//! Firmware with two slots, made from demo/fwup.conf, and a device whose disk is an image file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::{Device, is_running, new_folder, random_bytes, signal, wait_until};

const SLOT_A: u64 = 1024 * 512;
const SLOT_B: u64 = SLOT_A + 131_072 * 512;

/// One version: the archive, and what it puts into a slot.
pub struct Firmware {
    pub version: String,
    pub rootfs: Vec<u8>,
    pub archive: Vec<u8>,
    pub path: PathBuf,
}

impl Firmware {
    /// Makes version `number`.0.0 in `folder`, with a root file system of `length` bytes.
    pub fn make(folder: &Path, number: u64, length: usize) -> Self {
        let version = format!("{number}.0.0");
        let (rootfs, image) = (random_bytes(length, number), folder.join(format!("{version}.rootfs")));
        fs::write(&image, &rootfs).unwrap();
        let path = folder.join(format!("{version}.fw"));
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/fwup.conf");
        let mut create = fwup();
        create.env("FW_VERSION", &version).env("ROOTFS", &image).args(["-c", "-f"]).arg(conf).arg("-o");
        succeed(create.arg(&path));
        Self { version, rootfs, archive: fs::read(&path).unwrap(), path }
    }

    /// Where the entries end that an update needs and the archive's list of contents begins, as the last 22
    /// bytes of the archive say.
    pub fn end_of_entries(&self) -> usize {
        let field = &self.archive[self.archive.len() - 6..][..4];
        u32::from_le_bytes(field.try_into().unwrap()) as usize
    }

    pub fn uuid(&self) -> String {
        let output = fwup().args(["-m", "-i"]).arg(&self.path).output().unwrap();
        let metadata = String::from_utf8(output.stdout).unwrap();
        let line = metadata.lines().find_map(|line| line.strip_prefix("meta-uuid=")).unwrap();
        line.trim_matches('"').to_owned()
    }
}

/// The applet.
pub fn fwup() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.arg("fwup");
    command
}

pub fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A device that runs version 1 from slot a of its disk image.
pub struct Board {
    pub device: Device,
    pub v1: Firmware,
    pub v2: Firmware,
}

impl Board {
    /// `firmware` are more lines of `[firmware]`; the folder stands for `{folder}` in them. Without a
    /// `success_action` there is none.
    pub fn start(firmware: &str) -> Self {
        let (folder, public_key) = new_folder();
        let path = folder.path();
        let (v1, v2) = (Firmware::make(path, 1, SIZE), Firmware::make(path, 2, SIZE));
        let disk = path.join("disk.img");
        succeed(fwup().args(["-a", "-d"]).arg(&disk).arg("-i").arg(&v1.path).args(["-t", "complete"]));
        // Room for both slots, of which little is ever written.
        fs::File::options().write(true).open(&disk).unwrap().set_len(160 << 20).unwrap();
        let disk = disk.display();
        let env_config = path.join("fw_env.config");
        fs::write(&env_config, format!("{disk} 0x20000 0x2000\n{disk} 0x40000 0x2000\n")).unwrap();
        let action = if firmware.contains("success_action") { "" } else { "success_action = \"none\"" };
        let firmware = firmware.replace("{folder}", &path.display().to_string());
        let rest =
            format!("[firmware]\ndevpath = \"{disk}\"\nenv_config = {env_config:?}\n{action}\n{firmware}\n");
        let device = Device::start_in(folder, &public_key, "", &rest);
        Self { device, v1, v2 }
    }

    /// Another version.
    pub fn firmware(&self, number: u64) -> Firmware {
        Firmware::make(self.device.folder.path(), number, SIZE)
    }

    pub fn push(&self, firmware: &Firmware) -> Output {
        self.device.push(&firmware.archive)
    }

    /// Begins to push and sends so many bytes; fwup runs then. Close the stdin of what comes back to end the
    /// input.
    pub fn begin_push(&self, firmware: &Firmware, bytes: usize) -> Child {
        let client = self.send_part(firmware, bytes);
        wait_until("the update has begun", || self.fwup_runs());
        client
    }

    /// The same without a look at the device.
    pub fn send_part(&self, firmware: &Firmware, bytes: usize) -> Child {
        let mut client = self
            .device
            .ssh_with(&["-s"])
            .arg("fwup")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.as_mut().unwrap().write_all(&firmware.archive[..bytes]).unwrap();
        client
    }

    /// Whether a fwup works on this disk.
    pub fn fwup_runs(&self) -> bool {
        is_running(&format!("-d {} --task", self.device.path("disk.img").display()))
    }

    /// Whether a slot holds this firmware.
    pub fn holds(&self, slot: char, firmware: &Firmware) -> bool {
        let disk = fs::File::open(self.device.path("disk.img")).unwrap();
        let mut bytes = vec![0; firmware.rootfs.len()];
        disk.read_exact_at(&mut bytes, if slot == 'a' { SLOT_A } else { SLOT_B }).unwrap();
        bytes == firmware.rootfs
    }

    /// `myelin firmware status --json`.
    pub fn status(&self) -> Value {
        let output = self.device.myelin(&["firmware", "status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The slot that runs, and the one that comes next.
    pub fn slots(&self) -> (String, String) {
        let status = self.status();
        let name = |key: &str| status[key].as_str().unwrap_or("?").to_owned();
        (name("running"), name("next"))
    }

    /// Asserts what must hold after every update that failed.
    pub fn assert_unharmed(&self) {
        assert_eq!(self.slots(), ("a".into(), "a".into()), "the boot choice is as it was");
        assert!(self.holds('a', &self.v1), "the running slot is as it was");
    }

    /// What stands in for the reboot.
    pub fn reboot(&mut self) {
        self.device.stop();
        fs::remove_dir_all(self.device.path("run")).unwrap();
        self.device.start_again();
    }

    /// Kills the ssh worker, and waits for the next one.
    pub fn kill_worker(&self) {
        let worker = self.device.worker();
        signal(worker, "KILL");
        wait_until("there is another worker", || {
            super::ssh_worker(self.device.daemon.id()).is_some_and(|pid| pid != worker)
        });
        self.device.wait_until_it_answers();
    }

    /// Whether a good push is still possible, which is what counts after all that went wrong.
    pub fn assert_updatable(&self) {
        let output = self.push(&self.v2);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(self.holds('b', &self.v2));
        assert_eq!(self.slots(), ("a".into(), "b".into()));
    }
}

/// Enough that an update takes a moment, little enough for hundreds of them.
const SIZE: usize = 2 << 20;
