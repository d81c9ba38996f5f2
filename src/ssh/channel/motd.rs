//! The message of the day: a file of the image's, and how the device is, for whoever opens a shell on a terminal.
//!
//! From memory and small files, without a program, and never later than its limit: a disk that does not answer
//! must not keep anybody from the shell with which they came to find out why.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Config;
use crate::files;
use crate::firmware::status::Status;
use crate::tasks::aside;

/// How long a login waits for it.
const LIMIT: Duration = Duration::from_millis(50);
/// How many are put together at the same time.
static PLACES: Semaphore = Semaphore::const_new(4);
/// How much of the file is shown.
const MAX_FILE: u64 = 16 << 10;
/// How many addresses are shown.
const MAX_ADDRESSES: usize = 6;

/// The text, with the line ends of a terminal; empty when there is nothing to say or it would take too long.
pub async fn text(config: &Config) -> String {
    // Behind a disk that hangs they would collect, and take the threads that others need.
    let Ok(place) = PLACES.try_acquire() else { return String::new() };
    let config = config.clone();
    let telling = aside(move || {
        let _place = place;
        tell(&config)
    });
    let told = timeout(LIMIT, telling).await;
    told.ok().and_then(Result::ok).unwrap_or_default().replace('\n', "\r\n")
}

fn tell(config: &Config) -> String {
    // The image's own text may use any encoding and any escape sequence.
    let mut text = files::read_limited(&config.ssh.motd, MAX_FILE)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if config.ssh.motd_status {
        text.push_str(&status(config));
    }
    text
}

/// A few lines; what cannot be found out has no line.
fn status(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            _ = writeln!(text, "{name:<10}{value}");
        }
    };
    let brief = Status::brief(config);
    line("firmware", brief.firmware);
    line("serial", brief.serial_number);
    line("up", uptime());
    line("memory", memory());
    line("state", usage(&config.state_dir));
    line("addresses", addresses());
    text
}

fn proc_file(name: &str) -> Option<String> {
    let bytes = files::read_limited(&Path::new("/proc").join(name), MAX_FILE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `3 days 4:05, load 0.12` (proc_uptime(5), proc_loadavg(5)).
fn uptime() -> Option<String> {
    let seconds: u64 = proc_file("uptime")?.split('.').next()?.parse().ok()?;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let load = proc_file("loadavg")?;
    let load = load.split(' ').next()?;
    let days = match days {
        0 => String::new(),
        1 => "1 day ".into(),
        days => format!("{days} days "),
    };
    Some(format!("{days}{hours}:{minutes:02}, load {load}"))
}

/// `12 % of 512 MiB` (proc_meminfo(5)).
fn memory() -> Option<String> {
    let text = proc_file("meminfo")?;
    let kib = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    share(kib("MemAvailable:")? << 10, kib("MemTotal:")? << 10)
}

/// The same of the file system that holds what survives updates.
fn usage(folder: &Path) -> Option<String> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between our targets")]
    let (size, free, all) =
        (u64::from(found.fragment_size()), u64::from(found.blocks_available()), u64::from(found.blocks()));
    Some(format!("{} ({})", share(free.saturating_mul(size), all.saturating_mul(size))?, folder.display()))
}

fn share(free: u64, all: u64) -> Option<String> {
    let percent = all.saturating_sub(free).saturating_mul(100).checked_div(all)?;
    Some(format!("{percent} % of {} MiB", all >> 20))
}

/// Where the device can be reached.
fn addresses() -> Option<String> {
    let mut found = Vec::new();
    for interface in nix::ifaddrs::getifaddrs().ok()? {
        let Some(address) = interface.address else { continue };
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => continue,
        };
        if !address.is_loopback() && found.len() < MAX_ADDRESSES {
            found.push(format!("{address} ({})", interface.interface_name));
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}
