//! The control socket of the worker: live things, for root on this device, one JSON object a line each way.
//!
//! Everything that is a file (keys, configuration, firmware) is read and written as a file, by whoever needs it;
//! only what lives in this process is asked for here.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use super::algorithms;
use super::connection::admission::ConnectionId;
use super::info::Algorithms;
use super::revocation;
use super::server::Server;
use super::status::{Connection, Status};
use crate::config::Config;
use crate::files;
use crate::firmware::lock;
use crate::sockets;
use crate::tasks;

/// The longest line either way.
const MAX_LINE: u64 = 64 << 10;
/// How long one side waits for the other.
const LIMIT: Duration = Duration::from_secs(5);

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    /// Which algorithms are offered.
    Algorithms,
    /// The next login with this key is a probe; answered with the status.
    Probe {
        key: String,
    },
    /// Keys or users were taken away: ends the connections that stand on them.
    EndRevoked,
    /// Ends the connections with these numbers that have logged in; all of them when there are none.
    Kick {
        ids: Vec<ConnectionId>,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    Status(Box<Status>),
    Algorithms(Vec<Algorithms>),
    /// The numbers of the connections that were told to end.
    Kicked(Vec<ConnectionId>),
    Error(String),
}

/// Where the socket is.
pub fn path(config: &Config) -> PathBuf {
    config.runtime_dir.join("ssh.sock")
}

/// Serves the socket as long as the worker runs. Without one everything else works.
pub async fn serve(server: Arc<Server>) {
    let path = path(&server.settings().config);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, path = %path.display(), "no control socket: `myelin status` will not answer");
            return std::future::pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tasks::spawn(async move {
                    // A caller that says nothing, or leaves, costs a task and no more.
                    let _ = timeout(LIMIT, answer(server, stream)).await;
                });
            }
            Err(error) => {
                warn!(%error, "the control socket does not accept");
                tokio::time::sleep(LIMIT).await;
            }
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        files::make_dir(folder, 0o755).map_err(io::Error::other)?;
    }
    // What an earlier worker left is only a name.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::from_std(sockets::listen_at(path, 0o600)?.into())
}

async fn answer(server: Arc<Server>, mut stream: UnixStream) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    let response = if caller != 0 && caller != nix::unistd::Uid::current().as_raw() {
        Response::Error("only root may ask the daemon".into())
    } else {
        let mut line = String::new();
        AsyncBufReader::new((&mut stream).take(MAX_LINE)).read_line(&mut line).await?;
        match serde_json::from_str(&line) {
            Ok(Request::Status) => Response::Status(Box::new(status(&server))),
            Ok(Request::Algorithms) => {
                let settings = server.settings();
                Response::Algorithms(algorithms::lists(&settings.config.ssh, &settings.russh.keys))
            }
            Ok(Request::Probe { key }) => match PublicKey::from_openssh(&key) {
                Ok(key) => {
                    server.probe.expect(key);
                    Response::Status(Box::new(status(&server)))
                }
                Err(error) => Response::Error(format!("no key for a probe: {error}")),
            },
            Ok(Request::EndRevoked) => Response::Kicked(revocation::enforce(&server, true)),
            Ok(Request::Kick { ids }) => Response::Kicked(kick(&server, &ids)),
            Err(error) => Response::Error(format!("not a request: {error}")),
        }
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

fn kick(server: &Server, ids: &[ConnectionId]) -> Vec<ConnectionId> {
    let mut kicked = Vec::new();
    for connection in server.connections() {
        let is_meant = ids.is_empty() || ids.contains(&connection.id);
        if is_meant && connection.login.get().is_some() {
            connection.end.tell("ended by myelin sessions kick");
            kicked.push(connection.id);
        }
    }
    kicked
}

fn status(server: &Server) -> Status {
    let settings = server.settings();
    let connections = server.connections();
    let logged_in = connections.iter().filter_map(|connection| {
        let login = connection.login.get()?;
        let (bytes_in, bytes_out) = connection.traffic();
        Some(Connection {
            id: connection.id,
            peer: connection.peer.to_string(),
            user: login.user.clone(),
            fingerprint: login.fingerprint.clone(),
            seconds: connection.since.elapsed().as_secs(),
            bytes_in,
            bytes_out,
        })
    });
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        seconds: server.started.elapsed().as_secs(),
        listening: server.listening(),
        host_keys: settings.fingerprints.clone(),
        connections: logged_in.collect(),
        strangers: server.strangers(),
        update: lock::running(&settings.config.runtime_dir),
    }
}

/// Keys or users were taken away: connections of theirs end, unless the configuration lets them stay.
pub fn end_revoked(config: &Config) {
    match ask(config, &Request::EndRevoked) {
        Ok(Response::Kicked(ids)) if !ids.is_empty() => println!("connections that end: {}", ids.len()),
        Ok(_) => {}
        // Nobody can be connected.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        Err(error) => {
            eprintln!(
                "myelin: warning: the daemon cannot be told, so connections stay: {error}; see: myelin sessions"
            );
        }
    }
}

/// Asks the running worker, for a command; says what to do when it does not answer.
pub fn ask_or_explain(config: &Config, request: &Request) -> io::Result<Response> {
    match ask(config, request) {
        Ok(Response::Error(error)) => Err(io::Error::other(error)),
        Ok(response) => Ok(response),
        Err(error) => {
            let path = path(config);
            Err(io::Error::other(format!(
                "the daemon does not answer on {}: {error}: is `myelin daemon` running?",
                path.display()
            )))
        }
    }
}

/// Asks the running worker. Blocks; for commands.
pub fn ask(config: &Config, request: &Request) -> io::Result<Response> {
    let mut stream = StdUnixStream::connect(path(config))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    BufReader::new(io::Read::take(&stream, MAX_LINE * 16)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
