//! This boot: its id, and the slot that runs, found once and kept in `runtime_dir/boot.json`.
//!
//! The id is ours and not the kernel's, so that a daemon can be started again with an empty runtime_dir as
//! after a reboot; it is made anew when the file is gone or the kernel's own id has changed. The slot is kept
//! because the store stops telling it as soon as an update has flipped the choice, and the choice is kept
//! because a change of it is what an update leaves behind, even one that was killed before its last word.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::lock::kernel_boot_id;
use super::slots::{self, Slot};
use crate::files::{self, FileError, FileLock};
use crate::uboot_env::Environment;

/// What does not change until the reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub id: String,
    pub running: Option<Slot>,
    /// The slot that the store chose then. Not always the one that runs: the boot loader may have fallen back.
    pub chosen: Option<Slot>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot_id: String,
    kernel_boot_id: Option<String>,
    running: Option<Slot>,
    #[serde(default)]
    chosen: Option<Slot>,
}

impl Boot {
    /// What was found at the first call after the boot; the daemon calls it before any update can begin.
    ///
    /// `environment` is asked only when nothing better tells the slot; `None` means it cannot be read now.
    pub fn current(runtime_dir: &Path, environment: Option<&Environment>) -> Self {
        Self::with(runtime_dir, &Evidence::of_this_machine(), environment)
    }

    fn with(runtime_dir: &Path, evidence: &Evidence, environment: Option<&Environment>) -> Self {
        let path = runtime_dir.join("boot.json");
        if let Some(boot) = read(&path, evidence).filter(|boot| boot.is_complete(environment)) {
            return boot;
        }
        keep(runtime_dir, &path, evidence, environment).unwrap_or_else(|error| {
            warn!(%error, "this boot has no file; its id is the kernel's until there is one");
            // The same for every process until the reboot, which is all that an id must be.
            let id = evidence.kernel_boot_id.clone().or_else(random_uuid).unwrap_or_default();
            Boot { id, running: evidence.running(environment), chosen: environment.and_then(slots::next) }
        })
    }

    /// Whether `environment` can add nothing. A card that comes up after the daemon tells the slot later; until it
    /// does, no update can have changed it.
    fn is_complete(&self, environment: Option<&Environment>) -> bool {
        self.chosen.is_some() || environment.and_then(slots::next).is_none()
    }
}

fn read(path: &Path, evidence: &Evidence) -> Option<Boot> {
    let bytes = files::read_limited(path, MAX_FILE).ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    (kept.kernel_boot_id == evidence.kernel_boot_id).then_some(Boot {
        id: kept.boot_id,
        running: kept.running,
        chosen: kept.chosen,
    })
}

/// Makes the file, or completes it, unless another process just did.
fn keep(
    runtime_dir: &Path,
    path: &Path,
    evidence: &Evidence,
    environment: Option<&Environment>,
) -> Result<Boot, FileError> {
    files::make_dir(runtime_dir, 0o755)?;
    let _only_one = FileLock::wait(&runtime_dir.join("boot.lock"), LOCK_LIMIT)?;
    let known = read(path, evidence);
    if let Some(boot) = known.as_ref().filter(|boot| boot.is_complete(environment)) {
        return Ok(boot.clone());
    }
    let id = known.map(|boot| boot.id);
    let kept = Kept {
        boot_id: id.or_else(random_uuid).or_else(|| evidence.kernel_boot_id.clone()).unwrap_or_default(),
        kernel_boot_id: evidence.kernel_boot_id.clone(),
        running: evidence.running(environment),
        chosen: environment.and_then(slots::next),
    };
    let json = serde_json::to_vec(&kept).unwrap_or_default();
    files::replace(path, &json, 0o644)?;
    Ok(Boot { id: kept.boot_id, running: kept.running, chosen: kept.chosen })
}

/// What the kernel says about this boot.
struct Evidence {
    kernel_boot_id: Option<String>,
    /// /proc/cmdline
    command_line: String,
    /// The folder in sysfs of the partition that is `/`, if it is one.
    root_partition: Option<PathBuf>,
}

impl Evidence {
    fn of_this_machine() -> Self {
        let command_line = files::read_limited(Path::new("/proc/cmdline"), MAX_FILE).unwrap_or_default();
        Self {
            kernel_boot_id: kernel_boot_id(),
            command_line: String::from_utf8_lossy(&command_line).into_owned(),
            root_partition: root_partition(),
        }
    }

    /// The best evidence first. The store comes last: the boot loader may have fallen back without a word.
    fn running(&self, environment: Option<&Environment>) -> Option<Slot> {
        slot_on_command_line(&self.command_line)
            .or_else(|| self.root_partition.as_deref().and_then(slot_of_partition))
            .or_else(|| environment.and_then(slots::next))
    }
}

fn slot_on_command_line(command_line: &str) -> Option<Slot> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("myelin.slot="))
        .and_then(Slot::from_name)
}

fn root_partition() -> Option<PathBuf> {
    let device = nix::sys::stat::stat("/").ok()?.st_dev;
    let numbers = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let folder = Path::new("/sys/dev/block").join(numbers).canonicalize().ok()?;
    folder.join("partition").exists().then_some(folder)
}

/// The slot of a partition, where the partition table says so: a GPT name that ends in `a` or `b` as a word
/// of its own (`rootfs-a`, `root_b`), or numbers 5 and 6 of equal size, as all Nerves and Myelin layouts with
/// an MBR have them. Other layouts tell it on the command line or in the store; guessing would be worse.
fn slot_of_partition(folder: &Path) -> Option<Slot> {
    let text = |path: &Path| {
        let bytes = files::read_limited(path, MAX_FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let uevent = text(&folder.join("uevent")).unwrap_or_default();
    if let Some(name) = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")) {
        let (word, letter) = name.split_at_checked(name.len().checked_sub(1)?)?;
        return Slot::from_name(letter).filter(|_| word.ends_with(['-', '_', '.', ' ']));
    }
    let size = text(&folder.join("size"))?;
    let (slot, other) = match text(&folder.join("partition"))?.as_str() {
        "5" => (Slot::A, "6"),
        "6" => (Slot::B, "5"),
        _ => return None,
    };
    let name = folder.file_name()?.to_str()?;
    let sibling = folder.with_file_name(format!("{}{other}", name.get(..name.len().checked_sub(1)?)?));
    (text(&sibling.join("size"))? == size).then_some(slot)
}

/// A random UUID (RFC 9562 section 5.4).
fn random_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [hex.get(..8)?, hex.get(8..12)?, hex.get(12..16)?, hex.get(16..20)?, hex.get(20..)?];
    Some(parts.join("-"))
}

const MAX_FILE: u64 = 64 << 10;
const LOCK_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(kernel: &str) -> Evidence {
        Evidence { kernel_boot_id: Some(kernel.into()), command_line: String::new(), root_partition: None }
    }

    fn active(slot: &str) -> Environment {
        let mut environment = Environment::default();
        environment.set("nerves_fw_active", slot).unwrap();
        environment
    }

    #[test]
    fn a_store_that_comes_late_completes_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let first = Boot::with(folder.path(), &evidence("k1"), None);
        assert_eq!((first.running, first.chosen), (None, None));
        let later = Boot::with(folder.path(), &evidence("k1"), Some(&active("a")));
        assert_eq!((later.running, later.chosen), (Some(Slot::A), Some(Slot::A)));
        assert_eq!(later.id, first.id);
        assert_eq!(Boot::with(folder.path(), &evidence("k1"), Some(&active("b"))), later);
        assert_eq!(Boot::with(folder.path(), &evidence("k1"), None), later);
    }

    #[test]
    fn an_update_changes_nothing_until_the_reboot() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let first = Boot::with(&dir, &evidence("k1"), Some(&active("a")));
        assert_eq!((first.running, first.chosen), (Some(Slot::A), Some(Slot::A)));
        assert_eq!(Boot::with(&dir, &evidence("k1"), Some(&active("b"))), first);
        // The kernel's id has changed, or the folder was emptied.
        let second = Boot::with(&dir, &evidence("k2"), Some(&active("b")));
        assert_eq!(second.running, Some(Slot::B));
        assert_ne!(second.id, first.id);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_ne!(Boot::with(&dir, &evidence("k2"), None).id, second.id);
    }

    #[test]
    fn a_broken_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        files::replace(&folder.path().join("boot.json"), b"{\"boot_id\":", 0o644).unwrap();
        let boot = Boot::with(folder.path(), &evidence("k"), None);
        assert_eq!(boot.id.len(), 36);
        assert_eq!(Boot::with(folder.path(), &evidence("k"), None), boot);
    }

    #[test]
    fn without_a_folder_every_process_finds_the_same_id() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        files::replace(&file, b"", 0o600).unwrap();
        assert_eq!(Boot::with(&file.join("run"), &evidence("kernel"), None).id, "kernel");
    }

    #[test]
    fn processes_that_ask_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<String> = std::thread::scope(|scope| {
            let ask = || Boot::with(folder.path(), &evidence("k"), None).id;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn the_command_line_is_believed_first() {
        let mut evidence = evidence("k");
        evidence.command_line = "root=/dev/x myelin.slot=b quiet".into();
        assert_eq!(evidence.running(Some(&active("a"))), Some(Slot::B));
        evidence.command_line = "myelin.slot=c".into();
        assert_eq!(evidence.running(Some(&active("a"))), Some(Slot::A));
        assert_eq!(evidence.running(None), None);
    }

    #[test]
    fn partitions_tell_their_slot_by_name_or_as_the_fifth_and_sixth() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, number: &str, size: &str, uevent: &str| {
            let path = folder.path().join(name);
            files::make_dir(&path, 0o755).unwrap();
            for (file, text) in [("partition", number), ("size", size), ("uevent", uevent)] {
                files::replace(&path.join(file), format!("{text}\n").as_bytes(), 0o644).unwrap();
            }
            path
        };
        let (five, six) = (put("vda5", "5", "100", "PARTN=5"), put("vda6", "6", "100", "PARTN=6"));
        assert_eq!((slot_of_partition(&five), slot_of_partition(&six)), (Some(Slot::A), Some(Slot::B)));
        put("vda6", "6", "101", "");
        assert_eq!(slot_of_partition(&five), None);
        let named =
            |name: &str| slot_of_partition(&put("vdb2", "2", "1", &format!("PARTN=2\nPARTNAME={name}")));
        assert_eq!((named("rootfs-a"), named("root_B")), (Some(Slot::A), Some(Slot::B)));
        assert_eq!((named("data"), named("b"), named("")), (None, None, None));
        assert_eq!(slot_of_partition(&put("vdb1", "1", "1", "")), None);
    }

    #[test]
    fn uuids_have_version_4() {
        let (one, two) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(one, two);
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
    }
}
