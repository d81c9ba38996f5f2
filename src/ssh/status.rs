//! `myelin status`: what the daemon is doing now.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::connection::admission::ConnectionId;
use super::control::{self, Request, Response};
use crate::config::{self, Source};
use crate::firmware::lock::Progress;

#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The worker's own view of itself. Names never change, new ones may come.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// The worker's process.
    pub pid: u32,
    /// Since the worker started.
    pub seconds: u64,
    /// Addresses with ports.
    pub listening: Vec<String>,
    /// `TYPE SHA256:…`
    pub host_keys: Vec<String>,
    /// Those that have logged in.
    pub connections: Vec<Connection>,
    /// Connections that have not.
    pub strangers: usize,
    /// The update that runs.
    pub update: Option<Progress>,
}

/// One connection that has logged in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connection {
    /// What `myelin sessions kick` takes.
    pub id: ConnectionId,
    pub peer: String,
    pub user: String,
    pub fingerprint: String,
    pub seconds: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Exit status 0 when the daemon answers, 1 when it does not.
pub fn main(source: &Source, args: &Args) -> ExitCode {
    let config = config::load(source).config;
    let printed = control::ask_or_explain(&config, &Request::Status).and_then(|response| match response {
        Response::Status(status) => print(&status, args.json),
        _ => Err(io::ErrorKind::InvalidData.into()),
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(status: &Status, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, status)?;
        return writeln!(out);
    }
    writeln!(out, "myelin {}, ssh worker {} for {} s", status.version, status.pid, status.seconds)?;
    writeln!(out, "listening     {}", status.listening.join(", "))?;
    for key in &status.host_keys {
        writeln!(out, "host key      {key}")?;
    }
    for connection in &status.connections {
        let Connection { peer, user, seconds, bytes_in, bytes_out, .. } = connection;
        writeln!(
            out,
            "logged in     {user} from {peer} for {seconds} s, {bytes_in} bytes in, {bytes_out} out"
        )?;
    }
    writeln!(out, "strangers     {}", status.strangers)?;
    match &status.update {
        Some(Progress { holder, bytes, percent: Some(percent) }) => {
            writeln!(out, "update        {percent} %, {bytes} bytes, by {holder}")
        }
        Some(Progress { holder, bytes, percent: None }) => {
            writeln!(out, "update        {bytes} bytes, by {holder}")
        }
        None => writeln!(out, "update        none"),
    }
}
