//! Which program applies a firmware, and with which arguments.
//!
//! It is always a process of its own: the image's fwup where there is one, else the applet in this binary.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use super::public_keys::{self, PublicKeyError};
use super::store::devpath;
use crate::config::{Firmware, FwupProgram, Secret};
use crate::uboot_env::Environment;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwupCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub environment: Vec<Secret>,
    pub devpath: PathBuf,
}

/// What somebody wants otherwise than configured, for one update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub task: Option<String>,
    pub devpath: Option<PathBuf>,
    pub extra: Option<Vec<String>>,
}

impl FwupCommand {
    /// For one update; what is wrong is found here, before anything is started.
    pub fn for_update(
        firmware: &Firmware,
        environment: Option<&Environment>,
        overrides: Overrides,
    ) -> Result<Self, ProgramError> {
        let devpath = overrides.devpath.or_else(|| devpath(firmware, environment)).unwrap_or_default();
        if devpath.as_os_str().is_empty() || !devpath.exists() {
            return Err(ProgramError::Devpath { path: devpath });
        }
        let keys = public_keys::read(&firmware.public_keys)?;
        let (program, mut args) = fwup(&firmware.fwup)?;
        args.extend(["--exit-handshake", "--apply", "--no-unmount", "-d"].map(OsString::from));
        args.push(devpath.clone().into());
        args.push("--task".into());
        args.push(overrides.task.unwrap_or_else(|| firmware.task.clone()).into());
        let extra = overrides.extra.unwrap_or_else(|| firmware.fwup_extra_options.clone());
        args.extend(extra.into_iter().map(OsString::from));
        args.extend(keys.into_iter().flat_map(|key| ["--public-key".into(), key.into()]));
        Ok(Self { program, args, environment: firmware.fwup_env.clone(), devpath })
    }

    /// For a task of an operations archive (spec fwup.md 6.1).
    pub fn for_task(
        firmware: &Firmware,
        archive: &Path,
        task: &str,
        devpath: &Path,
    ) -> Result<Self, ProgramError> {
        if !devpath.exists() {
            return Err(ProgramError::Devpath { path: devpath.into() });
        }
        let (program, mut args) = fwup(&firmware.fwup)?;
        args.extend(["-a".into(), "-i".into(), archive.into(), "-t".into(), task.into()]);
        args.extend(["-d".into(), devpath.into()]);
        args.extend(["-q", "-U", "--enable-trim", "--framing"].map(OsString::from));
        Ok(Self { program, args, environment: firmware.fwup_env.clone(), devpath: devpath.into() })
    }

    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, value) in self.environment.iter().filter_map(|variable| variable.expose().split_once('='))
        {
            command.env(name, value);
        }
        command
    }
}

/// The program, and the arguments that make it fwup.
fn fwup(configured: &FwupProgram) -> Result<(PathBuf, Vec<OsString>), ProgramError> {
    match configured {
        FwupProgram::Path(path) if path.components().count() == 1 => match find_on_path(path) {
            Some(found) => Ok((found, Vec::new())),
            None => Err(ProgramError::Fwup { path: path.clone() }),
        },
        FwupProgram::Path(path) if is_program(path) => Ok((path.clone(), Vec::new())),
        FwupProgram::Path(path) => Err(ProgramError::Fwup { path: path.clone() }),
        // A link to ourselves is fine: called by that name we are the applet.
        FwupProgram::Auto => Ok(find_on_path("fwup")
            .map_or_else(|| ("/proc/self/exe".into(), vec!["fwup".into()]), |found| (found, Vec::new()))),
    }
}

/// Looks for a program as execvp(3) does; init may have given us no PATH at all.
pub fn find_on_path(name: impl AsRef<Path>) -> Option<PathBuf> {
    let path =
        std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into());
    find_on(path, name)
}

/// The same in the folders of `path`, with colons between them.
pub fn find_on(path: impl AsRef<OsStr>, name: impl AsRef<Path>) -> Option<PathBuf> {
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name.as_ref()))
        .find(|candidate| is_program(candidate))
}

/// Whether somebody could run it.
pub fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

const DEFAULT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Why fwup is not even started. The texts are those that scripts know.
#[derive(Debug, Error)]
pub enum ProgramError {
    #[error("Invalid device path: \"{path}\"", path = path.display())]
    Devpath { path: PathBuf },
    #[error("fwup not found: {path}", path = path.display())]
    Fwup { path: PathBuf },
    #[error("no update is installed until this is mended: {0}")]
    PublicKey(#[from] PublicKeyError),
}

impl ProgramError {
    /// As a shell has it: 127 for a program that is not there.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Fwup { .. } => 127,
            Self::Devpath { .. } | Self::PublicKey(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    fn firmware(folder: &Path) -> Firmware {
        let (fwup, disk) = (folder.join("my-fwup"), folder.join("disk.img"));
        files::replace(&fwup, b"#!/bin/sh\n", 0o755).unwrap();
        files::replace(&disk, b"", 0o600).unwrap();
        Firmware { fwup: FwupProgram::Path(fwup), devpath: Some(disk), ..Firmware::default() }
    }

    fn words(command: &FwupCommand) -> Vec<&str> {
        command.args.iter().map(|arg| arg.to_str().unwrap()).collect()
    }

    #[test]
    fn the_arguments_are_exactly_those_of_ssh_subsystem_fwup() {
        let folder = tempfile::tempdir().unwrap();
        let mut firmware = firmware(folder.path());
        let disk = folder.path().join("disk.img");
        let disk = disk.to_str().unwrap();
        let command = FwupCommand::for_update(&firmware, None, Overrides::default()).unwrap();
        let plain = ["--exit-handshake", "--apply", "--no-unmount", "-d", disk, "--task", "upgrade"];
        assert_eq!(words(&command), plain);
        let key = "hvXL86eD2BzCsJ9F0mFFbZhUBHLCzTUhAkEZ0a2kJpE=";
        firmware.fwup_extra_options = vec!["--enable-trim".into()];
        firmware.public_keys = vec![key.into()];
        let command = FwupCommand::for_update(&firmware, None, Overrides::default()).unwrap();
        assert_eq!(words(&command), [&plain[..], &["--enable-trim", "--public-key", key]].concat());
    }

    #[test]
    fn tasks_are_run_as_nerves_runtime_runs_them() {
        let folder = tempfile::tempdir().unwrap();
        let (firmware, disk) = (firmware(folder.path()), folder.path().join("disk.img"));
        let command =
            FwupCommand::for_task(&firmware, Path::new("/usr/share/fwup/ops.fw"), "revert", &disk).unwrap();
        let line = format!(
            "-a -i /usr/share/fwup/ops.fw -t revert -d {} -q -U --enable-trim --framing",
            disk.display()
        );
        assert_eq!(words(&command).join(" "), line);
        let missing = Path::new("/nonexistent/disk");
        assert!(FwupCommand::for_task(&firmware, Path::new("/x"), "revert", missing).is_err());
    }

    #[test]
    fn the_device_comes_from_the_store_when_it_is_not_configured() {
        let folder = tempfile::tempdir().unwrap();
        let mut firmware = firmware(folder.path());
        let disk = firmware.devpath.take().unwrap();
        let mut environment = Environment::default();
        environment.set("nerves_fw_devpath", disk.to_str().unwrap()).unwrap();
        let command = FwupCommand::for_update(&firmware, Some(&environment), Overrides::default()).unwrap();
        assert_eq!(command.devpath, disk);
        let error = FwupCommand::for_update(&firmware, None, Overrides::default()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_status()), ("Invalid device path: \"\"", 1));
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let good = firmware(folder.path());
        let refusal = |firmware: &Firmware| {
            let error = FwupCommand::for_update(firmware, None, Overrides::default()).unwrap_err();
            (error.to_string(), error.exit_status())
        };
        let missing = Firmware { fwup: FwupProgram::Path("/nonexistent/fwup".into()), ..good.clone() };
        assert_eq!(refusal(&missing), ("fwup not found: /nonexistent/fwup".into(), 127));
        let no_program = Firmware { fwup: FwupProgram::Path(folder.path().join("disk.img")), ..good.clone() };
        assert_eq!(refusal(&no_program).1, 127);
        let no_device = Firmware { devpath: Some("/nonexistent/disk".into()), ..good.clone() };
        assert_eq!(refusal(&no_device), ("Invalid device path: \"/nonexistent/disk\"".into(), 1));
        let no_key = Firmware { public_keys: vec!["broken".into()], ..good };
        assert_eq!(refusal(&no_key).1, 1);
    }

    #[test]
    fn without_a_fwup_the_applet_is_used() {
        let (program, args) = fwup(&FwupProgram::Auto).unwrap();
        if find_on_path("fwup").is_none() {
            assert_eq!((program, args), ("/proc/self/exe".into(), vec!["fwup".into()]));
        } else {
            assert!(args.is_empty());
        }
        assert!(find_on_path("sh").is_some());
        assert!(find_on_path("no-such-program-here").is_none());
    }
}
