//! `nerves_firmware_ssh`: the protocol that NervesSSH replaced, for scripts that still speak it.

/// What a shell and a command get on this listener, word for word as from nerves_firmware_ssh.
pub const NO_SHELL: &str = "Interactive login unsupported. Use the nerves_firmware_ssh subsystem.";
pub const NO_EXEC: &str = "Command execution unsupported.";
