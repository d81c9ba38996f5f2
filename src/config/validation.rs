//! `[firmware.validation]` and `firmware.accept`: when a new firmware counts as good, and which is taken at all.

use serde::{Deserialize, Serialize};

use super::values::{self, Seconds};

/// How a firmware that starts for the first time proves itself, and what happens when it does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// All of them must hold at once. Empty: Myelin leaves the trial to somebody else.
    #[serde(deserialize_with = "values::comma_list")]
    pub gates: Vec<Gate>,
    /// The program of the gate "health": exit 0 means well.
    #[serde(deserialize_with = "values::words")]
    pub health: Vec<String>,
    /// The names that the gate "processes" looks for.
    #[serde(deserialize_with = "values::comma_list")]
    pub processes: Vec<String>,
    /// From the start of the daemon after a boot to the end of the trial.
    pub time_limit: Seconds,
    /// What follows when nobody has said "valid" by then.
    pub action: TrialAction,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            gates: vec![Gate::Login],
            health: Vec::new(),
            processes: Vec::new(),
            time_limit: Seconds::from_secs(600),
            action: TrialAction::Revert,
        }
    }
}

/// What a firmware on trial has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// A login through the real port.
    Login,
    /// `health` ends with exit status 0.
    Health,
    /// All of `processes` run.
    Processes,
    /// `myelin firmware validate`, by hand or by a program of the image's own.
    Manual,
}

/// What follows a trial without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialAction {
    /// Back to the other slot, and reboot.
    Revert,
    /// Reboot only: the boot loader falls back by itself.
    Reboot,
    /// A line in the log.
    None,
}

/// For which device a firmware must be made; an empty list accepts all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accept {
    #[serde(deserialize_with = "values::words")]
    pub platform: Vec<String>,
    #[serde(deserialize_with = "values::words")]
    pub product: Vec<String>,
    #[serde(deserialize_with = "values::words")]
    pub architecture: Vec<String>,
}
