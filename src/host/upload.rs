//! `myelin upload`: push a firmware file to a device and wait until it runs there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use serde::Serialize;
use thiserror::Error;

use super::choose::{ChooseError, Hints, choose};
use super::discover::{LOOK, table};
use super::metadata::{self, Metadata, MetadataError};
use super::options::{OptionsError, SshOptions};
use super::push::{Outcome, push};
use super::remote::{Remote, Trouble};
use super::screen::{Mode, Screen};
use super::status::{DeviceStatus, Verdict};
use super::target::{Target, TargetError};
use super::wait::{Answer, Return, ask, wait};
use crate::mdns::browse::browse;

/// Exit status: 0 done; 1 the device refused or fwup failed; 2 wrong usage; 3 no firmware file; 4 no
/// connection; 5 authentication; 6 connection lost; 7 the device runs another firmware; 8 it did not
/// come back; 75 it is busy.
#[derive(clap::Args)]
pub struct Args {
    /// The device: host, user@host or ssh://user@host:port. Default: $MYELIN_HOST, else the one device that
    /// announces itself on the network (`myelin discover`), else nerves.local.
    host: Option<String>,
    /// The firmware file; `-` is stdin. Default: the newest *.fw where builds put it.
    file: Option<PathBuf>,
    #[command(flatten)]
    ssh: SshOptions,
    /// Seconds until the device must be back.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
    /// End as soon as the device has taken the firmware.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Print one JSON object at the end; everything else goes to stderr.
    #[arg(long)]
    json: bool,
    /// Print errors only.
    #[arg(long, short)]
    quiet: bool,
    /// Show what would be sent and how; connect to nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Why an upload ended badly.
#[derive(Debug, Error)]
enum Failure {
    #[error(
        "the device refused the firmware or could not install it (status {0}); its slot is unchanged, see what it said above"
    )]
    Refused(i32),
    #[error("the device has no fwup subsystem, or this key may not use it; does it run Myelin or NervesSSH?")]
    NoSubsystem,
    #[error(transparent)]
    Host(#[from] TargetError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("several devices are there, name one of them: myelin upload HOST, or MYELIN_HOST=HOST\n{0}")]
    Several(String),
    #[error("ssh does not understand its options or its configuration; see what it said above")]
    Usage,
    #[error(transparent)]
    Choose(#[from] ChooseError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot connect to {0}: is it switched on, and is that its name?")]
    Connect(String),
    #[error("cannot run ssh: {0}; install an OpenSSH client")]
    NoSsh(io::Error),
    #[error("{0} does not take your key, or its own key is not the known one; see what ssh said above")]
    Authentication(String),
    #[error(
        "the connection was lost before the device reported success; its running slot is unchanged: try again"
    )]
    Lost,
    #[error(
        "the device came back with another firmware than was sent: {0}; it fell back, or the boot choice did not change"
    )]
    OtherFirmware(String),
    #[error("the device did not come back within {limit} s: {last}")]
    NotBack { limit: u64, last: String },
    #[error("the device is busy: another update runs, or one waits for the reboot; see what it said above")]
    Busy,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::NoSubsystem => 1,
            Self::Host(_) | Self::Options(_) | Self::Several(_) | Self::Usage => 2,
            Self::Choose(_) | Self::Metadata(_) | Self::Read { .. } => 3,
            Self::Connect(_) | Self::NoSsh(_) => 4,
            Self::Authentication(_) => 5,
            Self::Lost => 6,
            Self::OtherFirmware(_) => 7,
            Self::NotBack { .. } => 8,
            Self::Busy => 75,
        }
    }

    /// The word for programs.
    fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::NoSubsystem => "refused",
            Self::Host(_) | Self::Options(_) | Self::Several(_) | Self::Usage => "usage",
            Self::Choose(_) | Self::Metadata(_) | Self::Read { .. } => "no_file",
            Self::Connect(_) | Self::NoSsh(_) => "no_connection",
            Self::Authentication(_) => "authentication",
            Self::Lost => "lost",
            Self::OtherFirmware(_) => "other_firmware",
            Self::NotBack { .. } => "not_back",
            Self::Busy => "busy",
        }
    }

    fn trouble(trouble: Trouble, host: &str) -> Self {
        match trouble {
            Trouble::Usage => Self::Usage,
            Trouble::Connect => Self::Connect(host.into()),
            Trouble::Authentication => Self::Authentication(host.into()),
            Trouble::NoSubsystem => Self::NoSubsystem,
            Trouble::Lost => Self::Lost,
        }
    }
}

/// The answer of `--json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    result: &'static str,
    exit_code: u8,
    message: String,
    host: Option<String>,
    file: Option<String>,
    bytes: u64,
    seconds: f64,
    firmware: Option<Metadata>,
    device: Option<DeviceStatus>,
}

pub fn main(args: Args) -> ExitCode {
    // A device that closes early has a reason, and that is what the user wants to read.
    crate::sys::ignore_sigpipe();
    let mode = match (args.json, args.quiet) {
        (true, _) => Mode::Json,
        (false, true) => Mode::Quiet,
        (false, false) => Mode::Normal,
    };
    let screen = Arc::new(Screen::new(mode));
    let started = Instant::now();
    let mut report = Report { result: "done", ..Default::default() };
    let outcome = run(&args, &screen, &mut report);
    screen.end_bar();
    report.seconds = started.elapsed().as_secs_f64();
    match outcome {
        Ok(message) => report.message = message,
        Err(failure) => {
            let hidden = screen.take_hidden();
            if !hidden.trim().is_empty() {
                screen.error(hidden.trim_end());
            }
            report.result = failure.word();
            report.exit_code = failure.code();
            report.message = failure.to_string();
        }
    }
    finish(mode, &screen, &report)
}

fn finish(mode: Mode, screen: &Screen, report: &Report) -> ExitCode {
    if mode == Mode::Json {
        if let Ok(text) = serde_json::to_string(report) {
            let _ = writeln!(io::stdout(), "{text}");
        }
    } else if report.exit_code != 0 {
        screen.error(&format!("myelin: {}", report.message));
    } else if mode == Mode::Normal {
        let _ = writeln!(io::stdout(), "{}", report.message);
    }
    ExitCode::from(report.exit_code)
}

fn run(args: &Args, screen: &Arc<Screen>, report: &mut Report) -> Result<String, Failure> {
    let (host, remote) = find(args, screen)?;
    report.host = Some(host.clone());
    let firmware = Firmware::open(args.file.as_deref())?;
    report.file = Some(firmware.name.clone());
    report.firmware = Some(firmware.metadata.clone());
    firmware.describe().iter().for_each(|line| screen.note(line));
    if args.dry_run {
        return Ok(format!("would run: {} < {}", remote.describe(), firmware.name));
    }

    let before = match ask(&*remote, screen).map_err(Failure::NoSsh)? {
        Answer::Failed(Trouble::Lost) => return Err(Failure::Connect(host)),
        Answer::Failed(trouble) => return Err(Failure::trouble(trouble, &host)),
        // Without a boot id nothing tells a device that is back from one that has not gone.
        Answer::Status(status) => Some(status).filter(|status| status.boot_id.is_some()),
        Answer::Absent => None,
    };
    if let Some(status) = &before {
        screen.note(&format!("Device:    {}", status.describe()));
        if let Some(text) = status.mismatch(&firmware.metadata) {
            screen.error(&format!("Warning: {text}"));
        }
    }
    report.device = before.clone();
    send(&*remote, firmware.file, firmware.size, &host, screen, report)?;

    let Some(before) = before else {
        return Ok(format!(
            "Done: {host} took the firmware. It does not answer myelin-status, so nobody waited for its reboot."
        ));
    };
    if args.no_wait {
        return Ok(format!("Done: {host} took the firmware and reboots; nobody waited for it."));
    }
    come_back(&*remote, &before, &firmware.metadata, args.wait, screen, report)
}

fn send(
    remote: &dyn Remote,
    mut file: File,
    size: u64,
    host: &str,
    screen: &Arc<Screen>,
    report: &mut Report,
) -> Result<(), Failure> {
    screen.note(&format!("Uploading to {host}..."));
    let started = Instant::now();
    let name = report.file.clone().unwrap_or_default();
    let (outcome, sent) =
        push(remote, &mut file, size, screen).map_err(|source| Failure::Read { path: name, source })?;
    report.bytes = sent;
    let seconds = started.elapsed().as_secs_f64();
    match outcome {
        Outcome::Done => {
            let speed = HumanBytes((sent as f64 / seconds.max(0.001)) as u64);
            screen.note(&format!("Sent {} in {seconds:.1} s ({speed}/s).", HumanBytes(sent)));
            Ok(())
        }
        Outcome::Refused(status) => Err(Failure::Refused(status)),
        Outcome::Busy => Err(Failure::Busy),
        Outcome::Trouble(trouble) => Err(Failure::trouble(trouble, host)),
    }
}

fn come_back(
    remote: &dyn Remote,
    before: &DeviceStatus,
    sent: &Metadata,
    limit: u64,
    screen: &Arc<Screen>,
    report: &mut Report,
) -> Result<String, Failure> {
    screen.waiting(&format!("Waiting up to {limit} s until the device is back..."));
    let back = wait(remote, before, sent, Duration::from_secs(limit)).map_err(Failure::NoSsh)?;
    screen.end_bar();
    match back {
        Return::NotBack(last) => Err(Failure::NotBack { limit, last }),
        Return::Back(status, verdict) => {
            let running = status.describe();
            report.device = Some(status);
            match verdict {
                Verdict::Runs => Ok(format!("Done: the device is back and runs {running}.")),
                Verdict::OtherFirmware => Err(Failure::OtherFirmware(running)),
                Verdict::Unknown | Verdict::SameBoot => {
                    Ok(format!("Done: the device is back; it does not say which firmware runs ({running})."))
                }
            }
        }
    }
}

/// The device that was named, else the one that is there.
fn find(args: &Args, screen: &Screen) -> Result<(String, Box<dyn Remote>), Failure> {
    let variable = || std::env::var("MYELIN_HOST").ok().filter(|host| !host.is_empty());
    if let Some(host) = args.host.clone().or_else(variable) {
        let target: Target = host.parse()?;
        return Ok((host, args.ssh.remote(target, None, screen)?));
    }
    // A machine that cannot ask finds nobody, and the old name is still worth a try.
    let found = browse(LOOK).unwrap_or_default();
    let [device] = found.as_slice() else {
        if !found.is_empty() {
            return Err(Failure::Several(table(&found).trim_end().to_owned()));
        }
        return Ok((DEFAULT_HOST.into(), args.ssh.remote(DEFAULT_HOST.parse()?, None, screen)?));
    };
    screen.note(&format!("Found:     {}", table(&found).trim_end()));
    let mut target: Target = device.name.parse()?;
    target.port = Some(device.port).filter(|port| *port != 22 && args.ssh.port.is_none());
    Ok((device.name.clone(), args.ssh.remote(target, Some(&device.address), screen)?))
}

/// What Nerves devices are called, and everything else that answers to it.
const DEFAULT_HOST: &str = "nerves.local";

/// The file that is sent, checked.
struct Firmware {
    file: File,
    name: String,
    size: u64,
    metadata: Metadata,
}

impl Firmware {
    fn open(named: Option<&Path>) -> Result<Self, Failure> {
        if named == Some(Path::new("-")) {
            return Self::from_stdin();
        }
        let path = choose(named, &Hints::from_environment(), Path::new("."))?;
        let name = path.display().to_string();
        let read = |source| Failure::Read { path: name.clone(), source };
        let file = File::open(&path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let metadata = metadata::read(&path)?;
        Ok(Self { file, name, size, metadata })
    }

    /// A stream is kept in an unnamed file first: it must be a firmware file before a device hears of it.
    fn from_stdin() -> Result<Self, Failure> {
        let spool = || -> io::Result<(File, u64)> {
            use std::io::Seek;
            use std::os::unix::fs::OpenOptionsExt;
            let mut file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_TMPFILE)
                .mode(0o600)
                .open(std::env::temp_dir())?;
            let size = io::copy(&mut io::stdin().lock(), &mut file)?;
            file.rewind()?;
            Ok((file, size))
        };
        let (file, size) = spool().map_err(|source| Failure::Read { path: "stdin".into(), source })?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let metadata = metadata::read(Path::new(&path))?;
        Ok(Self { file, name: "stdin".into(), size, metadata })
    }

    fn describe(&self) -> Vec<String> {
        let unknown = || "unknown".to_owned();
        let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
        let metadata = &self.metadata;
        vec![
            format!("File:      {} ({})", self.name, HumanBytes(self.size)),
            format!("Product:   {} {}", text(&metadata.product), text(&metadata.version)),
            format!("Platform:  {}", text(&metadata.platform)),
            format!("UUID:      {}", text(&metadata.uuid)),
        ]
    }
}
