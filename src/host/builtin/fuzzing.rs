//! What stands in files that the built-in client reads.

use russh::keys::parse_public_key_base64;

use super::known_hosts::{Knowledge, KnownHosts, name};

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

/// A file of known hosts. Whatever stands before it, a line that knows the host counts, if nothing revokes its key.
pub fn known_hosts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = parse_public_key_base64(KEY).expect("it is a key");
    for host in [name("Box.local", 22), name("10.0.0.5", 2222)] {
        let _ = KnownHosts::of(&text).types(&host);
        let known = KnownHosts::of(&format!("{text}\n{host} ssh-ed25519 {KEY}\n")).look_up(&host, &key);
        assert!(matches!(known, Knowledge::Known | Knowledge::Revoked(_)), "{known:?}");
    }
}
