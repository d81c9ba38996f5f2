//! `myelin discover`: which devices announce themselves; and the one that is meant when none is named.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::mdns::browse::{Device, browse};

/// Exit status: 0 at least one was found; 1 none was.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Seconds to listen.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
}

/// The answer of `--json`.
#[derive(Serialize)]
struct Report {
    devices: Vec<Device>,
}

pub fn main(args: &Args) -> ExitCode {
    let devices = match browse(Duration::from_secs(args.wait)) {
        Ok(devices) => devices,
        Err(error) => {
            eprintln!("myelin: cannot ask the network: {error}");
            return ExitCode::FAILURE;
        }
    };
    let found = !devices.is_empty();
    let text = match args.json {
        true => serde_json::to_string_pretty(&Report { devices }).unwrap_or_default() + "\n",
        false => table(&devices),
    };
    if !found && !args.json {
        eprintln!(
            "myelin: no device answered; a device does when its configuration has announce = true below [mdns]"
        );
    }
    let printed = io::stdout().write_all(text.as_bytes()).is_ok();
    if found && printed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line a device: name, address, product, version, platform and serial number.
pub fn table(devices: &[Device]) -> String {
    let unknown = || "-".to_owned();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
    let row = |device: &Device| {
        let address = if device.port == 22 {
            device.address.clone()
        } else {
            format!("{} port {}", device.address, device.port)
        };
        let facts = [&device.product, &device.version, &device.platform, &device.serial].map(text);
        [device.name.clone(), address].into_iter().chain(facts).collect::<Vec<String>>()
    };
    let rows: Vec<Vec<String>> = devices.iter().map(row).collect();
    let mut table = String::new();
    for row in &rows {
        for (column, word) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|word| word.chars().count()).max();
            let gap = if column + 1 < row.len() { width.unwrap_or(0) + 2 } else { 0 };
            // Writing to a String cannot fail.
            let _ = write!(table, "{word:gap$}");
        }
        table.push('\n');
    }
    table
}

/// How long an upload looks for the device that it was not told.
pub const LOOK: Duration = Duration::from_secs(1);
