//! `scp -O` on images without an scp: the command that a client sends becomes one of ours.

use std::path::Path;

use super::environment;
use crate::firmware::program::{find_on, is_program};

/// The command to run in place of `command`, which a shell will read: what follows the first word is the client's, with
/// wildcards and variables for the shell.
pub fn or_built_in(command: &[u8]) -> Vec<u8> {
    let arguments = command.strip_prefix(b"scp").filter(|rest| rest.starts_with(b" "));
    match arguments {
        Some(arguments) if find_on(environment::PATH, "scp").is_none() => {
            [our_program().as_bytes(), b" scp", arguments].concat()
        }
        _ => command.to_vec(),
    }
}

/// This program in words of a shell: by its path, or by the running process where that has been replaced meanwhile.
fn our_program() -> String {
    match std::env::current_exe().ok().filter(|path| is_program(path)).as_deref().and_then(Path::to_str) {
        Some(path) => format!("'{}'", path.replace('\'', "'\\''")),
        None => format!("/proc/{}/exe", std::process::id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_commands_stay_as_they_are() {
        for command in [&b"scpx -t /"[..], b"scp", b"echo scp -t", b" scp -t /", b""] {
            assert_eq!(or_built_in(command), command);
        }
    }
}
