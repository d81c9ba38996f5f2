//! What ssh's messages mean.
//!
//! ssh exits 255 for everything that is its own trouble; which trouble it was stands only in its messages,
//! in English under `LC_ALL=C`.

use crate::host::remote::Trouble;

/// Finds the trouble in ssh's messages. The first rule that fits wins: with a jump host the messages of
/// two connections come together, and the cause is the more special one.
pub fn trouble(messages: &str) -> Option<Trouble> {
    const RULES: &[(&str, Trouble)] = &[
        ("subsystem request failed", Trouble::NoSubsystem),
        ("Permission denied (", Trouble::Authentication),
        ("Too many authentication failures", Trouble::Authentication),
        ("Host key verification failed", Trouble::Authentication),
        ("HOST IDENTIFICATION HAS CHANGED", Trouble::Authentication),
        ("No supported authentication methods", Trouble::Authentication),
        ("Bad configuration option", Trouble::Usage),
        ("command-line: line", Trouble::Usage),
        ("command-line line", Trouble::Usage),
        ("usage: ssh", Trouble::Usage),
        ("Can't open user config file", Trouble::Usage),
        ("Bad owner or permissions on", Trouble::Usage),
        ("closed by remote host", Trouble::Lost),
        ("send disconnect", Trouble::Lost),
        ("not responding", Trouble::Lost),
        ("Read from remote host", Trouble::Lost),
        ("Write failed", Trouble::Lost),
        ("Could not resolve hostname", Trouble::Connect),
        ("connect to host", Trouble::Connect),
        ("kex_exchange_identification", Trouble::Connect),
        ("ssh_exchange_identification", Trouble::Connect),
        ("banner exchange", Trouble::Connect),
        ("Unable to negotiate", Trouble::Connect),
        ("Connection closed by", Trouble::Connect),
        ("Connection reset by", Trouble::Connect),
        ("Connection timed out", Trouble::Connect),
        ("Connection refused", Trouble::Connect),
    ];
    RULES.iter().find(|(text, _)| messages.contains(text)).map(|(_, trouble)| *trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_openssh_are_told_apart() {
        for (text, expected) in [
            ("root@dev: Permission denied (publickey).", Trouble::Authentication),
            ("Host key verification failed.", Trouble::Authentication),
            (
                "Received disconnect from ::1 port 22:2: Too many authentication failures",
                Trouble::Authentication,
            ),
            ("ssh: connect to host 127.0.0.1 port 1: Connection refused", Trouble::Connect),
            ("ssh: Could not resolve hostname x: Name or service not known", Trouble::Connect),
            ("ssh: connect to host 10.255.255.1 port 22: Connection timed out", Trouble::Connect),
            ("kex_exchange_identification: read: Connection reset by peer", Trouble::Connect),
            ("Connection timed out during banner exchange", Trouble::Connect),
            ("subsystem request failed on channel 0", Trouble::NoSubsystem),
            ("Connection to dev closed by remote host.", Trouble::Lost),
            ("client_loop: send disconnect: Broken pipe", Trouble::Lost),
            ("Timeout, server dev not responding.", Trouble::Lost),
            ("command-line: line 0: Bad configuration option: frob", Trouble::Usage),
        ] {
            assert_eq!(trouble(text), Some(expected), "{text}");
        }
        assert_eq!(trouble("Warning: Permanently added 'dev' (ED25519) to the list of known hosts."), None);
    }
}
