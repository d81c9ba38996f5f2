//! Slots and what the environment says about them, in the words of Nerves systems.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::uboot_env::Environment;

/// One of the two places for a firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "a" | "A" => Some(Self::A),
            "b" | "B" => Some(Self::B),
            _ => None,
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is in a slot; what the environment does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlotInfo {
    pub uuid: Option<String>,
    pub version: Option<String>,
    pub product: Option<String>,
    pub platform: Option<String>,
    pub architecture: Option<String>,
    pub validated: Option<bool>,
}

impl SlotInfo {
    /// `running` matters where the environment does not name the slot that its global keys are about.
    pub fn read(environment: &Environment, slot: Slot, running: Option<Slot>) -> Self {
        let value = |key: &str| {
            let value = environment.get(&format!("{slot}.nerves_fw_{key}"))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Self {
            uuid: value("uuid"),
            version: value("version"),
            product: value("product"),
            platform: value("platform"),
            architecture: value("architecture"),
            validated: validated(environment, slot, running),
        }
    }
}

/// The slot that the boot loader would choose now.
pub fn next(environment: &Environment) -> Option<Slot> {
    environment.get("nerves_fw_active").and_then(Slot::from_name)
}

/// Whether there is any slot in the store, so that an update makes further ones dangerous until the reboot.
pub fn holds_slots(environment: &Environment) -> bool {
    environment.iter().any(|(name, _)| {
        name == b"nerves_fw_active" || name.starts_with(b"a.nerves_fw_") || name.starts_with(b"b.nerves_fw_")
    })
}

/// Three ways to say it: U-Boot's trial flag and the global key, which are about the active slot, and the
/// slot's own key.
fn validated(environment: &Environment, slot: Slot, running: Option<Slot>) -> Option<bool> {
    let is_active = next(environment).or(running) == Some(slot);
    let trial = environment.get("upgrade_available").filter(|_| is_active);
    let own = environment.get(&format!("{slot}.nerves_fw_validated"));
    let global = environment.get("nerves_fw_validated").filter(|_| is_active);
    match (trial, own.or(global)) {
        (Some("0"), _) => Some(true),
        (Some("1"), _) => Some(false),
        (_, Some("1")) => Some(true),
        (_, Some("0")) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(text: &str) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            environment.set(name, value).unwrap();
        }
        environment
    }

    fn validated_ab(text: &str, running: Option<Slot>) -> (Option<bool>, Option<bool>) {
        let environment = environment(text);
        let of = |slot| SlotInfo::read(&environment, slot, running).validated;
        (of(Slot::A), of(Slot::B))
    }

    #[test]
    fn metadata_is_read_for_each_slot() {
        let environment = environment(
            "nerves_fw_active=b a.nerves_fw_uuid=one b.nerves_fw_uuid=two b.nerves_fw_version=2.0 b.nerves_fw_product=",
        );
        let (a, b) =
            (SlotInfo::read(&environment, Slot::A, None), SlotInfo::read(&environment, Slot::B, None));
        assert_eq!((a.uuid.as_deref(), a.version), (Some("one"), None));
        assert_eq!((b.uuid.as_deref(), b.version.as_deref(), b.product), (Some("two"), Some("2.0"), None));
        assert_eq!(next(&environment), Some(Slot::B));
    }

    #[test]
    fn validity_is_understood_in_all_three_forms() {
        assert_eq!(validated_ab("nerves_fw_active=b upgrade_available=1", None), (None, Some(false)));
        let both = "nerves_fw_active=b upgrade_available=0 nerves_fw_validated=0 b.nerves_fw_validated=0";
        assert_eq!(validated_ab(both, None), (None, Some(true)));
        assert_eq!(validated_ab("nerves_fw_active=a nerves_fw_validated=1", None), (Some(true), None));
        let each = "a.nerves_fw_validated=1 b.nerves_fw_validated=0";
        assert_eq!(validated_ab(each, Some(Slot::A)), (Some(true), Some(false)));
        assert_eq!(validated_ab("nerves_fw_validated=0", Some(Slot::B)), (None, Some(false)));
        assert_eq!(validated_ab("nerves_fw_validated=0", None), (None, None));
        assert_eq!(validated_ab("nerves_fw_active=a upgrade_available=x", None), (None, None));
    }

    #[test]
    fn a_store_holds_slots_or_not() {
        for text in ["nerves_fw_active=a", "a.nerves_fw_uuid=x", "b.nerves_fw_validated=1"] {
            assert!(holds_slots(&environment(text)), "{text}");
        }
        assert!(!holds_slots(&environment("nerves_fw_devpath=/dev/x nerves_serial_number=1 a.other=2")));
    }
}
