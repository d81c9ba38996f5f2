//! Certificates of host keys (sshd_config(5), HostCertificate).

use std::path::Path;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, PrivateKey};

use super::MAX_FILE;
use crate::files;
use crate::ssh::authorized_keys::Expiry;

/// A certificate that clients can make use of. With another they would refuse a key that they know.
pub fn read(path: &Path, keys: &[PrivateKey]) -> Result<Certificate, String> {
    let bytes = files::read_limited(path, MAX_FILE).map_err(|error| error.to_string())?;
    let certificate = Certificate::from_openssh(&String::from_utf8_lossy(&bytes))
        .map_err(|_| "there is no certificate in the file")?;
    if certificate.cert_type() != CertType::Host {
        return Err("it is for a user: make it with ssh-keygen -s CA -h".into());
    }
    if !keys.iter().any(|key| key.public_key().key_data() == certificate.public_key()) {
        return Err(
            "it is for none of the host keys: sign the .pub file of one that `myelin status` shows".into()
        );
    }
    if Expiry::at(certificate.valid_before()).is_over() {
        return Err("it has expired: make a new one, then reload".into());
    }
    Ok(certificate)
}
