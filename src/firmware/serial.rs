//! The serial number of the board.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::program::find_on_path;
use crate::uboot_env::Environment;
use crate::{files, launch, tasks};

/// From the board's own program `boardid` where there is one, else from the store, else from the device tree.
/// Takes a second at most.
pub fn serial_number(environment: Option<&Environment>) -> Option<String> {
    let program = find_on_path("boardid").and_then(|boardid| first_line(&boardid, PROGRAM_LIMIT));
    program.and_then(|text| usable(&text)).or_else(|| known_serial_number(environment))
}

/// The same without asking a program, which may take its time.
pub fn known_serial_number(environment: Option<&Environment>) -> Option<String> {
    environment.and_then(stored).or_else(device_tree)
}

fn stored(environment: &Environment) -> Option<String> {
    ["nerves_serial_number", "serial#", "serial"]
        .into_iter()
        .find_map(|name| environment.get(name).and_then(usable))
}

fn device_tree() -> Option<String> {
    let bytes = files::read_limited(Path::new("/proc/device-tree/serial-number"), MAX_LINE).ok()?;
    usable(&String::from_utf8_lossy(&bytes))
}

/// `unconfigured` is what boardid says when it does not know.
fn usable(text: &str) -> Option<String> {
    let text = text.trim_matches(['\0', ' ', '\t', '\r', '\n']);
    (!text.is_empty() && text != "unconfigured").then(|| text.to_owned())
}

/// What a program writes first, if it does so in time. It is ended in any case.
fn first_line(program: &Path, limit: Duration) -> Option<String> {
    let (ours, theirs) = std::io::pipe().ok()?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::null());
    let _child = launch::launch_blocking(command, limit).ok()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    // A thread, because a read of a pipe cannot be given a time limit; it ends with the pipe.
    let reading = tasks::thread(move || {
        let mut line = Vec::new();
        let _ = BufReader::new(ours.take(MAX_LINE)).read_until(b'\n', &mut line);
        let _ = sender.send(line);
    });
    reading.ok()?;
    let line = receiver.recv_timeout(limit).ok();
    Some(String::from_utf8_lossy(&line?).into_owned())
}

const PROGRAM_LIMIT: Duration = Duration::from_secs(1);
const MAX_LINE: u64 = 256;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_store_knows_it_under_several_names() {
        let mut environment = Environment::default();
        assert_eq!(stored(&environment), None);
        environment.set("serial#", "42\0".trim_matches('\0')).unwrap();
        assert_eq!(stored(&environment).as_deref(), Some("42"));
        environment.set("nerves_serial_number", "unconfigured").unwrap();
        assert_eq!(stored(&environment).as_deref(), Some("42"));
        environment.set("nerves_serial_number", " 43 ").unwrap();
        assert_eq!(stored(&environment).as_deref(), Some("43"));
        assert_eq!(usable("1000abc\0"), Some("1000abc".into()));
    }

    #[test]
    fn a_program_has_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("boardid");
        files::replace(&script, b"#!/bin/sh\necho first\necho second\n", 0o755).unwrap();
        assert_eq!(first_line(&script, PROGRAM_LIMIT).as_deref(), Some("first\n"));
        files::replace(&script, b"#!/bin/sh\nexec sleep 20\n", 0o755).unwrap();
        let start = Instant::now();
        assert_eq!(first_line(&script, Duration::from_millis(200)), None);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
