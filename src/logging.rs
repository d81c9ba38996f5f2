//! Log lines: to journald with fields where stderr is the journal, to syslogd, else as text on stderr.
//!
//! Libraries are not heard: russh alone would write a line for every packet. Secrets never get here,
//! because the types that hold them print `[redacted]`.

mod seldom;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Mutex;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogLevel, LogTarget};
pub use seldom::Seldom;
use syslog::Syslog;

/// Starts logging for this process; `config` decides where to and how much.
pub fn start(config: &Config) {
    let level = LevelFilter::from_level(match config.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    });
    let to_journal = match config.log {
        LogTarget::Auto => stderr_is_the_journal(),
        LogTarget::Stderr | LogTarget::Syslog => false,
        LogTarget::Journald => true,
    };
    let registry = tracing_subscriber::registry().with(level);
    // A second start (tests in one process) keeps the first subscriber.
    if to_journal && let Ok(journal) = tracing_journald::layer() {
        let _ = registry.with(journal.with_syslog_identifier("myelin".into())).try_init();
    } else {
        let wants_syslog = config.log == LogTarget::Syslog;
        let syslog = wants_syslog.then(|| Syslog::new(open_without_waiting())).and_then(Result::ok);
        // syslogd has a clock of its own.
        let clock: fn(&mut Writer<'_>) -> std::fmt::Result =
            if syslog.is_some() { |_| Ok(()) } else { |writer| SystemTime.format_time(writer) };
        let writer = match (syslog, open_without_waiting()) {
            (Some(syslog), _) => BoxMakeWriter::new(syslog),
            (None, Some(file)) => BoxMakeWriter::new(Mutex::new(file)),
            (None, None) => BoxMakeWriter::new(io::stderr),
        };
        let text = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(false)
            .with_timer(clock)
            // Else a line that is lost is reported on stderr, which waits.
            .log_internal_errors(false)
            .with_writer(writer);
        let _ = registry.with(text).try_init();
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            place,
            "a task panicked; its connection ends, the daemon goes on: please report this line"
        );
    }));
}

/// A pipe whose reader hangs, or a console that was stopped with Ctrl-S, must not stop what logs people in: lines
/// that find no room there are lost. The flag holds for this way of opening alone, not for others who write there.
fn open_without_waiting() -> Option<File> {
    let stderr = io::stderr().as_fd().try_clone_to_owned().ok().map(File::from)?;
    let kind = stderr.metadata().ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/proc/self/fd/2")
        .ok()
}

/// systemd sets `JOURNAL_STREAM=DEV:INODE` for a stderr that it connected to the journal
/// (systemd.exec(5)); a redirected stderr has other numbers.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let Ok(metadata) = std::fs::File::from(stderr).metadata() else { return false };
    stream == format!("{}:{}", metadata.st_dev(), metadata.st_ino())
}
