//! The passwords of the system's users: shadow(5), as far as we may read it.

use std::path::Path;

use crate::config::Secret;
use crate::ssh::authorized_keys::read_regular;

const PATH: &str = "/etc/shadow";
const MAX_FILE: u64 = 1 << 20;

/// What stands in the place of each user's password; nothing where the file cannot be read.
pub fn read() -> Vec<(String, Secret)> {
    let content = read_regular(Path::new(PATH), MAX_FILE).map(|(content, _)| content).unwrap_or_default();
    parse(&zeroize::Zeroizing::new(content))
}

fn parse(content: &[u8]) -> Vec<(String, Secret)> {
    let entry = |line: &[u8]| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        Some((fields.next()?.to_owned(), Secret::new(fields.next()?.to_owned())))
    };
    content.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_hashes() {
        let parsed = parse(b"root:*:19000:0:99999:7:::\nada:$6$a$b:1::::::\n\nbroken\n\xff:x:\nbob:!:");
        let expected = [("root", "*"), ("ada", "$6$a$b"), ("bob", "!")];
        assert!(parsed.iter().map(|(name, hash)| (name.as_str(), hash.expose())).eq(expected));
    }
}
