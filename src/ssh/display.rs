//! Text from strangers, made fit for a log line or a terminal.

/// The longest name that is shown, in characters.
const MAX_NAME: usize = 64;

/// The longest command that is shown, in characters.
const MAX_COMMAND: usize = 256;

/// A user or subsystem name: control characters escaped, cut to a length that cannot fill a log.
pub fn name(text: &str) -> String {
    cut(text, MAX_NAME)
}

/// A command, made fit in the same way.
pub fn command(bytes: &[u8]) -> String {
    cut(&String::from_utf8_lossy(bytes), MAX_COMMAND)
}

fn cut(text: &str, limit: usize) -> String {
    let mut shown: String = text.chars().take(limit).flat_map(char::escape_default).collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_logs_are_safe_from_names() {
        assert_eq!(name("root"), "root");
        assert_eq!(name("a\x1b[2J\nssh.auth.ok"), "a\\u{1b}[2J\\nssh.auth.ok");
        assert!(name(&"x".repeat(1_000_000)).chars().count() <= MAX_NAME + 1);
    }
}
