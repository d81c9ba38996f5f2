//! `[firmware]`: which program installs, where to, and what follows a good update.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::users::Secret;
use super::validation::{Accept, Validation};
use super::values::{self, Seconds, TextOrList};

/// Firmware updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firmware {
    /// The program that applies `.fw` files.
    pub fwup: FwupProgram,
    /// What fwup writes to. Unset: `nerves_fw_devpath` of the environment block.
    pub devpath: Option<PathBuf>,
    /// Where the U-Boot environment block lies, in the format of fw_env.config of u-boot-tools.
    pub env_config: PathBuf,
    /// A plain file of `name=value` lines that stands in for the environment block on boards without one.
    pub env_file: Option<PathBuf>,
    /// The task to apply; fwup takes the first whose name begins with it and whose requirements hold.
    pub task: String,
    /// Keys of which one must have signed: base64 of 32 bytes, or absolute paths of files that hold it.
    #[serde(deserialize_with = "values::comma_list")]
    pub public_keys: Vec<String>,
    /// What follows an update that ended well.
    pub success_action: SuccessAction,
    /// A program that may veto an update before fwup starts: exit 0 accepts (spec ssh.md 2.2.12).
    #[serde(deserialize_with = "values::words")]
    pub precheck: Vec<String>,
    /// More arguments for fwup, after ours.
    #[serde(deserialize_with = "values::words")]
    pub fwup_extra_options: Vec<String>,
    /// Environment variables of fwup, besides ours, each as `NAME=value`; never shown.
    #[serde(deserialize_with = "values::elsewhere", skip_serializing)]
    pub fwup_env: Vec<Secret>,
    /// How long a sender may pause before the update ends as failed.
    pub update_idle_timeout: Seconds,
    /// The argument of the reboot after an update, such as `0 tryboot` on a Raspberry Pi.
    pub reboot_param: Option<String>,
    /// The archive with the tasks validate, revert, …; unset: where Nerves systems have it.
    pub ops: Option<PathBuf>,
    /// Where the Raspberry Pi's firmware reads which slot it starts.
    pub autoboot: Option<PathBuf>,
    /// Nothing older is installed.
    pub minimum_version: Option<String>,
    /// For which device a firmware must be made.
    #[serde(deserialize_with = "values::elsewhere")]
    pub accept: Accept,
    /// How a new firmware proves itself.
    #[serde(deserialize_with = "values::elsewhere")]
    pub validation: Validation,
}

impl Default for Firmware {
    fn default() -> Self {
        Self {
            fwup: FwupProgram::Auto,
            devpath: None,
            env_config: "/etc/fw_env.config".into(),
            env_file: None,
            task: "upgrade".into(),
            public_keys: Vec::new(),
            success_action: SuccessAction::Reboot,
            precheck: Vec::new(),
            fwup_extra_options: Vec::new(),
            fwup_env: Vec::new(),
            update_idle_timeout: Seconds::from_secs(600),
            reboot_param: None,
            ops: None,
            autoboot: None,
            minimum_version: None,
            accept: Accept::default(),
            validation: Validation::default(),
        }
    }
}

/// The program that applies `.fw` files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FwupProgram {
    /// The image's `fwup` where there is one on PATH, else the built-in applet.
    Auto,
    /// This program and no other.
    Path(PathBuf),
}

impl From<String> for FwupProgram {
    fn from(text: String) -> Self {
        if text == "auto" { Self::Auto } else { Self::Path(text.into()) }
    }
}

impl From<FwupProgram> for String {
    fn from(program: FwupProgram) -> Self {
        match program {
            FwupProgram::Auto => "auto".into(),
            FwupProgram::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// What follows an update that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TextOrList", into = "TextOrList")]
pub enum SuccessAction {
    Reboot,
    /// Nothing; the update still waits for a reboot, and further ones are refused until then.
    None,
    /// A program and its arguments, run once as root.
    Command(Vec<String>),
}

impl TryFrom<TextOrList> for SuccessAction {
    type Error = String;

    fn try_from(text: TextOrList) -> Result<Self, String> {
        match text {
            TextOrList::Text(word) if word == "reboot" => Ok(Self::Reboot),
            TextOrList::Text(word) if word == "none" => Ok(Self::None),
            TextOrList::List(words) if !words.is_empty() => Ok(Self::Command(words)),
            _ => Err("must be \"reboot\", \"none\", or a list of words: a program and its arguments".into()),
        }
    }
}

impl From<SuccessAction> for TextOrList {
    fn from(action: SuccessAction) -> Self {
        match action {
            SuccessAction::Reboot => Self::Text("reboot".into()),
            SuccessAction::None => Self::Text("none".into()),
            SuccessAction::Command(words) => Self::List(words),
        }
    }
}
