//! Which algorithms are offered, and the rest of what russh has to know before a connection.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::Config as RusshConfig;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use crate::config::Ssh;

/// No finite-field Diffie-Hellman: one exchange of group18 costs a small board ten seconds before login.
const KEX: &[kex::Name] = &[kex::MLKEM768X25519_SHA256, kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731];
/// Always in the list, whatever is configured: RFC 8308 section 2.1, and strict key exchange (PROTOCOL of
/// OpenSSH, section 1.10), without which prefixes of the traffic can be cut off unseen.
const KEX_EXTENSIONS: &[kex::Name] =
    &[kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];
/// CTR comes last, for clients that have nothing better, and only with the MACs below.
const CIPHERS_WITHOUT_AES: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];
const CIPHERS_WITH_AES: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];
/// Encrypt-then-MAC only.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
/// Never ssh-rsa (SHA-1) or ssh-dss.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::SkEd25519,
    Algorithm::SkEcdsaSha2NistP256,
];

/// Packets that we take, in bytes; larger ones made no difference in speed.
const MAXIMUM_PACKET_SIZE: u32 = 32 << 10;
/// Messages of a channel that russh keeps; the pump takes them at once, so that bytes wait in our queue.
const CHANNEL_BUFFER: usize = 8;
/// Messages from all channels of a connection to the loop that sends them.
const EVENT_BUFFER: usize = 16;
/// Requests of any kind that may be refused before the connection ends (probes of an agent's keys among them).
const MAX_REFUSALS: usize = 20;
/// How long a connection may stay without any event. A stuck writer ends by it, so it is never off.
const INACTIVITY: std::time::Duration = std::time::Duration::from_secs(600);

/// What `[ssh]` means for russh.
pub fn server_config(ssh: &Ssh, keys: Vec<PrivateKey>) -> RusshConfig {
    let rekey_bytes = usize::try_from(ssh.rekey_limit.0).unwrap_or(usize::MAX).min(1 << 30);
    let alive = ssh.client_alive_interval;
    RusshConfig {
        server_id: SshId::Standard(Cow::Owned(ssh.version_string.clone())),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Refusals are answered at once: five keys of an agent that do not fit must not cost five seconds.
        auth_rejection_time: std::time::Duration::ZERO,
        auth_rejection_time_initial: Some(std::time::Duration::ZERO),
        max_auth_attempts: MAX_REFUSALS,
        keys,
        limits: Limits::new(rekey_bytes, rekey_bytes, ssh.rekey_interval.duration()),
        window_size: u32::try_from(ssh.window_size.0).unwrap_or(u32::MAX),
        maximum_packet_size: MAXIMUM_PACKET_SIZE,
        channel_buffer_size: CHANNEL_BUFFER,
        event_buffer_size: EVENT_BUFFER,
        preferred: preferred(ssh),
        // Without questions to a silent client its silence is no sign of anything.
        inactivity_timeout: Some(if alive.is_zero() {
            INACTIVITY * 144
        } else {
            INACTIVITY.max(alive.duration() * 5)
        }),
        keepalive_interval: (!alive.is_zero()).then(|| alive.duration()),
        keepalive_max: ssh.client_alive_count_max,
        ..RusshConfig::default()
    }
}

/// The key types that users may have.
pub fn accepted_key_algorithms(ssh: &Ssh) -> Vec<Algorithm> {
    select(&ssh.pubkey_accepted_algorithms, KEYS, |name| {
        name.parse().ok().filter(|algorithm| KEYS.contains(algorithm))
    })
}

fn preferred(ssh: &Ssh) -> Preferred {
    let ciphers = if has_aes_instructions() { CIPHERS_WITH_AES } else { CIPHERS_WITHOUT_AES };
    let mut kex = select(&ssh.kex_algorithms, KEX, |name| kex::Name::try_from(name).ok());
    kex.extend_from_slice(KEX_EXTENSIONS);
    Preferred {
        kex: kex.into(),
        key: accepted_key_algorithms(ssh).into(),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: select(&ssh.ciphers, ciphers, |name| {
            cipher::Name::try_from(name)
                .ok()
                .filter(|cipher| *cipher != cipher::NONE && *cipher != cipher::CLEAR)
        })
        .into(),
        mac: select(&ssh.macs, MACS, |name| mac::Name::try_from(name).ok().filter(|mac| *mac != mac::NONE))
            .into(),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// Applies a list of sshd_config(5) to the default: `+` appends, `-` removes, `^` puts in front, nothing of
/// these replaces. Unknown names are left out (`config check` names them); a list that would be empty is the
/// default, because without an algorithm of each kind nobody could log in.
fn select<T: Clone + PartialEq>(list: &str, default: &[T], parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let (sign, names) = match list.as_bytes().first() {
        Some(b'+' | b'-' | b'^') => list.split_at(1),
        _ => ("", list),
    };
    let named: Vec<T> =
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).filter_map(parse).collect();
    let others = default.iter().filter(|algorithm| !named.contains(algorithm)).cloned();
    let selected: Vec<T> = match sign {
        "+" => {
            default.iter().cloned().chain(named.iter().filter(|n| !default.contains(n)).cloned()).collect()
        }
        "-" => others.collect(),
        "^" => named.iter().cloned().chain(others).collect(),
        _ => named,
    };
    if selected.is_empty() { default.to_vec() } else { selected }
}

/// Whether AES-GCM is the faster cipher here. No Raspberry Pi before the 5 has the instructions.
fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_changed_as_sshd_config_says() {
        let names = |list| select(list, MACS, |name| mac::Name::try_from(name).ok()).len();
        assert_eq!(names(""), 2);
        assert_eq!(names("hmac-sha2-512-etm@openssh.com"), 1);
        assert_eq!(names("+hmac-sha2-256"), 3);
        assert_eq!(names("-hmac-sha2-512-etm@openssh.com"), 1);
        assert_eq!(names("no-such-mac"), 2);
        let first = select("^hmac-sha2-512-etm@openssh.com", MACS, |name| mac::Name::try_from(name).ok());
        assert!(first == [mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]);
    }

    #[test]
    fn strict_key_exchange_cannot_be_configured_away() {
        let ssh = Ssh { kex_algorithms: "curve25519-sha256".into(), ..Ssh::default() };
        assert!(preferred(&ssh).kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER));
    }

    #[test]
    fn nothing_weak_is_offered() {
        let preferred = preferred(&Ssh::default());
        assert!(
            preferred.key.iter().all(|key| *key != Algorithm::Dsa && *key != Algorithm::Rsa { hash: None })
        );
        assert!(preferred.kex.iter().all(|kex| !kex.as_ref().starts_with("diffie-hellman")));
    }
}
