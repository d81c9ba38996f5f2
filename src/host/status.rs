//! What a device says about itself in its `myelin-status` subsystem, and what that means for an upload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;

/// The answer of `myelin firmware status --json`, as far as an upload needs it. Unknown values are null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStatus {
    pub running: Option<String>,
    pub next: Option<String>,
    pub boot_id: Option<String>,
    pub serial_number: Option<String>,
    pub pending_reboot: Option<bool>,
    pub slots: BTreeMap<String, Slot>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    pub uuid: Option<String>,
    pub version: Option<String>,
    pub product: Option<String>,
    pub platform: Option<String>,
    pub architecture: Option<String>,
    pub validated: Option<bool>,
}

/// What an answer after the upload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reboot is still to come.
    SameBoot,
    /// The firmware that was sent runs.
    Runs,
    /// The device is back, and something else runs.
    OtherFirmware,
    /// The device is back, and neither UUIDs nor slots tell what runs.
    Unknown,
}

impl DeviceStatus {
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    pub fn running_slot(&self) -> Option<&Slot> {
        self.slots.get(self.running.as_ref()?)
    }

    /// Compares an answer from before the upload with this one from after it.
    pub fn judge(&self, before: &Self, sent: &Metadata) -> Verdict {
        if self.boot_id == before.boot_id {
            return Verdict::SameBoot;
        }
        let uuid = self.running_slot().and_then(|slot| slot.uuid.as_ref());
        match (uuid, &sent.uuid) {
            (Some(runs), Some(sent)) if runs.eq_ignore_ascii_case(sent) => return Verdict::Runs,
            (Some(_), Some(_)) => return Verdict::OtherFirmware,
            _ => {}
        }
        match (&before.running, &self.running) {
            (Some(was), Some(is)) if was == is => Verdict::OtherFirmware,
            (Some(_), Some(_)) => Verdict::Runs,
            _ => Verdict::Unknown,
        }
    }

    /// What the sender should hear before a file for another board goes out.
    pub fn mismatch(&self, sent: &Metadata) -> Option<String> {
        let slot = self.running_slot()?;
        let pairs = [
            ("platform", &slot.platform, &sent.platform),
            ("architecture", &slot.architecture, &sent.architecture),
        ];
        pairs.into_iter().find_map(|(what, device, file)| match (device, file) {
            (Some(device), Some(file)) if device != file => {
                Some(format!("the device's {what} is {}, the file's is {file}", printable(device)))
            }
            _ => None,
        })
    }

    /// `slot b: product 1.2.0 (uuid), validated`
    pub fn describe(&self) -> String {
        let Some(name) = &self.running else { return "which slot runs is unknown".into() };
        let mut text = format!("slot {name}");
        if let Some(slot) = self.running_slot() {
            let words = [&slot.product, &slot.version].into_iter().flatten().cloned().collect::<Vec<_>>();
            if !words.is_empty() {
                text += &format!(": {}", words.join(" "));
            }
            if let Some(uuid) = &slot.uuid {
                text += &format!(" ({uuid})");
            }
            match slot.validated {
                Some(true) => text += ", validated",
                Some(false) => text += ", not validated yet",
                None => {}
            }
        }
        printable(&text)
    }
}

/// A device must not move the cursor of whoever looks at it.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(boot: &str, running: &str, uuid: Option<&str>) -> DeviceStatus {
        let slot = Slot { uuid: uuid.map(str::to_owned), ..Default::default() };
        DeviceStatus {
            boot_id: Some(boot.into()),
            running: Some(running.into()),
            slots: BTreeMap::from([(running.into(), slot)]),
            ..Default::default()
        }
    }

    fn sent(uuid: Option<&str>) -> Metadata {
        Metadata { uuid: uuid.map(str::to_owned), ..Default::default() }
    }

    #[test]
    fn the_same_boot_is_no_answer_yet() {
        let before = status("1", "a", Some("old"));
        assert_eq!(before.judge(&before, &sent(Some("new"))), Verdict::SameBoot);
    }

    #[test]
    fn the_uuid_of_the_running_slot_decides() {
        let before = status("1", "a", Some("old"));
        let new = sent(Some("NEW-1"));
        assert_eq!(status("2", "b", Some("new-1")).judge(&before, &new), Verdict::Runs);
        assert_eq!(status("2", "a", Some("old")).judge(&before, &new), Verdict::OtherFirmware);
        // The file that ran already was sent again: only the UUID counts.
        assert_eq!(status("2", "a", Some("new-1")).judge(&before, &new), Verdict::Runs);
    }

    #[test]
    fn without_uuids_the_slots_decide() {
        let before = status("1", "a", None);
        assert_eq!(status("2", "b", None).judge(&before, &sent(None)), Verdict::Runs);
        assert_eq!(status("2", "a", None).judge(&before, &sent(None)), Verdict::OtherFirmware);
        let unknown = DeviceStatus { boot_id: Some("2".into()), ..Default::default() };
        assert_eq!(unknown.judge(&before, &sent(Some("x"))), Verdict::Unknown);
    }

    #[test]
    fn the_contract_is_read_and_new_names_do_not_disturb() {
        let text = br#"{"running":"b","next":"b","boot_id":"x","serial_number":null,"devpath":"/dev/mmcblk0",
            "update":null,"pending_reboot":false,"new_name":[1],"slots":{"a":{"uuid":null},
            "b":{"uuid":"u","version":"2.0","product":"p","platform":"rpi","architecture":"arm","validated":true}}}"#;
        let status = DeviceStatus::parse(text).unwrap();
        assert_eq!(status.describe(), "slot b: p 2.0 (u), validated");
        assert_eq!(DeviceStatus::parse(b"Welcome!\n"), None);
        let other = Metadata { platform: Some("bbb".into()), ..Default::default() };
        assert_eq!(status.mismatch(&other).unwrap(), "the device's platform is rpi, the file's is bbb");
        let same = Metadata { platform: Some("rpi".into()), ..Default::default() };
        assert_eq!(status.mismatch(&same), None);
    }
}
