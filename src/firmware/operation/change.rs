//! What validate, revert and prevent-revert change in the store, in all forms in which a store may say it
//! (spec packaging.md A.4, ssh.md 2.6). Pure: works on an environment that somebody read.

use super::OperationError;
use crate::firmware::slots::{self, Slot, SlotInfo};
use crate::uboot_env::Environment;
use crate::uboot_env::codec::CodecError;

/// U-Boot's counter and flag, and the key of Nerves, which are about the active slot.
const TRIAL: &str = "upgrade_available";
const COUNT: &str = "bootcount";
const VALIDATED: &str = "nerves_fw_validated";
const BOOTED: &str = "nerves_fw_booted";
const ACTIVE: &str = "nerves_fw_active";

/// Whether the firmware that runs has still to prove itself.
pub fn on_trial(environment: &Environment, running: Option<Slot>) -> bool {
    let slot = running.or_else(|| slots::next(environment));
    slot.is_some_and(|slot| SlotInfo::read(environment, slot, running).validated == Some(false))
}

/// The slot that may be validated: the one that runs, unless another was chosen since.
pub fn check_validate(environment: &Environment, running: Option<Slot>) -> Result<Slot, OperationError> {
    match (running, slots::next(environment)) {
        (Some(running), Some(next)) if running != next => {
            Err(OperationError::AnotherIsNext { running, next })
        }
        (Some(slot), _) | (None, Some(slot)) => Ok(slot),
        (None, None) => Err(OperationError::UnknownSlot),
    }
}

/// Says that `slot` is good, in the words that the store uses.
pub fn validate(environment: &mut Environment, slot: Slot) -> Result<(), CodecError> {
    let own = has_own_keys(environment);
    let counter = environment.get(TRIAL).is_some();
    if counter {
        environment.set(TRIAL, "0")?;
        environment.set(COUNT, "0")?;
    }
    if own {
        environment.set(own_key(slot), "1")?;
    }
    if counter || !own || environment.get(VALIDATED).is_some() {
        environment.set(VALIDATED, "1")?;
    }
    Ok(())
}

/// The slot to go back to: the other one, if something good is in it.
pub fn check_revert(environment: &Environment, running: Option<Slot>) -> Result<Slot, OperationError> {
    let running = running.or_else(|| slots::next(environment)).ok_or(OperationError::UnknownSlot)?;
    let slot = running.other();
    let info = SlotInfo::read(environment, slot, Some(running));
    // An update takes these away before it writes the first byte, and sets them after the last.
    if info.uuid.is_none() && info.version.is_none() {
        return Err(OperationError::EmptySlot { slot });
    }
    let each_has_its_own =
        has_own_keys(environment) && [TRIAL, VALIDATED].iter().all(|name| environment.get(name).is_none());
    match info.validated {
        Some(false) => Err(OperationError::NeverValidated { slot }),
        None if each_has_its_own => Err(OperationError::NeverValidated { slot }),
        _ => Ok(slot),
    }
}

/// Makes `target` the next slot, which was validated once. Where the store does not choose the slot, something
/// else does.
pub fn revert(environment: &mut Environment, target: Slot) -> Result<(), CodecError> {
    let left = target.other();
    // Before the change: these are about the slot that is left.
    let failed = on_trial(environment, Some(left));
    if environment.get(ACTIVE).is_some() {
        environment.set(ACTIVE, target.to_string())?;
    }
    if environment.get(TRIAL).is_some() {
        environment.set(TRIAL, "0")?;
        environment.set(COUNT, "0")?;
        if failed {
            // Else nothing would tell any more that it never proved itself.
            environment.set(own_key(left), "0")?;
        }
    }
    for name in [VALIDATED, BOOTED] {
        if environment.get(name).is_some() {
            environment.set(name, "1")?;
        }
    }
    Ok(())
}

/// The slot to be emptied: the other one, when the device can do without.
pub fn check_prevent_revert(
    environment: &Environment,
    running: Option<Slot>,
) -> Result<Slot, OperationError> {
    let running = check_validate(environment, running)?;
    if on_trial(environment, Some(running)) {
        return Err(OperationError::OnTrial { running });
    }
    Ok(running.other())
}

/// Takes away everything that says what is in `slot`.
pub fn prevent_revert(environment: &mut Environment, slot: Slot) -> Result<(), CodecError> {
    let prefix = format!("{slot}.nerves_fw_");
    let names: Vec<String> = environment
        .iter()
        .filter_map(|(name, _)| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with(&prefix))
        .map(String::from)
        .collect();
    names.iter().for_each(|name| environment.unset(name));
    environment.set(own_key(slot), "0")
}

fn own_key(slot: Slot) -> String {
    format!("{slot}.{VALIDATED}")
}

fn has_own_keys(environment: &Environment) -> bool {
    [Slot::A, Slot::B].into_iter().any(|slot| environment.get(&own_key(slot)).is_some())
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

    /// What `change` makes of `text`: only what differs.
    fn changed(text: &str, change: impl FnOnce(&mut Environment) -> Result<(), CodecError>) -> String {
        let before = environment(text);
        let mut after = before.clone();
        change(&mut after).unwrap();
        let new = after.iter().filter(|(name, value)| before.get_bytes(name) != Some(value)).map(
            |(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)),
        );
        let gone = before.iter().filter(|(name, _)| after.get_bytes(name).is_none());
        let gone = gone.map(|(name, _)| format!("-{}", String::from_utf8_lossy(name)));
        new.chain(gone).collect::<Vec<_>>().join(" ")
    }

    const COUNTER: &str = "nerves_fw_active=b upgrade_available=1 bootcount=1 bootlimit=1 nerves_fw_validated=0 \
        nerves_fw_booted=1 a.nerves_fw_uuid=one b.nerves_fw_uuid=two";
    const GLOBAL: &str = "nerves_fw_active=b nerves_fw_validated=0 a.nerves_fw_uuid=one b.nerves_fw_uuid=two";
    const EACH: &str =
        "a.nerves_fw_validated=1 b.nerves_fw_validated=0 a.nerves_fw_version=1 b.nerves_fw_version=2";

    #[test]
    fn a_trial_is_seen_in_all_three_forms() {
        for text in [COUNTER, GLOBAL, EACH] {
            assert!(on_trial(&environment(text), Some(Slot::B)), "{text}");
            assert!(!on_trial(&environment(text), Some(Slot::A)), "{text}");
        }
        // Nothing is known: it counts as valid.
        assert!(!on_trial(&environment("nerves_fw_active=a"), Some(Slot::A)));
    }

    #[test]
    fn validation_speaks_the_words_of_the_store() {
        let of = |text| {
            let after = changed(text, |environment| validate(environment, Slot::B));
            let mut environment = environment(text);
            validate(&mut environment, Slot::B).unwrap();
            assert!(!on_trial(&environment, Some(Slot::B)), "{text}");
            after
        };
        assert_eq!(of(COUNTER), "bootcount=0 nerves_fw_validated=1 upgrade_available=0");
        assert_eq!(of(GLOBAL), "nerves_fw_validated=1");
        assert_eq!(of(EACH), "b.nerves_fw_validated=1");
        assert_eq!(of("nerves_fw_active=b"), "nerves_fw_validated=1");
        let all = format!("{COUNTER} {EACH}");
        assert_eq!(of(&all), "b.nerves_fw_validated=1 bootcount=0 nerves_fw_validated=1 upgrade_available=0");
    }

    #[test]
    fn a_firmware_that_waits_for_the_reboot_is_not_validated_from_the_old_one() {
        let refusal = check_validate(&environment(COUNTER), Some(Slot::A)).unwrap_err();
        assert!(matches!(refusal, OperationError::AnotherIsNext { running: Slot::A, next: Slot::B }));
        assert_eq!(check_validate(&environment(COUNTER), Some(Slot::B)).unwrap(), Slot::B);
        assert_eq!(check_validate(&environment(EACH), Some(Slot::B)).unwrap(), Slot::B);
        assert!(check_validate(&environment(EACH), None).is_err());
    }

    #[test]
    fn the_way_back_leads_to_the_other_slot_in_all_forms() {
        for text in [COUNTER, GLOBAL, EACH] {
            assert_eq!(check_revert(&environment(text), Some(Slot::B)).unwrap(), Slot::A, "{text}");
        }
        let of = |text| changed(text, |environment| revert(environment, Slot::A));
        assert_eq!(
            of(COUNTER),
            "b.nerves_fw_validated=0 bootcount=0 nerves_fw_active=a nerves_fw_validated=1 upgrade_available=0"
        );
        assert_eq!(of(GLOBAL), "nerves_fw_active=a nerves_fw_validated=1");
        assert_eq!(of(EACH), "");
    }

    #[test]
    fn a_failed_firmware_is_not_gone_back_to() {
        let mut environment = environment(COUNTER);
        revert(&mut environment, Slot::A).unwrap();
        let refusal = check_revert(&environment, Some(Slot::A)).unwrap_err();
        assert!(matches!(refusal, OperationError::NeverValidated { slot: Slot::B }));
        // Until a later update of it proves itself.
        environment.set("nerves_fw_active", "b").unwrap();
        environment.set("upgrade_available", "1").unwrap();
        validate(&mut environment, Slot::B).unwrap();
        assert_eq!(check_revert(&environment, Some(Slot::B)).unwrap(), Slot::A);
    }

    #[test]
    fn an_empty_or_half_written_slot_is_no_way_back() {
        let refused = |text: &str| check_revert(&environment(text), Some(Slot::B)).unwrap_err();
        let empty = "nerves_fw_active=b nerves_fw_validated=1 b.nerves_fw_uuid=two a.nerves_fw_platform=x";
        assert!(matches!(refused(empty), OperationError::EmptySlot { slot: Slot::A }));
        for half in ["a.nerves_fw_validated=0", ""] {
            let text = format!("b.nerves_fw_validated=1 a.nerves_fw_uuid=one {half}");
            assert!(matches!(refused(&text), OperationError::NeverValidated { slot: Slot::A }));
        }
        // An update has just been installed and waits for its first start.
        let refusal = check_revert(&environment(COUNTER), Some(Slot::A)).unwrap_err();
        assert!(matches!(refusal, OperationError::NeverValidated { slot: Slot::B }));
    }

    #[test]
    fn the_way_back_is_closed_only_when_nobody_needs_it() {
        let refusal = check_prevent_revert(&environment(COUNTER), Some(Slot::B)).unwrap_err();
        assert!(matches!(refusal, OperationError::OnTrial { running: Slot::B }));
        assert!(check_prevent_revert(&environment(COUNTER), Some(Slot::A)).is_err());
        let valid = "nerves_fw_active=b nerves_fw_validated=1 a.nerves_fw_uuid=one b.nerves_fw_uuid=two";
        assert_eq!(check_prevent_revert(&environment(valid), Some(Slot::B)).unwrap(), Slot::A);
        let after = changed(valid, |environment| prevent_revert(environment, Slot::A));
        assert_eq!(after, "a.nerves_fw_validated=0 -a.nerves_fw_uuid");
        let mut environment = environment(valid);
        prevent_revert(&mut environment, Slot::A).unwrap();
        assert!(check_revert(&environment, Some(Slot::B)).is_err());
        assert!(!on_trial(&environment, Some(Slot::B)));
    }
}
