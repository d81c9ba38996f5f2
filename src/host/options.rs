//! How to reach a device: the options of the command line, for ssh or for the built-in client.

use std::path::PathBuf;

use thiserror::Error;

use super::builtin::{Builtin, SettingsError};
use super::remote::Remote;
use super::screen::Screen;
use super::ssh::Ssh;
use super::target::Target;

/// Options that go to ssh as they are, or that the built-in client understands as ssh does.
#[derive(Debug, Default, clap::Args)]
pub struct SshOptions {
    /// Use the built-in SSH client, which reads no ~/.ssh/config. It is used too where no ssh is in PATH.
    #[arg(long)]
    pub builtin: bool,
    /// With the built-in client: a file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// With the built-in client: a file whose first line is the passphrase of the private keys.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// ssh: a configuration file instead of ~/.ssh/config.
    #[arg(short = 'F', value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// ssh: the port.
    #[arg(short = 'p', long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// ssh: a private key; may be repeated.
    #[arg(short = 'i', value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// ssh: the user name.
    #[arg(short = 'l', value_name = "USER")]
    pub login: Option<String>,
    /// ssh: go through these hosts.
    #[arg(short = 'J', value_name = "HOSTS")]
    pub jump: Option<String>,
    /// ssh: an option as in ssh_config(5); may be repeated.
    #[arg(short = 'o', value_name = "NAME=VALUE")]
    pub option: Vec<String>,
}

impl SshOptions {
    /// The way to a device. `address` is where it was found, if it was; it is still the one that goes by its name.
    pub fn remote(
        &self,
        target: Target,
        address: Option<&str>,
        screen: &Screen,
    ) -> Result<Box<dyn Remote>, OptionsError> {
        if self.builtin || !has_ssh() {
            if !self.builtin {
                screen.note("There is no ssh in PATH: the built-in client connects.");
            }
            return Ok(Box::new(Builtin::new(self, &target, address)?));
        }
        if self.password_file.is_some() || self.passphrase_file.is_some() {
            return Err(OptionsError::SecretFile);
        }
        let ssh = Ssh::new(self, target);
        Ok(Box::new(match address {
            Some(address) => ssh.at(address),
            None => ssh,
        }))
    }
}

/// Whether there is a program of that name, as a shell would look for it.
fn has_ssh() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|folder| nix::unistd::access(&folder.join("ssh"), nix::unistd::AccessFlags::X_OK).is_ok())
}

#[derive(Debug, Error)]
pub enum OptionsError {
    #[error("ssh reads no secret from a file: give --builtin as well")]
    SecretFile,
    #[error(transparent)]
    Builtin(#[from] SettingsError),
}
