//! Which algorithms are offered, and the rest of what russh has to know before a connection.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use russh::keys::{Algorithm, Certificate, PrivateKey};
use russh::server::Config as RusshConfig;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::info::Algorithms;
use crate::config::Ssh;
use crate::config::algorithms::Kind;

/// Always in the list, whatever is configured: RFC 8308 section 2.1, and strict key exchange (PROTOCOL of
/// OpenSSH, section 1.10), without which prefixes of the traffic can be cut off unseen.
const KEX_EXTENSIONS: &[kex::Name] =
    &[kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];

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
pub fn server_config(ssh: &Ssh, keys: Vec<PrivateKey>, certificates: Vec<Certificate>) -> RusshConfig {
    let rekey_bytes = usize::try_from(ssh.rekey_limit.0).unwrap_or(usize::MAX).min(1 << 30);
    let alive = ssh.client_alive_interval;
    RusshConfig {
        server_id: SshId::Standard(Cow::Owned(ssh.version_string.clone())),
        // What can succeed now is said with each refusal; these are all that are asked about.
        methods: MethodSet::from(
            &[MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password][..],
        ),
        // Refusals are answered at once: five keys of an agent that do not fit must not cost five seconds.
        auth_rejection_time: std::time::Duration::ZERO,
        auth_rejection_time_initial: Some(std::time::Duration::ZERO),
        max_auth_attempts: MAX_REFUSALS,
        keys,
        certificates,
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

/// An identification with as many lower-case letters for a name.
pub fn random_id(letters: RangeInclusive<u8>) -> SshId {
    let mut random = [0; 65];
    // Without randomness it is the same name each time, which is what others have.
    let _ = getrandom::fill(&mut random);
    let [length, rest @ ..] = random;
    let length = letters.start() + length % (letters.end() - letters.start() + 1);
    let name = rest.iter().take(length.into()).map(|byte| char::from(b'a' + byte % 26));
    SshId::Standard(Cow::Owned(format!("SSH-2.0-{}", name.collect::<String>())))
}

/// The key types that users may have.
pub fn accepted_key_algorithms(ssh: &Ssh) -> Vec<Algorithm> {
    resolve(Kind::PublicKey, &ssh.pubkey_accepted_algorithms, |name| name.parse().ok())
}

fn preferred(ssh: &Ssh) -> Preferred {
    let mut kex = resolve(Kind::Kex, &ssh.kex_algorithms, |name| kex::Name::try_from(name).ok());
    kex.extend_from_slice(KEX_EXTENSIONS);
    Preferred {
        kex: kex.into(),
        key: accepted_key_algorithms(ssh).into(),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: resolve(Kind::Cipher, &ssh.ciphers, |name| cipher::Name::try_from(name).ok()).into(),
        mac: resolve(Kind::Mac, &ssh.macs, |name| mac::Name::try_from(name).ok()).into(),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// All lists as they are offered, by the keys that configure them; host keys are offered as far as they exist.
pub fn lists(ssh: &Ssh, keys: &[PrivateKey]) -> Vec<Algorithms> {
    let list = |key: &str, kind: Kind, text: &str| {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Algorithms { key: key.into(), enabled: owned(&names(kind, text)), supported: owned(kind.known()) }
    };
    let mut lists = vec![
        list("kex_algorithms", Kind::Kex, &ssh.kex_algorithms),
        list("ciphers", Kind::Cipher, &ssh.ciphers),
        list("macs", Kind::Mac, &ssh.macs),
        list("pubkey_accepted_algorithms", Kind::PublicKey, &ssh.pubkey_accepted_algorithms),
    ];
    // One list of russh is for users' keys and for ours.
    let mut host = list("host_key_types", Kind::PublicKey, &ssh.pubkey_accepted_algorithms);
    let kinds: Vec<_> = keys.iter().map(|key| key.algorithm().to_string()).collect();
    let exists =
        |name: &str| kinds.iter().any(|kind| kind == name || kind == "ssh-rsa" && name.starts_with("rsa-"));
    host.enabled.retain(|name| exists(name));
    host.supported.retain(|name| !name.starts_with("sk-"));
    lists.push(host);
    lists
}

/// The configured list; one that leaves nothing is the default, for without an algorithm of each kind nobody
/// could log in.
fn names(kind: Kind, text: &str) -> Vec<&'static str> {
    let aes = has_aes_instructions();
    let names = kind.resolve(text, aes).names;
    if names.is_empty() { kind.defaults(aes).to_vec() } else { names }
}

fn resolve<T>(kind: Kind, text: &str, parse: impl Fn(&'static str) -> Option<T>) -> Vec<T> {
    names(kind, text).into_iter().filter_map(parse).collect()
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
    fn strict_key_exchange_cannot_be_configured_away() {
        let ssh = Ssh { kex_algorithms: "curve25519-sha256".into(), ..Ssh::default() };
        assert!(preferred(&ssh).kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER));
    }

    #[test]
    fn random_names_have_as_many_letters_as_were_asked_for() {
        for (range, prefix) in [(1..=1, 9), (64..=64, 72)] {
            let SshId::Standard(id) = random_id(range) else { panic!("not standard") };
            assert!(id.len() == prefix && id[8..].bytes().all(|byte| byte.is_ascii_lowercase()), "{id}");
        }
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
