//! Certificates of users (PROTOCOL.certkeys of OpenSSH): whether one lets its owner in, and to do what.
//!
//! russh has checked that it is signed by the authority that it names, that its time has begun and is not over, and
//! that its owner has its key. Whether that authority counts here, and everything else that it says, is asked here.

use std::net::IpAddr;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PublicKey};

use super::{AuthorizedKey, KeyList, Options, check_size};

/// What a certificate may allow, and the option of authorized_keys that it is.
const EXTENSIONS: &[(&str, &str)] = &[
    ("permit-pty", "pty"),
    ("permit-port-forwarding", "port-forwarding"),
    ("permit-agent-forwarding", "agent-forwarding"),
    ("permit-X11-forwarding", "X11-forwarding"),
    ("permit-user-rc", "user-rc"),
    ("no-touch-required", "no-touch-required"),
];

impl KeyList {
    /// Whether there is an authority, so that a key that is not listed may have a certificate.
    pub fn has_authority(&self) -> bool {
        self.keys.iter().any(|entry| entry.key.options().is_authority())
    }

    /// The authority that lets the owner of this certificate log in from `peer` now, and what he may do; or why
    /// none does.
    pub fn authorize_certificate(
        &self,
        certificate: &Certificate,
        user: &str,
        peer: IpAddr,
        required_rsa_size: u32,
    ) -> Result<(&AuthorizedKey, Options), &'static str> {
        let owner = permissions(certificate)?;
        check_size(certificate.public_key(), required_rsa_size)
            .map_err(|_| "the RSA key of the certificate has a size that is not accepted")?;
        if let Some(refusal) = owner.refusal(peer) {
            return Err(refusal);
        }
        let has_touch = matches!(
            certificate.public_key().algorithm(),
            Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
        );
        let authority = PublicKey::new(certificate.signature_key().clone(), "");
        let key = PublicKey::new(certificate.public_key().clone(), "");
        if self.is_revoked(&key) || self.is_revoked(&authority) {
            return Err("the key of the certificate, or of its authority, is revoked");
        }
        let mut reason = "the authority that signed the certificate is not trusted";
        for entry in &self.keys {
            let line = entry.key.options();
            if !line.is_authority() || !entry.key.matches(&authority) {
                continue;
            }
            let mut may = owner.clone();
            match line.refusal(peer) {
                Some(refusal) => reason = refusal,
                None if !line.allow_principal(user, certificate.valid_principals()) => {
                    reason = "the certificate is for other users: none of its principals may log in here";
                }
                None => match may.narrow(line) {
                    Ok(()) if has_touch && !may.allow_no_touch() => {
                        reason = "the touch of a security key cannot be checked: its certificate needs the \
                                  extension no-touch-required, and a line of cert-authority that option";
                    }
                    Ok(()) => return Ok((entry, may)),
                    Err(refusal) => reason = refusal,
                },
            }
        }
        Err(reason)
    }
}

/// What a certificate lets its owner do, whoever signed it.
fn permissions(certificate: &Certificate) -> Result<Options, &'static str> {
    if certificate.cert_type() != CertType::User {
        return Err("the certificate is for a host, not for a user");
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err("the certificate is signed in a way that is not secure any more");
    }
    let mut options = Options::default();
    let broken = |_| "an option of the certificate is broken";
    options.add("restrict", None).map_err(broken)?;
    for (extension, option) in EXTENSIONS {
        if certificate.extensions().contains_key(*extension) {
            options.add(option, None).map_err(broken)?;
        }
    }
    for (name, value) in certificate.critical_options().iter() {
        let option = match name.as_str() {
            "force-command" => "command",
            "source-address" => "from",
            "verify-required" => return Err("whether a PIN was asked for (verify-required) cannot be seen"),
            _ => return Err("the certificate has a critical option that is unknown here"),
        };
        options.add(option, Some(value.clone())).map_err(broken)?;
    }
    Ok(options)
}
