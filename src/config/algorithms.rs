//! Names of algorithms: which exist, which are used by default, and what `+x,-y,^z` makes of them.

use super::values::{pattern_matches, split_commas};

/// The four lists of sshd_config(5) that name algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kex,
    Cipher,
    Mac,
    PublicKey,
}

/// A list with its prefixes worked out.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// In order of preference; empty when the text leaves nothing.
    pub names: Vec<&'static str>,
    /// Names that are no algorithm of this kind here; they were skipped.
    pub unknown: Vec<String>,
}

impl Kind {
    /// Every name that may be configured. SHA-1, CBC and `none` are not among them.
    pub fn known(self) -> &'static [&'static str] {
        match self {
            Self::Kex => &[
                "mlkem768x25519-sha256",
                "curve25519-sha256",
                "curve25519-sha256@libssh.org",
                "ecdh-sha2-nistp256",
                "ecdh-sha2-nistp384",
                "ecdh-sha2-nistp521",
                "diffie-hellman-group14-sha256",
                "diffie-hellman-group15-sha512",
                "diffie-hellman-group16-sha512",
                "diffie-hellman-group17-sha512",
                "diffie-hellman-group18-sha512",
                "diffie-hellman-group-exchange-sha256",
            ],
            Self::Cipher => &[
                "chacha20-poly1305@openssh.com",
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "aes256-ctr",
                "aes192-ctr",
                "aes128-ctr",
            ],
            Self::Mac => &[
                "hmac-sha2-256-etm@openssh.com",
                "hmac-sha2-512-etm@openssh.com",
                "hmac-sha2-256",
                "hmac-sha2-512",
            ],
            Self::PublicKey => &[
                "ssh-ed25519",
                "ecdsa-sha2-nistp256",
                "ecdsa-sha2-nistp384",
                "ecdsa-sha2-nistp521",
                "rsa-sha2-512",
                "rsa-sha2-256",
                "sk-ssh-ed25519@openssh.com",
                "sk-ecdsa-sha2-nistp256@openssh.com",
            ],
        }
    }

    /// What is used when nothing is configured. `aes`: this processor has AES instructions.
    pub fn defaults(self, aes: bool) -> &'static [&'static str] {
        match self {
            // Finite-field Diffie-Hellman costs seconds on small boards, before anybody has logged in.
            Self::Kex => &["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"],
            Self::Cipher if aes => &[
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "chacha20-poly1305@openssh.com",
                "aes256-ctr",
                "aes128-ctr",
            ],
            Self::Cipher => &[
                "chacha20-poly1305@openssh.com",
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "aes256-ctr",
                "aes128-ctr",
            ],
            Self::Mac => &["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
            Self::PublicKey => self.known(),
        }
    }

    /// Works out a configured list; an empty text is the default.
    ///
    /// A prefix holds for the items after it too, as in sshd_config(5): `+` appends, `^` puts in front,
    /// `-` removes (with `*` and `?`). A first item without a prefix replaces the default.
    pub fn resolve(self, text: &str, aes: bool) -> Resolved {
        let mut names: Vec<&'static str> = self.defaults(aes).to_vec();
        let mut unknown = Vec::new();
        let mut prefix = None;
        let mut front = 0;
        for item in split_commas(text) {
            let (sign, name) = match item.split_at_checked(1) {
                Some((sign @ ("+" | "-" | "^"), name)) => (Some(sign), name.trim_start()),
                _ => (None, item),
            };
            if prefix.is_none() && sign.is_none() {
                names.clear();
                prefix = Some("+");
            }
            prefix = sign.or(prefix);
            if prefix == Some("-") {
                names.retain(|known| !pattern_matches(name, known));
                front = front.min(names.len());
                continue;
            }
            let Some(known) = self.known().iter().find(|known| **known == name) else {
                unknown.push(name.to_owned());
                continue;
            };
            if prefix == Some("^") {
                names.retain(|name| name != known);
                names.insert(front.min(names.len()), known);
                front += 1;
            } else if !names.contains(known) {
                names.push(known);
            }
        }
        Resolved { names, unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macs(text: &str) -> Vec<&'static str> {
        Kind::Mac.resolve(text, true).names
    }

    const E256: &str = "hmac-sha2-256-etm@openssh.com";
    const E512: &str = "hmac-sha2-512-etm@openssh.com";

    #[test]
    fn prefixes_change_the_default_and_names_replace_it() {
        assert_eq!(macs(""), [E256, E512]);
        assert_eq!(macs("hmac-sha2-512"), ["hmac-sha2-512"]);
        assert_eq!(macs("+hmac-sha2-256,hmac-sha2-512"), [E256, E512, "hmac-sha2-256", "hmac-sha2-512"]);
        assert_eq!(macs("-*512*"), [E256]);
        assert_eq!(macs("^hmac-sha2-512, hmac-sha2-256"), ["hmac-sha2-512", "hmac-sha2-256", E256, E512]);
        assert_eq!(macs("+hmac-sha2-256,-hmac-sha2-256-etm@openssh.com"), [E512, "hmac-sha2-256"]);
        assert_eq!(macs("+hmac-sha2-256-etm@openssh.com"), [E256, E512]);
        assert!(macs("-*").is_empty());
    }

    #[test]
    fn unknown_names_are_skipped_and_told() {
        let resolved = Kind::Cipher.resolve("3des-cbc,none,aes128-ctr", false);
        assert_eq!(resolved.names, ["aes128-ctr"]);
        assert_eq!(resolved.unknown, ["3des-cbc", "none"]);
    }

    #[test]
    fn russh_knows_every_name() {
        for name in Kind::Kex.known() {
            assert!(russh::kex::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in Kind::Cipher.known() {
            assert!(russh::cipher::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in Kind::Mac.known() {
            assert!(russh::mac::Name::try_from(*name).is_ok(), "{name}");
        }
        for name in Kind::PublicKey.known() {
            assert!(name.parse::<russh::keys::Algorithm>().is_ok(), "{name}");
        }
    }
}
