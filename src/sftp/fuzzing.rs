//! A client's packets, against a folder of its own in which it may change nothing.

use std::path::PathBuf;

use super::options::Options;
use super::requests::Server;

/// Packets, each behind its length in one byte.
pub fn sftp(mut data: &[u8]) {
    let options = Options { root: Some(PathBuf::from("/usr/share")), read_only: true, ..Options::default() };
    let Ok(mut server) = Server::new(&options) else { return };
    let _ = server.answer(&[1, 0, 0, 0, 3]);
    while let Some((&length, rest)) = data.split_first() {
        let (packet, rest) = rest.split_at(rest.len().min(length.into()));
        if server.answer(packet).is_err() {
            return;
        }
        server.answers.bytes.clear();
        data = rest;
    }
}
