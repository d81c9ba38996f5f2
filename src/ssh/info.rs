//! `myelin ssh`: how the daemon can be reached and recognised, and which algorithms it speaks.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::algorithms;
use super::control::{self, Request, Response};
use super::status::Status;
use crate::config::{self, Config, Source};

#[derive(Subcommand)]
pub enum Command {
    /// Show addresses, fingerprints of the host keys, the number of connections and the version.
    Info {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Print the host keys as SSHFP records for DNS (RFC 4255), of the device's name or of this one.
        #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        sshfp: Option<String>,
    },
    /// Show which algorithms are offered, and which others could be.
    Algorithms {
        /// Print one JSON object a list.
        #[arg(long)]
        json: bool,
    },
}

/// The algorithms of one kind, called by the key that configures them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Algorithms {
    pub key: String,
    /// In order of preference.
    pub enabled: Vec<String>,
    /// All that may be configured.
    pub supported: Vec<String>,
}

#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
    addresses: &'a [String],
    port: Option<u16>,
    /// `TYPE SHA256:…`
    host_keys: &'a [String],
    /// Those that have logged in.
    connections: usize,
    /// Those that have not.
    strangers: usize,
}

/// Exit status 0, or 1 when the daemon does not answer.
pub fn main(source: &Source, command: Command) -> ExitCode {
    let config = config::load(source).config;
    let done = match command {
        Command::Info { json, sshfp } => status(&config).and_then(|status| match sshfp {
            Some(name) => print_sshfp(&status, &name),
            None => print_info(&status, json),
        }),
        Command::Algorithms { json } => print_algorithms(&config, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status(config: &Config) -> io::Result<Box<Status>> {
    match control::ask_or_explain(config, &Request::Status)? {
        Response::Status(status) => Ok(status),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn print_info(status: &Status, json: bool) -> io::Result<()> {
    let info = Info {
        version: &status.version,
        addresses: &status.listening,
        port: port(&status.listening),
        host_keys: &status.host_keys,
        connections: status.connections.len(),
        strangers: status.strangers,
    };
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &info)?;
        return writeln!(out);
    }
    writeln!(out, "version       {}", info.version)?;
    for address in info.addresses {
        writeln!(out, "address       {address}")?;
    }
    for key in info.host_keys {
        writeln!(out, "host key      {key}")?;
    }
    writeln!(out, "connections   {}, and {} that have not logged in", info.connections, info.strangers)
}

/// Of the first address; all have the same one, but for the listener of the legacy protocol.
fn port(addresses: &[String]) -> Option<u16> {
    addresses.first()?.rsplit(':').next()?.parse().ok()
}

fn print_sshfp(status: &Status, name: &str) -> io::Result<()> {
    let own = nix::unistd::gethostname()?;
    let name = if name.is_empty() { own.to_string_lossy() } else { name.into() };
    for record in status.host_keys.iter().filter_map(|key| sshfp(&name, key)) {
        writeln!(io::stdout(), "{record}")?;
    }
    Ok(())
}

/// The record of a key, `TYPE SHA256:…` (RFC 4255, RFC 6594, RFC 7479).
fn sshfp(name: &str, key: &str) -> Option<String> {
    let (kind, fingerprint) = key.split_once(" SHA256:")?;
    let algorithm = match kind {
        "ssh-ed25519" => 4,
        _ if kind.starts_with("ecdsa-") => 3,
        _ if kind.starts_with("ssh-rsa") || kind.starts_with("rsa-") => 1,
        _ => return None,
    };
    let digest = data_encoding::BASE64_NOPAD.decode(fingerprint.as_bytes()).ok()?;
    Some(format!("{name} IN SSHFP {algorithm} 2 {}", data_encoding::HEXLOWER.encode(&digest)))
}

fn print_algorithms(config: &Config, json: bool) -> io::Result<()> {
    let lists = match control::ask(config, &Request::Algorithms) {
        Ok(Response::Algorithms(lists)) => lists,
        // The builder of an image asks too.
        _ => {
            eprintln!("myelin: the daemon does not answer; this is what the configuration says");
            algorithms::lists(&config.ssh, &[])
        }
    };
    let mut out = io::stdout().lock();
    for list in &lists {
        if json {
            serde_json::to_writer(&mut out, list)?;
            writeln!(out)?;
            continue;
        }
        writeln!(out, "{}", list.key)?;
        for name in &list.enabled {
            writeln!(out, "  {name}")?;
        }
        for name in list.supported.iter().filter(|name| !list.enabled.contains(name)) {
            writeln!(out, "  ({name}: not enabled)")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_the_first_address() {
        assert_eq!(port(&["[::]:22".into(), "0.0.0.0:8989 (legacy)".into()]), Some(22));
        assert_eq!(port(&[]), None);
    }

    #[test]
    fn kinds_without_a_number_have_no_record() {
        let print = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";
        let record = sshfp("board", &format!("ssh-ed25519 {print}")).unwrap();
        assert!(record.starts_with("board IN SSHFP 4 2 4fb4af67"), "{record}");
        assert!(sshfp("board", &format!("ecdsa-sha2-nistp256 {print}")).unwrap().contains(" 3 2 "));
        assert!(sshfp("board", &format!("ssh-rsa {print}")).unwrap().contains(" 1 2 "));
        assert_eq!(sshfp("board", &format!("ssh-new {print}")), None);
    }
}
