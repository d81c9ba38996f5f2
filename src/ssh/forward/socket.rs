//! Sockets of the file system that we listen on for a client, its agent's among them.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, lchown};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::listen::Listener;
use super::{Refusal, Shared};
use crate::config::{Config, socket_is_permitted};
use crate::ssh::authorized_keys::Options;
use crate::{files, sockets};

/// The name of a socket, removed when this is dropped unless somebody else has it by then.
pub struct Named {
    path: PathBuf,
    file: Option<(u64, u64)>,
    /// A folder that was made for it alone.
    folder: Option<PathBuf>,
}

impl Named {
    fn new(path: &Path, folder: Option<PathBuf>) -> Self {
        Self { path: path.into(), file: identity(path), folder }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // What cannot be removed is a name without anybody behind it.
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// What tells a file from a later one of the same name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.st_dev(), file.st_ino()))
}

/// Listens where the client asks for, if it may.
pub fn listen(shared: &Shared, options: &Options, path: &str) -> Result<Listener, Refusal> {
    shared.check(options.allow_port_forwarding())?;
    let ssh = &shared.settings.config.ssh;
    if !ssh.allow_stream_local_forwarding.remote() {
        return Err(Refusal::Prohibited("allow_stream_local_forwarding does not include remote"));
    }
    if !shared.is_ours() {
        return Err(Refusal::NOT_ROOT);
    }
    if options.permit_listen().is_some() || !socket_is_permitted(&ssh.permit_socket, path) {
        return Err(Refusal::Prohibited("not in permit_socket, or not in permitlisten= of the key"));
    }
    let path = Path::new(path);
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if ssh.stream_local_bind_unlink && is_socket {
        fs::remove_file(path)?;
    }
    Ok(bind(path, 0o777 & !ssh.stream_local_bind_mask.0, None)?)
}

/// Where the socket is behind which the client's agent is.
pub fn agent_path(shared: &Shared) -> PathBuf {
    agents(&shared.settings.config).join(shared.connection.id.to_string()).join("agent")
}

/// Listens there, if the client may, in a folder that only its user enters.
pub fn listen_for_agent(shared: &Shared, options: &Options, path: &Path) -> Result<Listener, Refusal> {
    shared.check(options.allow_agent_forwarding())?;
    if !shared.settings.config.ssh.allow_agent_forwarding {
        return Err(Refusal::Prohibited("allow_agent_forwarding is off"));
    }
    let folder = path.parent().unwrap_or(path);
    let account = shared.account().ok_or(Refusal::Prohibited("there is no such user"))?;
    // What an earlier worker could not remove must not become a way in.
    let _ = fs::remove_dir_all(folder);
    // Who is no root has to get through the first.
    for (folder, mode) in folder.parent().into_iter().map(|all| (all, 0o711)).chain([(folder, 0o700)]) {
        files::make_dir(folder, mode).map_err(io::Error::other)?;
    }
    let listener = bind(path, 0o600, Some(folder.into()))?;
    if !account.is_ours() {
        // The folder last: until then nobody else can put something in the place of the socket.
        for file in [path, folder] {
            lchown(file, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
        }
    }
    Ok(listener)
}

fn bind(path: &Path, mode: u32, folder: Option<PathBuf>) -> io::Result<Listener> {
    let socket = sockets::listen_at(path, mode)?;
    let name = Named::new(path, folder);
    Ok(Listener::Unix { listener: UnixListener::from_std(socket.into())?, _name: name })
}

/// Removes what a worker that was killed has left. Call it before anybody logs in.
pub fn remove_leftovers(config: &Config) {
    // They hold nothing, and the next start tries again.
    let _ = fs::remove_dir_all(agents(config));
}

fn agents(config: &Config) -> PathBuf {
    config.runtime_dir.join("agents")
}
