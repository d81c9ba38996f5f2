//! `myelin sessions`: who is logged in, and ending what they do.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::connection::admission::ConnectionId;
use super::control::{self, Request, Response};
use crate::config::{self, Config, Source};

#[derive(Subcommand)]
pub enum Command {
    /// Show the connections that have logged in.
    List {
        /// Print one JSON object for each connection.
        #[arg(long)]
        json: bool,
    },
    /// End connections, and with them what runs in them.
    Kick {
        /// Their numbers, as `list` shows them.
        #[arg(required_unless_present = "all", value_name = "ID")]
        id: Vec<ConnectionId>,
        /// End all of them; over SSH that is your own too.
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

/// Exit status 0, or 1 when the daemon does not answer or a connection to end is not there.
pub fn main(source: &Source, command: Command) -> ExitCode {
    let config = config::load(source).config;
    let done = match command {
        Command::List { json } => list(&config, json),
        Command::Kick { id, all: _ } => kick(&config, id),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list(config: &Config, json: bool) -> io::Result<()> {
    let Response::Status(status) = control::ask_or_explain(config, &Request::Status)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut out = io::stdout().lock();
    for connection in &status.connections {
        if json {
            serde_json::to_writer(&mut out, connection)?;
            writeln!(out)?;
        } else {
            let (id, seconds) = (connection.id, connection.seconds);
            writeln!(out, "{id:<6} {:<16} {:<28} {seconds} s", connection.user, connection.peer)?;
        }
    }
    Ok(())
}

fn kick(config: &Config, ids: Vec<ConnectionId>) -> io::Result<()> {
    let request = Request::Kick { ids: ids.clone() };
    let Response::Kicked(kicked) = control::ask_or_explain(config, &request)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    match ids.iter().find(|id| !kicked.contains(id)) {
        Some(id) => {
            Err(io::Error::other(format!("no connection {id} is logged in; see: myelin sessions list")))
        }
        None => writeln!(io::stdout(), "ended: {}", kicked.len()),
    }
}
