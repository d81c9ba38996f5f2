//! One line of an authorized_keys file (sshd(8), AUTHORIZED_KEYS FILE FORMAT) becomes a key or a reason.
//!
//! Owns the grammar of a line and which key types may log in. Never reads files and never repeats a
//! line's content in a message: a line may hold a command with a password in it.

use data_encoding::BASE64;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKey};
use thiserror::Error;

use super::options::Options;

/// Longest line that is read; OpenSSH's own limit is a line of 8 KiB.
pub const MAX_LINE: usize = 16 * 1024;

/// The longest RSA key that can be verified, in bits.
const MAX_RSA_BITS: u32 = 8192;

/// A public key that was decoded from a line, with what the line says about it.
#[derive(Clone, Debug)]
pub struct Key {
    public: PublicKey,
    comment: String,
    options: Options,
}

impl Key {
    /// The name of its type on the wire, such as `ssh-ed25519`.
    pub fn kind(&self) -> String {
        self.public.algorithm().to_string()
    }

    /// What follows the key in its line; may be empty.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// What its owner may do.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Makes it a key that signs certificates (see [`Options::make_authority`]).
    pub fn make_authority(&mut self, principals: &[String]) {
        self.options.make_authority(principals);
    }

    /// `SHA256:…`, as ssh-keygen -l prints it.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The size as ssh-keygen -l prints it.
    pub fn bits(&self) -> u32 {
        bits(self.public.key_data())
    }

    /// The base64 of the key, as the line holds it.
    pub fn blob(&self) -> String {
        self.public.to_bytes().map(|bytes| BASE64.encode(&bytes)).unwrap_or_default()
    }

    /// Whether it is the same key; comments do not count.
    pub fn matches(&self, other: &PublicKey) -> bool {
        self.public.key_data() == other.key_data()
    }

    /// Whether it is the same key; comments do not count.
    pub fn same(&self, other: &Key) -> bool {
        self.matches(&other.public)
    }

    /// An RSA key below `required` bits is refused, other types have one size.
    pub fn check_size(&self, required: u32) -> Result<(), LineError> {
        check_size(self.public.key_data(), required)
    }
}

/// An RSA key below `required` bits is refused, other types have one size.
pub fn check_size(key: &KeyData, required: u32) -> Result<(), LineError> {
    let bits = bits(key);
    match key {
        KeyData::Rsa(_) if bits < required => Err(LineError::RsaTooSmall { bits, required }),
        KeyData::Rsa(_) if bits > MAX_RSA_BITS => Err(LineError::RsaTooLarge { bits }),
        _ => Ok(()),
    }
}

fn bits(key: &KeyData) -> u32 {
    match key {
        KeyData::Ecdsa(key) => match key.curve() {
            russh::keys::EcdsaCurve::NistP256 => 256,
            russh::keys::EcdsaCurve::NistP384 => 384,
            russh::keys::EcdsaCurve::NistP521 => 521,
        },
        KeyData::Rsa(key) => {
            let modulus = key.n().as_positive_bytes().unwrap_or_default();
            let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
            key.key_size().saturating_sub(unused)
        }
        _ => 256,
    }
}

/// Why a line lets nobody log in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("no key is found in the line; a line is: TYPE BASE64 COMMENT")]
    NotAKey,
    #[error("option {0} is not supported yet; nobody can log in with this key until the options are removed")]
    Option(&'static str),
    #[error(
        "the value of option {0} is missing, broken or too much; nobody can log in with this key until it is mended"
    )]
    BadOption(&'static str),
    #[error("an option is unknown; nobody can log in with this key until the options are removed")]
    UnknownOption,
    #[error("keys of type {0} are not secure any more; make one with: ssh-keygen -t ed25519")]
    Obsolete(&'static str),
    #[error(
        "keys of type {0} need the option no-touch-required: whether the security key was touched cannot be \
         checked here; put no-touch-required in front of the line"
    )]
    SecurityKey(&'static str),
    #[error(
        "a certificate is no key: list the authority's key that signed it, with cert-authority in front of it"
    )]
    Certificate,
    #[error("the base64 of the key is broken; copy the line again from the .pub file")]
    BadBase64,
    #[error(
        "the key is damaged or of another type than its line says; copy the line again from the .pub file"
    )]
    BadKey,
    #[error(
        "the RSA key has {bits} bits, and required_rsa_size is {required}; make one with: ssh-keygen -t ed25519"
    )]
    RsaTooSmall { bits: u32, required: u32 },
    #[error("the RSA key has {bits} bits, more than {MAX_RSA_BITS} cannot be verified")]
    RsaTooLarge { bits: u32 },
}

/// Reads a line. `None` is a comment or a blank line.
///
/// A line with an option that is not obeyed is refused: a key that someone restricted must not get full access
/// from a daemon that cannot restrict it.
pub fn parse_line(line: &str) -> Result<Option<Key>, LineError> {
    let Some(parts) = split(line)? else { return Ok(None) };
    let options = parts.options.map(Options::parse).transpose()?.unwrap_or_default();
    match parts.kind {
        Kind::SecurityKey if !options.allow_no_touch() => Err(LineError::SecurityKey(parts.name)),
        Kind::Accepted | Kind::SecurityKey => decode(&parts).map(|key| Some(Key { options, ..key })),
        Kind::Obsolete => Err(LineError::Obsolete(parts.name)),
        Kind::Certificate => Err(LineError::Certificate),
    }
}

/// The key of a line whatever its options and its type say about logging in, to find and remove it.
pub fn key_in_line(line: &str) -> Option<Key> {
    decode(&split(line).ok()??).ok()
}

/// A line, cut at its borders.
struct Parts<'a> {
    options: Option<&'a str>,
    name: &'static str,
    kind: Kind,
    base64: &'a str,
    comment: &'a str,
}

fn split(line: &str) -> Result<Option<Parts<'_>>, LineError> {
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (word, rest) = cut_word(line);
    if let Some((name, kind)) = key_type(word) {
        let (base64, comment) = cut_word(rest);
        return Ok(Some(Parts { options: None, name, kind, base64, comment }));
    }
    let (options, rest) = line.split_at(options_end(line));
    let (word, rest) = cut_word(rest.trim_start_matches(BLANKS));
    let (name, kind) = key_type(word).ok_or(LineError::NotAKey)?;
    let (base64, comment) = cut_word(rest);
    Ok(Some(Parts { options: Some(options), name, kind, base64, comment }))
}

const BLANKS: [char; 2] = [' ', '\t'];

fn cut_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
    (word, rest.trim_start_matches(BLANKS))
}

/// Where the options end: at the first blank outside of double quotes. A quote with a backslash before it is not
/// one of them.
fn options_end(line: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return at,
            _ => {}
        }
        escaped = c == '\\';
    }
    line.len()
}

fn decode(parts: &Parts<'_>) -> Result<Key, LineError> {
    if parts.base64.is_empty() {
        return Err(LineError::NotAKey);
    }
    let bytes = BASE64.decode(parts.base64.as_bytes()).map_err(|_| LineError::BadBase64)?;
    let public = russh::keys::key::parse_public_key(&bytes).map_err(|_| LineError::BadKey)?;
    // The decoder leaves what follows the key unread; a key with a tail is not the key that was meant.
    let whole = public.to_bytes().is_ok_and(|again| again == bytes);
    if !whole || public.algorithm().as_str() != parts.name {
        return Err(LineError::BadKey);
    }
    Ok(Key { public, comment: parts.comment.to_owned(), options: Options::default() })
}

#[derive(Clone, Copy)]
enum Kind {
    Accepted,
    SecurityKey,
    Certificate,
    Obsolete,
}

fn key_type(word: &str) -> Option<(&'static str, Kind)> {
    KEY_TYPES.iter().find(|(name, _)| *name == word).copied()
}

const KEY_TYPES: &[(&str, Kind)] = &[
    ("ssh-ed25519", Kind::Accepted),
    ("ecdsa-sha2-nistp256", Kind::Accepted),
    ("ecdsa-sha2-nistp384", Kind::Accepted),
    ("ecdsa-sha2-nistp521", Kind::Accepted),
    // The name of the key; signatures of it are rsa-sha2-256 or rsa-sha2-512 (RFC 8332).
    ("ssh-rsa", Kind::Accepted),
    ("sk-ssh-ed25519@openssh.com", Kind::SecurityKey),
    ("sk-ecdsa-sha2-nistp256@openssh.com", Kind::SecurityKey),
    ("ssh-ed25519-cert-v01@openssh.com", Kind::Certificate),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", Kind::Certificate),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", Kind::Certificate),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", Kind::Certificate),
    ("ssh-rsa-cert-v01@openssh.com", Kind::Certificate),
    ("sk-ssh-ed25519-cert-v01@openssh.com", Kind::Certificate),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", Kind::Certificate),
    ("ssh-dss", Kind::Obsolete),
    ("ssh-dss-cert-v01@openssh.com", Kind::Obsolete),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn error(line: &str) -> LineError {
        parse_line(line).expect_err("the line was accepted")
    }

    #[test]
    fn a_plain_line_is_a_key_with_its_comment() {
        let key = parse_line(&format!("{ED25519} ada@lab  bench 3\r\n")).unwrap().unwrap();
        assert_eq!(key.kind(), "ssh-ed25519");
        assert_eq!(key.bits(), 256);
        assert_eq!(key.comment(), "ada@lab  bench 3");
        assert_eq!(key.fingerprint(), "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE");
        assert!(ED25519.ends_with(&key.blob()));
    }

    #[test]
    fn comments_and_blank_lines_are_nothing() {
        for line in ["", "   \t", "\r\n", "# ssh-ed25519 AAAA", "  #"] {
            assert!(parse_line(line).unwrap().is_none(), "{line:?}");
        }
    }

    #[test]
    fn options_come_with_the_key_and_reasons_name_only_known_words() {
        let line = format!(r#"COMMAND="echo \"a b\" # , c",no-pty {ED25519} c"#);
        let key = parse_line(&line).unwrap().unwrap();
        assert_eq!((key.options().names(), key.comment()), (&["command", "no-pty"][..], "c"));
        assert!(parse_line(ED25519).unwrap().unwrap().options().names().is_empty());
        let unknown = format!("secret-word=\"x y\" {ED25519}");
        assert_eq!(error(&unknown), LineError::UnknownOption);
        assert!(!error(&unknown).to_string().contains("secret"));
        // To remove it, the key is found all the same.
        assert!(key_in_line(&unknown).is_some());
    }

    #[test]
    fn a_quote_that_never_ends_hides_the_key() {
        assert_eq!(error(&format!("command=\"echo {ED25519}")), LineError::NotAKey);
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        assert_eq!(error("hello"), LineError::NotAKey);
        assert_eq!(error("ssh-ed25519"), LineError::NotAKey);
        assert_eq!(error("\0\u{1}\u{7f}\u{fffd}"), LineError::NotAKey);
        assert_eq!(error("ssh-ed25519 AAAA!C3NzaC1lZDI1NTE5"), LineError::BadBase64);
        assert_eq!(error("ssh-ed25519 AAAA"), LineError::BadKey);
        assert_eq!(error("ssh-dss AAAAB3NzaC1kc3MAAACB"), LineError::Obsolete("ssh-dss"));
        assert_eq!(
            error("sk-ssh-ed25519@openssh.com AAAA"),
            LineError::SecurityKey("sk-ssh-ed25519@openssh.com")
        );
        assert_eq!(error("ssh-rsa-cert-v01@openssh.com AAAA"), LineError::Certificate);
        let blob = ED25519.split(' ').nth(1).unwrap();
        assert_eq!(error(&format!("ssh-rsa {blob}")), LineError::BadKey);
        assert_eq!(error(&format!("{ED25519} {}", "x".repeat(MAX_LINE))), LineError::TooLong);
    }

    #[test]
    fn a_key_with_a_tail_is_refused() {
        let mut bytes = BASE64.decode(ED25519.split(' ').nth(1).unwrap().as_bytes()).unwrap();
        bytes.extend(*b"tail!!");
        assert_eq!(error(&format!("ssh-ed25519 {}", BASE64.encode(&bytes))), LineError::BadKey);
    }

    #[test]
    fn comparison_ignores_comments() {
        let key = parse_line(&format!("{ED25519} one")).unwrap().unwrap();
        let other = PublicKey::from_openssh(&format!("{ED25519} two")).unwrap();
        assert!(key.matches(&other));
    }
}
