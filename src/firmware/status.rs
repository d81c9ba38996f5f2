//! What runs, what comes next, and what is going on: `myelin firmware status`.
//!
//! Reads files only, so it works with no daemon running and with a disk image in place of a device.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::boot::Boot;
use super::lock::{self, Installed, Progress};
use super::operation::autoboot;
use super::serial::{known_serial_number, serial_number};
use super::slots::{self, Slot, SlotInfo};
use super::store;
use crate::config::Config;
use crate::uboot_env::Environment;

/// The answer. Scripts rely on these names: they stay, new ones may come. What is not known is null.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub running: Option<Slot>,
    pub next: Option<Slot>,
    pub boot_id: String,
    pub serial_number: Option<String>,
    pub devpath: Option<PathBuf>,
    pub update: Option<Progress>,
    pub pending_reboot: bool,
    /// The firmware that the reboot is for.
    pub installed: Option<Installed>,
    pub slots: Slots,
    /// Why the store cannot be read.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Slots {
    pub a: SlotInfo,
    pub b: SlotInfo,
}

impl Slots {
    pub fn of(&self, slot: Slot) -> &SlotInfo {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

/// The firmware that runs, and on what.
pub struct Brief {
    pub firmware: Option<String>,
    pub serial_number: Option<String>,
}

impl Status {
    /// Looks at everything once. Takes a second at most, for the program that knows the serial number.
    pub fn collect(config: &Config) -> Self {
        let (environment, problem) = match store::read(&config.firmware) {
            Ok(environment) => (Some(environment), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let environment = environment.as_ref();
        let boot = Boot::current(&config.runtime_dir, environment);
        let slot = |slot| {
            environment.map(|environment| SlotInfo::read(environment, slot, boot.running)).unwrap_or_default()
        };
        let installed = lock::installed(&config.runtime_dir)
            .or_else(|| environment.and_then(|environment| chosen_since_boot(&boot, environment)));
        let autoboot = || autoboot::chosen(config.firmware.autoboot.as_deref()?).ok();
        Self {
            running: boot.running,
            next: environment.and_then(slots::next).or_else(autoboot),
            serial_number: serial_number(environment),
            devpath: store::devpath(&config.firmware, environment),
            update: lock::running(&config.runtime_dir),
            pending_reboot: installed.is_some(),
            installed,
            slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
            problem,
            boot_id: boot.id,
        }
    }

    /// What a greeting tells, from files alone.
    pub fn brief(config: &Config) -> Brief {
        let environment = store::read(&config.firmware).ok();
        let environment = environment.as_ref();
        let running = Boot::current(&config.runtime_dir, environment).running;
        let firmware = environment.zip(running).map(|(environment, slot)| {
            format!("{}  (slot {slot})", slot_text(&SlotInfo::read(environment, slot, Some(slot))))
        });
        Brief { firmware, serial_number: known_serial_number(environment) }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let unknown = "unknown".to_owned();
        let name = |slot: Option<Slot>| slot.map_or_else(|| unknown.clone(), |slot| slot.to_string());
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<14}{value}");
        line("running", &name(self.running));
        line("next", &name(self.next));
        line("serial number", self.serial_number.as_deref().unwrap_or("unknown"));
        let devpath = self.devpath.as_ref().map(|path| path.display().to_string());
        line("device", devpath.as_deref().unwrap_or("unknown"));
        for (slot, info) in [(Slot::A, &self.slots.a), (Slot::B, &self.slots.b)] {
            line(&format!("slot {slot}"), &slot_text(info));
        }
        if let Some(update) = &self.update {
            let percent = update.percent.map(|percent| format!(", {percent} %")).unwrap_or_default();
            line("update", &format!("in progress ({}, {} bytes{percent})", update.holder, update.bytes));
        }
        if let Some(installed) = &self.installed {
            line("reboot", &format!("needed: firmware {installed} is installed and waits for it"));
        }
        if let Some(problem) = &self.problem {
            line("problem", problem);
        }
        text
    }
}

fn slot_text(info: &SlotInfo) -> String {
    if *info == SlotInfo::default() {
        return "unknown".into();
    }
    let known = [&info.product, &info.version, &info.platform, &info.architecture, &info.uuid];
    let mut words: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    match info.validated {
        Some(true) => words.push("validated"),
        Some(false) => words.push("not validated"),
        None => {}
    }
    words.join("  ")
}

/// After a good update: what is installed now, or `None` where the store holds no slots at all and the next
/// update can do no harm.
pub fn installed_now(config: &Config) -> Option<Installed> {
    let environment = match store::read(&config.firmware) {
        Ok(environment) if !slots::holds_slots(&environment) => return None,
        Ok(environment) => environment,
        Err(error) if error.is_no_store() => return None,
        // There may be slots: better one refusal too many.
        Err(_) => return Some(Installed::default()),
    };
    let running = Boot::current(&config.runtime_dir, Some(&environment)).running;
    let next = slots::next(&environment).filter(|next| Some(*next) != running);
    let slot = next.or_else(|| running.map(Slot::other));
    Some(slot.map(|slot| installed_in(&environment, slot)).unwrap_or_default())
}

/// The firmware that the store has come to choose since the boot. That is how an update is known that nobody
/// marked, because its worker was killed in the instant between fwup's last step and the mark.
pub fn chosen_since_boot(boot: &Boot, environment: &Environment) -> Option<Installed> {
    let (then, now) = (boot.chosen?, slots::next(environment)?);
    (then != now).then(|| installed_in(environment, now))
}

fn installed_in(environment: &Environment, slot: Slot) -> Installed {
    let info = SlotInfo::read(environment, slot, None);
    Installed { uuid: info.uuid, version: info.version }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::lock::UpdateLock;
    use super::*;
    use crate::files;

    fn config(folder: &Path, environment: &str) -> Config {
        let env_file = folder.join("firmware.env");
        files::replace(&env_file, environment.as_bytes(), 0o644).unwrap();
        let mut config = Config { runtime_dir: folder.join("run"), ..Config::default() };
        config.firmware.env_file = Some(env_file);
        config
    }

    fn json(config: &Config) -> Value {
        serde_json::to_value(Status::collect(config)).unwrap()
    }

    const STORE: &str = "nerves_fw_active=a\nnerves_fw_devpath=/dev/x\nnerves_serial_number=7\n\
        a.nerves_fw_uuid=one\na.nerves_fw_version=1.0\na.nerves_fw_product=p\na.nerves_fw_platform=q\n\
        a.nerves_fw_architecture=arm\nnerves_fw_validated=1\n";

    #[test]
    fn the_object_has_the_promised_names() {
        let folder = tempfile::tempdir().unwrap();
        let status = json(&config(folder.path(), STORE));
        assert_eq!(
            status["slots"],
            json!({
                "a": {"uuid": "one", "version": "1.0", "product": "p", "platform": "q", "architecture": "arm", "validated": true},
                "b": {"uuid": null, "version": null, "product": null, "platform": null, "architecture": null, "validated": null},
            })
        );
        assert_eq!((&status["next"], &status["devpath"]), (&json!("a"), &json!("/dev/x")));
        assert_eq!((&status["update"], &status["pending_reboot"]), (&json!(null), &json!(false)));
        assert_eq!(status["serial_number"], json!("7"));
        assert_eq!(status["boot_id"].as_str().unwrap().len(), 36);
        assert!(status.as_object().unwrap().contains_key("running"));
    }

    #[test]
    fn an_update_is_seen_while_it_runs_and_waits_for_the_reboot() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), STORE);
        let before = json(&config);
        let lock = UpdateLock::for_update(&config.runtime_dir, "ssh 10.0.0.5").unwrap();
        lock.report(1000, Some(12));
        assert_eq!(json(&config)["update"], json!({"holder": "ssh 10.0.0.5", "bytes": 1000, "percent": 12}));
        let store = store::Store::open(&config.firmware).unwrap();
        store
            .update(&lock, |environment| {
                environment.set("nerves_fw_active", "b")?;
                environment.set("b.nerves_fw_uuid", "two")?;
                environment.set("b.nerves_fw_version", "2.0")
            })
            .unwrap();
        lock.set_installed(&installed_now(&config).unwrap());
        drop(lock);
        let after = json(&config);
        assert_eq!((&after["running"], &after["next"]), (&before["running"], &json!("b")));
        assert_eq!(after["boot_id"], before["boot_id"]);
        assert_eq!((&after["update"], &after["pending_reboot"]), (&json!(null), &json!(true)));
        assert_eq!(after["installed"], json!({"uuid": "two", "version": "2.0"}));
        assert!(Status::collect(&config).to_text().contains("firmware 2.0 (two) is installed"));
    }

    #[test]
    fn an_update_that_nobody_marked_is_known_by_the_choice() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), STORE);
        assert_eq!(json(&config)["pending_reboot"], json!(false));
        let flipped = STORE.replace("nerves_fw_active=a", "nerves_fw_active=b\nb.nerves_fw_version=2.0");
        files::replace(&folder.path().join("firmware.env"), flipped.as_bytes(), 0o644).unwrap();
        assert_eq!(json(&config)["pending_reboot"], json!(true));
        assert_eq!(json(&config)["installed"]["version"], json!("2.0"));
        // The reboot.
        std::fs::remove_dir_all(&config.runtime_dir).unwrap();
        assert_eq!(json(&config)["pending_reboot"], json!(false));
    }

    #[test]
    fn a_device_without_slots_asks_for_no_reboot_and_an_unreadable_store_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), "nerves_fw_devpath=/dev/x\n");
        assert_eq!(installed_now(&config), None);
        config.firmware.env_file = None;
        config.firmware.env_config = "/nonexistent/fw_env.config".into();
        assert_eq!(installed_now(&config), None);
        let status = json(&config);
        assert!(status["problem"].as_str().unwrap().contains("/nonexistent/fw_env.config"));
        assert_eq!((&status["next"], &status["devpath"]), (&json!(null), &json!(null)));
        let env_config = folder.path().join("fw_env.config");
        files::replace(&env_config, b"/nonexistent/disk 0 0x2000\n", 0o644).unwrap();
        config.firmware.env_config = env_config;
        assert_eq!(installed_now(&config), Some(Installed::default()));
    }
}
