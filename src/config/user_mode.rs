//! `user_mode`: whether the names that clients give are users of the system.

use serde::{Deserialize, Serialize};

/// What a user name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserMode {
    /// For nobody: whoever may log in is the same user of the system.
    Single,
    /// For a user of the system (passwd(5)), with its rights.
    System,
}
