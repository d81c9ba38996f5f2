//! Ranges and forms of single values, beyond what their types say.
//!
//! `Err` refuses the value, so that the last good one stays; `Ok` may carry remarks on parts that are skipped.
//! A value with which nobody could log in (no address, no algorithm, no session) is refused like any other.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;

use super::algorithms::Kind;
use super::forwarding::Permit;
use super::ssh::INTERNAL_SFTP;
use super::users::{MAX_PASSWORD, User, check_password_hash};
use super::values::{Octal, Seconds, split_port};
use super::version::Version;
use super::{
    BootPartitionKeys, Bytes, Config, Firmware, Mdns, Program, Ssh, SuccessAction, Validation, Watchdog,
};

pub type Verdict = Result<Vec<String>, String>;

pub fn root(config: &Config, field: &str) -> Verdict {
    match field {
        "state_dir" => absolute(&config.state_dir),
        "runtime_dir" => absolute(&config.runtime_dir),
        _ => fine(),
    }
}

pub fn ssh(ssh: &Ssh, field: &str) -> Verdict {
    match field {
        "listen_address" => addresses(&ssh.listen_address),
        "host_key_dir" => absolute_if_set(ssh.host_key_dir.as_deref()),
        "spool_dir" => absolute_if_set(ssh.spool_dir.as_deref()),
        "boot_partition_keys" => match &ssh.boot_partition_keys {
            BootPartitionKeys::Path(path) => absolute(path),
            BootPartitionKeys::Disabled => fine(),
        },
        "revoked_keys" => all_absolute(&ssh.revoked_keys),
        "host_key" => all_absolute(&ssh.host_key),
        "host_certificate" => all_absolute(&ssh.host_certificate),
        "trusted_user_ca_keys" => all_absolute(&ssh.trusted_user_ca_keys),
        "authorized_keys_command" => {
            program(&ssh.authorized_keys_command).and_then(|_| tokens(&ssh.authorized_keys_command))
        }
        "authorized_keys_command_user" => user_name(&ssh.authorized_keys_command_user).map(|()| Vec::new()),
        "auth_command" => program(&ssh.auth_command),
        "allow_users" => user_names(&ssh.allow_users),
        "deny_users" if ssh.deny_users.iter().any(|user| is_everybody(user)) => {
            refuse("would keep everybody out")
        }
        "deny_users" => user_names(&ssh.deny_users),
        "firmware_users" => user_names(&ssh.firmware_users),
        "run_as" => ssh.run_as.as_deref().map_or(Ok(()), user_name).map(|()| Vec::new()),
        "shell" if ssh.shell == Some(Program::Shell) => refuse("must be a program, not \"shell\""),
        "sftp_root" => absolute_if_set(ssh.sftp_root.as_deref()),
        "sftp_start" if ssh.sftp_start.as_deref() != Some(Path::new("~")) => {
            absolute_if_set(ssh.sftp_start.as_deref())
        }
        "sftp_umask" => mask(ssh.sftp_umask),
        "sftp_max_handles" => in_range(ssh.sftp_max_handles, 4..=1000, "handles"),
        "version_string" => version_string(&ssh.version_string),
        "banner" => in_range(ssh.banner.as_ref().map_or(0, String::len), 0..=MAX_BANNER, "bytes"),
        "kbd_interactive_name" => in_range(ssh.kbd_interactive_name.len(), 0..=MAX_QUESTION, "bytes"),
        "kbd_interactive_instruction" => {
            in_range(ssh.kbd_interactive_instruction.len(), 0..=MAX_QUESTION, "bytes")
        }
        "kbd_interactive_prompt" => in_range(ssh.kbd_interactive_prompt.len(), 1..=MAX_QUESTION, "bytes"),
        "password_tries" => in_range(ssh.password_tries, 1..=20, "passwords"),
        "motd" => absolute(&ssh.motd),
        "kex_algorithms" => algorithms(Kind::Kex, &ssh.kex_algorithms),
        "ciphers" => algorithms(Kind::Cipher, &ssh.ciphers),
        "macs" => algorithms(Kind::Mac, &ssh.macs),
        "pubkey_accepted_algorithms" => algorithms(Kind::PublicKey, &ssh.pubkey_accepted_algorithms),
        "dh_gex_min" => in_range(ssh.dh_gex_min, GROUP_SIZES, "bits"),
        "dh_gex_max" => in_range(ssh.dh_gex_max, GROUP_SIZES, "bits"),
        "moduli_file" => absolute_if_set(ssh.moduli_file.as_deref()),
        "required_rsa_size" => in_range(ssh.required_rsa_size, 1024..=16_384, "bits"),
        "rekey_limit" => size(ssh.rekey_limit, 16 << 20..=1 << 30),
        "rekey_interval" => time(ssh.rekey_interval, 60..=86_400),
        "rekey_timeout" => time(ssh.rekey_timeout, 5..=600),
        "max_startups" => in_range(ssh.max_startups, 4..=1000, "connections"),
        "max_connections" => in_range(ssh.max_connections, 1..=1000, "connections"),
        // 0 would leave a device on which nothing can be started, fwup included.
        "max_memory" if ssh.max_memory.0 != 0 => size(ssh.max_memory, 32 << 20..=1 << 40),
        "max_sessions" => in_range(ssh.max_sessions, 1..=64, "sessions"),
        "permit_open" => all_name_a_host(&ssh.permit_open),
        "permit_socket" => all_absolute(&ssh.permit_socket),
        "stream_local_bind_mask" => mask(ssh.stream_local_bind_mask),
        "max_forwards" => in_range(ssh.max_forwards, 0..=64, "connections"),
        "max_auth_tries" => in_range(ssh.max_auth_tries, 1..=100, "attempts"),
        "login_grace_time" => time(ssh.login_grace_time, 5..=600),
        "hello_timeout" => time(ssh.hello_timeout, 1..=60),
        "unused_connection_timeout" => time(ssh.unused_connection_timeout, 0..=MAX_WAIT),
        "client_alive_interval" => time(ssh.client_alive_interval, 0..=MAX_WAIT),
        "client_alive_count_max" => in_range(ssh.client_alive_count_max, 1..=100, "questions"),
        "min_remote_packet_size" => in_range(ssh.min_remote_packet_size, 0..=32_768, "bytes"),
        "tcp_user_timeout" => time(ssh.tcp_user_timeout, 0..=MAX_WAIT),
        "no_shell_message" => {
            in_range(ssh.no_shell_message.as_ref().map_or(0, String::len), 0..=MAX_BANNER, "bytes")
        }
        "on_event" => program(&ssh.on_event),
        "window_size" => size(ssh.window_size, 64 << 10..=16 << 20),
        _ => fine(),
    }
}

/// A path or program that is not there is not refused here: falling back to another device, or to no veto,
/// would be worse than the failure of the update.
pub fn firmware(firmware: &Firmware, field: &str) -> Verdict {
    match field {
        "task" if firmware.task.is_empty() || firmware.task.starts_with('-') => {
            refuse("must be the name of a task")
        }
        "success_action" => match &firmware.success_action {
            SuccessAction::Command(words) if words.iter().any(|word| word.contains('\0')) => {
                refuse("has a zero byte in it")
            }
            _ => fine(),
        },
        "update_idle_timeout" => time(firmware.update_idle_timeout, 1..=MAX_WAIT),
        "reboot_param" => {
            let text = firmware.reboot_param.as_deref().unwrap_or_default();
            in_range(text.len(), 0..=MAX_REBOOT_PARAM, "bytes").and_then(|_| printable(text))
        }
        "ops" => absolute_if_set(firmware.ops.as_deref()),
        "autoboot" => absolute_if_set(firmware.autoboot.as_deref()),
        "minimum_version" => match firmware.minimum_version.as_deref().map(str::parse::<Version>) {
            Some(Err(error)) => Err(error.to_string()),
            _ => fine(),
        },
        _ => fine(),
    }
}

pub fn validation(validation: &Validation, field: &str) -> Verdict {
    match field {
        "time_limit" => time(validation.time_limit, MIN_TRIAL..=MAX_WAIT),
        "health" => program(&validation.health),
        _ => fine(),
    }
}

pub fn mdns(mdns: &Mdns, field: &str) -> Verdict {
    match field {
        "host_name" => host_name(&mdns.host_name),
        _ => fine(),
    }
}

pub fn watchdog(watchdog: &Watchdog, field: &str) -> Verdict {
    match field {
        "device" => absolute_if_set(watchdog.device.as_deref()),
        "timeout" => time(watchdog.timeout, 2..=3_600),
        // Shorter, and a slow board that is busy would be restarted.
        "login_limit" => time(watchdog.login_limit, 10..=MAX_WAIT),
        _ => fine(),
    }
}

/// What can become a label of a host's name.
fn host_name(template: &str) -> Verdict {
    let example = template.replace("%s", "0").replace("%h", "0");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let edges = example.starts_with('-') || example.ends_with('-');
    if example.is_empty() || example.len() > MAX_HOST_NAME || edges || !example.chars().all(plain) {
        return refuse("must be 1 to 40 letters, digits and inner dashes, with %s and %h");
    }
    fine()
}

/// A subsystem of the image's own.
pub fn subsystem(name: &str, words: &[String]) -> Verdict {
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("the name must be 1 to 64 printable ASCII characters");
    }
    match words {
        [] => refuse("must be a program and its arguments"),
        [word] if word == INTERNAL_SFTP => fine(),
        _ => program(words),
    }
}

/// A user with a password.
pub fn user(name: &str, user: &User) -> Verdict {
    user_name(name)?;
    match (&user.password_hash, &user.password) {
        (Some(hash), None) => check_password_hash(hash.expose()).map(|()| Vec::new()).map_err(str::to_owned),
        (None, Some(plain)) if plain.expose().len() <= MAX_PASSWORD => fine(),
        (None, Some(_)) => refuse("the password is longer than 512 bytes"),
        _ => refuse("needs either password_hash or password"),
    }
}

/// A name that a user may have.
pub fn user_name(name: &str) -> Result<(), String> {
    let good = (1..=MAX_NAME).contains(&name.len()) && !name.contains(|c: char| c == ':' || c.is_control());
    if good {
        Ok(())
    } else {
        Err("the name must be 1 to 64 bytes, without `:` and control characters".into())
    }
}

/// An IP address, in brackets or not, a link-local one with its zone; or `*` or `localhost`.
pub fn listen_address(text: &str) -> Result<(), String> {
    let Some((address, _)) = split_port(text) else {
        return Err(format!("`{text}` has no port from 1 to 65535"));
    };
    let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let good = match plain.split_once('%') {
        Some((address, zone)) => address.parse::<Ipv6Addr>().is_ok() && (1..MAX_ZONE).contains(&zone.len()),
        None => address == "*" || address == "localhost" || plain.parse::<IpAddr>().is_ok(),
    };
    if good { Ok(()) } else { Err(format!("`{text}` is no IP address, with or without a port")) }
}

/// IFNAMSIZ of the kernel, with its zero byte.
const MAX_ZONE: usize = 16;
const MAX_NAME: usize = 64;
/// Leaves room for the serial number in a label of 63 bytes.
const MAX_HOST_NAME: usize = 40;
/// Smaller groups can be broken, larger ones nobody waits for (RFC 8270, RFC 4419).
const GROUP_SIZES: RangeInclusive<u32> = 2048..=8192;
const MAX_BANNER: usize = 2048;
/// Of a text that is shown where a password is asked for.
const MAX_QUESTION: usize = 1024;
const MAX_VERSION: usize = 200;
const MAX_RANDOM_NAME: u8 = 64;
const MAX_WAIT: u64 = 86_400;
/// Shorter, and a slow board would never finish starting.
const MIN_TRIAL: u64 = 5;
/// The kernel takes 255 bytes (reboot(2), LINUX_REBOOT_CMD_RESTART2).
const MAX_REBOOT_PARAM: usize = 255;

fn fine() -> Verdict {
    Ok(Vec::new())
}

fn refuse(text: &str) -> Verdict {
    Err(text.to_owned())
}

fn in_range<T: PartialOrd + Display>(value: T, range: RangeInclusive<T>, unit: &str) -> Verdict {
    if range.contains(&value) {
        return fine();
    }
    Err(format!("{value} {unit}: must be {} to {}", range.start(), range.end()))
}

fn time(value: Seconds, range: RangeInclusive<u64>) -> Verdict {
    in_range(value.duration().as_secs(), range, "seconds")
}

fn size(value: Bytes, range: RangeInclusive<u64>) -> Verdict {
    in_range(value.0, range, "bytes")
}

pub fn absolute(path: &Path) -> Verdict {
    if path.is_absolute() { fine() } else { Err(format!("`{}` is no absolute path", path.display())) }
}

/// A file of keys, which may be another for each user (sshd_config(5), TOKENS).
pub fn key_file(path: &Path) -> Verdict {
    let text = path.to_string_lossy();
    if !text.starts_with("%h/") {
        absolute(path)?;
    }
    if has_other_tokens(&text, b"uhU") {
        refuse("has a `%` that is none of %u, %h, %U and %%")
    } else {
        fine()
    }
}

fn absolute_if_set(path: Option<&Path>) -> Verdict {
    path.map_or_else(fine, absolute)
}

fn all_absolute(paths: &[impl AsRef<Path>]) -> Verdict {
    paths.iter().try_fold(Vec::new(), |_, path| absolute(path.as_ref()))
}

fn all(items: &[String], good: impl Fn(&str) -> bool, what: &str) -> Verdict {
    match items.iter().find(|item| !good(item)) {
        Some(item) => Err(format!("`{item}` is not {what}")),
        None => fine(),
    }
}

fn user_names(names: &[String]) -> Verdict {
    all(names, |user| (1..=MAX_NAME).contains(&user.len()), "a user name")
}

/// Whether a pattern names every user.
fn is_everybody(pattern: &str) -> bool {
    pattern.contains('*') && pattern.bytes().all(|byte| matches!(byte, b'*' | b'?'))
}

fn mask(mask: Octal) -> Verdict {
    if mask.0 > 0o777 { refuse("must be octal digits from \"000\" to \"777\"") } else { fine() }
}

fn all_name_a_host(permits: &[Permit]) -> Verdict {
    match permits.iter().find(|permit| !permit.names_a_host()) {
        Some(permit) => Err(format!("`{permit}` has no host: write HOST:PORT")),
        None => fine(),
    }
}

fn program(words: &[String]) -> Verdict {
    words.first().map_or_else(fine, |word| absolute(Path::new(word)))
}

/// The tokens that arguments of `authorized_keys_command` may have (sshd_config(5), TOKENS).
fn tokens(words: &[String]) -> Verdict {
    let is_wrong = |word: &String| has_other_tokens(word, b"uktf");
    if words.iter().any(is_wrong) {
        refuse("has a `%` that is none of %u, %k, %t, %f and %%")
    } else {
        fine()
    }
}

fn has_other_tokens(text: &str, known: &[u8]) -> bool {
    let is_known = |rest: &str| rest.as_bytes().first().is_some_and(|letter| known.contains(letter));
    !text.replace("%%", "").split('%').skip(1).all(is_known)
}

fn printable(text: &str) -> Verdict {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        fine()
    } else {
        refuse("must be printable ASCII characters")
    }
}

fn addresses(items: &[String]) -> Verdict {
    let remarks: Vec<String> = items.iter().filter_map(|item| listen_address(item).err()).collect();
    if !remarks.is_empty() && remarks.len() == items.len() { Err(remarks.join("; ")) } else { Ok(remarks) }
}

fn algorithms(kind: Kind, text: &str) -> Verdict {
    let resolved = kind.resolve(text, true);
    let remarks = resolved.unknown.iter().map(|name| format!("unknown algorithm `{name}`: skipped"));
    if resolved.names.is_empty() {
        return Err(format!("leaves no algorithm; known are {}", kind.known().join(", ")));
    }
    Ok(remarks.collect())
}

/// RFC 4253 section 4.2: the software part has no `-`, comments follow a blank.
fn version_string(text: &str) -> Verdict {
    if random_name(text).is_some() {
        return fine();
    }
    let software = text.strip_prefix("SSH-2.0-").and_then(|rest| rest.split(' ').next());
    if text.len() > MAX_VERSION || software.is_none_or(|name| name.is_empty() || name.contains('-')) {
        return refuse(
            "must be SSH-2.0-NAME, at most 200 bytes, without `-` in NAME; or random, or random:2:5",
        );
    }
    printable(text)
}

/// How many letters a new name for each connection has, where the text asks for that.
pub fn random_name(text: &str) -> Option<RangeInclusive<u8>> {
    let range = match text.strip_prefix("random")?.strip_prefix(':') {
        None if text == "random" => 2..=5,
        Some(range) => {
            let (min, max) = range.split_once(':')?;
            min.parse().ok()?..=max.parse().ok()?
        }
        None => return None,
    };
    (*range.start() >= 1 && range.start() <= range.end() && *range.end() <= MAX_RANDOM_NAME).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::super::keys::fields_of;
    use super::*;

    #[test]
    fn the_defaults_are_fine() {
        let config = Config::default();
        for field in fields_of::<Config>() {
            assert_eq!(root(&config, field), fine(), "{field}");
        }
        for field in fields_of::<Ssh>() {
            assert_eq!(ssh(&config.ssh, field), fine(), "{field}");
        }
        for field in fields_of::<Firmware>() {
            assert_eq!(firmware(&config.firmware, field), fine(), "{field}");
        }
    }

    #[test]
    fn one_good_address_is_enough_and_none_is_too_few() {
        let listen =
            |items: &[&str]| addresses(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
        assert_eq!(listen(&[]), fine());
        assert_eq!(listen(&["::1", "nonsense"]).unwrap().len(), 1);
        assert!(listen(&["nonsense"]).is_err());
    }

    #[test]
    fn addresses_may_have_brackets_and_zones() {
        for right in ["*", "localhost", "127.0.0.1", "::1", "[::]", "fe80::1%eth0", "[fe80::1%2]"] {
            assert!(listen_address(right).is_ok(), "{right}");
        }
        for right in ["*:2222", "localhost:1", "127.0.0.1:65535", "[::1]:22", "[fe80::1%eth0]:22"] {
            assert!(listen_address(right).is_ok(), "{right}");
        }
        for wrong in ["", "host", "1.2.3.4:0", "[::1]:x", "*:65536", "fe80::1%", "300.1.1.1", "1.2.3.4%eth0"]
        {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_names_are_labels() {
        for right in ["myelin-%s", "%h", "box", "%h-%s"] {
            assert_eq!(host_name(right), fine(), "{right}");
        }
        for wrong in ["", "-%s", "a.b", "%x", "b\u{f6}x", "%s-", &"a".repeat(41)] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn version_strings_follow_the_rfc() {
        assert!(version_string("SSH-2.0-Acme_1.0 board 7").is_ok());
        assert!(version_string("random").is_ok() && version_string("random:3:3").is_ok());
        assert_eq!(random_name("random"), Some(2..=5));
        for wrong in ["random:5:2", "random:0:2", "random:2", "randomly", "random:2:65"] {
            assert!(version_string(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["Acme", "SSH-2.0-", "SSH-2.0-a-b", "SSH-2.0-a\n", "SSH-1.99-a"] {
            assert!(version_string(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn files_of_keys_are_absolute_or_lie_in_the_home_folder() {
        for right in ["/data/keys", "%h/.ssh/authorized_keys", "/data/%u/%U/100%%"] {
            assert_eq!(key_file(Path::new(right)), fine(), "{right}");
        }
        for wrong in ["keys", ".ssh/%u", "%u/keys", "%h", "/data/%k", "/data/%"] {
            assert!(key_file(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn not_everybody_can_be_denied() {
        let denied = |name: &str| Ssh { deny_users: vec![name.into()], ..Ssh::default() };
        assert_eq!(ssh(&denied("gu*st"), "deny_users"), fine());
        assert!(ssh(&denied("?*"), "deny_users").is_err());
    }

    #[test]
    fn subsystems_have_a_plain_name_and_an_absolute_program() {
        assert!(subsystem("logs", &["/usr/bin/logs".into(), "-f".into()]).is_ok());
        assert!(subsystem("files", &["internal-sftp".into()]).is_ok());
        assert!(subsystem("two words", &["/bin/x".into()]).is_err());
        assert!(subsystem("logs", &["logs".into()]).is_err());
        assert!(subsystem("logs", &[]).is_err());
    }
}
