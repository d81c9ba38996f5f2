//! The reboot: by the system's own means where there are any, by reboot(2) in the end.
//!
//! An argument for the boot firmware (`0 tryboot` on a Raspberry Pi) lies in a file that fwup may have
//! written during the update; that one counts, since the firmware knows its boot loader best. systemd and
//! erlinit pass it on. Other inits cannot, so there the last step is done here at once.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::program::find_on_path;
use crate::{files, sys, tasks};

/// Reboots. Comes back only when the kernel refuses. Blocks for up to a minute while init does its work.
pub fn reboot(argument: Option<&str>) -> io::Error {
    let plan = plan(&System::detect(), argument);
    info!(?plan, "rebooting");
    if let Some((path, argument)) = &plan.write {
        match write_new(path, argument) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                warn!(path = %path.display(), %error, "the reboot's argument cannot be handed to init");
            }
            _ => {}
        }
    }
    if let Some(words) = &plan.command {
        let asked = Instant::now();
        match ask(words) {
            Ok(()) => std::thread::sleep(INIT_LIMIT.saturating_sub(asked.elapsed())),
            Err(error) => error!(%error, command = ?words, "init does not take the reboot"),
        }
        error!("the system is still running; rebooting without it");
    }
    sync();
    let argument = plan.argument.and_then(|argument| CString::new(argument).ok());
    sys::reboot(argument.as_deref())
}

/// What there is to reboot with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct System {
    init: Init,
    systemctl: Option<PathBuf>,
    reboot: Option<PathBuf>,
    /// The argument that lies there already.
    given: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Init {
    Systemd,
    Erlinit,
    #[default]
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    /// A file to make for init, unless it is there.
    write: Option<(PathBuf, String)>,
    command: Option<Vec<PathBuf>>,
    /// For our own call, if it comes to that.
    argument: Option<String>,
}

impl System {
    fn detect() -> Self {
        let erlinit = || std::fs::read_link("/proc/1/exe").is_ok_and(|path| path.ends_with("erlinit"));
        // sd_booted(3)
        let init = if Path::new("/run/systemd/system").is_dir() {
            Init::Systemd
        } else if erlinit() {
            Init::Erlinit
        } else {
            Init::Other
        };
        let given = [SYSTEMD_FILE, OTHER_FILE].into_iter().find_map(|path| {
            let bytes = files::read_limited(Path::new(path), MAX_ARGUMENT).ok()?;
            let text = String::from_utf8(bytes).ok()?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        });
        Self { init, systemctl: find_on_path("systemctl"), reboot: find_on_path("reboot"), given }
    }
}

fn plan(system: &System, configured: Option<&str>) -> Plan {
    let argument = system.given.clone().or_else(|| configured.map(String::from));
    let file = |path: &str| argument.clone().map(|argument| (PathBuf::from(path), argument));
    let (write, command) = match (system.init, &system.systemctl, &system.reboot) {
        (Init::Systemd, Some(systemctl), _) => {
            (file(SYSTEMD_FILE), Some(vec![systemctl.clone(), "reboot".into()]))
        }
        (Init::Erlinit, _, Some(reboot)) => (file(OTHER_FILE), Some(vec![reboot.clone()])),
        (_, _, Some(reboot)) if argument.is_none() => (None, Some(vec![reboot.clone()])),
        _ => (None, None),
    };
    Plan { write, command, argument }
}

/// Makes the file, unless there is one: what is in it came from the firmware itself.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())
}

/// Starts a program and waits for its end, as long as init may take altogether.
fn ask(words: &[PathBuf]) -> io::Result<()> {
    let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let give_up = Instant::now() + INIT_LIMIT;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None if Instant::now() > give_up => return Err(io::ErrorKind::TimedOut.into()),
            None => std::thread::sleep(POLL),
        }
    }
}

/// sync(2), but a card that fails may keep it for ever.
fn sync() {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Without a thread its end of the channel is dropped, which is the same as being late.
    let _ = tasks::thread(move || {
        nix::unistd::sync();
        let _ = sender.send(());
    });
    if receiver.recv_timeout(SYNC_LIMIT).is_err() {
        error!("not everything could be written out in time");
    }
}

const SYSTEMD_FILE: &str = "/run/systemd/reboot-param";
const OTHER_FILE: &str = "/run/reboot-param";
/// The kernel's own limit (kernel/reboot.c).
const MAX_ARGUMENT: u64 = 255;
const INIT_LIMIT: Duration = Duration::from_secs(60);
const SYNC_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn system(init: Init) -> System {
        System {
            init,
            systemctl: Some("/bin/systemctl".into()),
            reboot: Some("/sbin/reboot".into()),
            given: None,
        }
    }

    fn words(plan: &Plan) -> String {
        let words = plan.command.iter().flatten().map(|word| word.display().to_string());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn init_is_asked_first() {
        assert_eq!(words(&plan(&system(Init::Systemd), None)), "/bin/systemctl reboot");
        assert_eq!(words(&plan(&system(Init::Erlinit), None)), "/sbin/reboot");
        assert_eq!(words(&plan(&system(Init::Other), None)), "/sbin/reboot");
        let bare = System { systemctl: None, reboot: None, ..system(Init::Other) };
        assert_eq!(plan(&bare, None), Plan::default());
    }

    #[test]
    fn an_argument_reaches_the_kernel_on_every_way() {
        let tryboot = Some("0 tryboot".to_owned());
        let systemd = plan(&system(Init::Systemd), tryboot.as_deref());
        assert_eq!(systemd.write, Some((SYSTEMD_FILE.into(), "0 tryboot".into())));
        assert_eq!((words(&systemd), &systemd.argument), ("/bin/systemctl reboot".into(), &tryboot));
        let erlinit = plan(&system(Init::Erlinit), tryboot.as_deref());
        assert_eq!(erlinit.write, Some((OTHER_FILE.into(), "0 tryboot".into())));
        // BusyBox and sysvinit would drop it.
        let other = plan(&system(Init::Other), tryboot.as_deref());
        assert_eq!(other, Plan { argument: tryboot, ..Plan::default() });
    }

    #[test]
    fn what_the_firmware_asked_for_wins() {
        let given = System { given: Some("0 tryboot".into()), ..system(Init::Other) };
        assert_eq!(plan(&given, None).argument.as_deref(), Some("0 tryboot"));
        assert_eq!(plan(&given, Some("else")).argument.as_deref(), Some("0 tryboot"));
        assert_eq!(words(&plan(&given, None)), "");
    }

    #[test]
    fn an_argument_that_is_there_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reboot-param");
        write_new(&path, "first").unwrap();
        assert_eq!(write_new(&path, "second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn a_program_that_fails_is_noticed() {
        assert!(ask(&["/bin/true".into()]).is_ok());
        assert!(ask(&["/bin/false".into()]).is_err());
        assert!(ask(&["/nonexistent/reboot".into()]).is_err());
    }
}
