//! The far half of scp's old protocol (`scp -O`): what a client's scp starts on the device, for images without one.
//!
//! There is no specification but the programs: rcp of 4.3BSD, and OpenSSH's scp, whose behaviour and messages these
//! are. Records are lines; each is answered by a zero byte, or by 1 and a line that says what is wrong.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod sink;
mod source;
mod wire;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use wire::Wire;

/// `scp -t` and `scp -f` with `-r`, `-p`, `-d`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Receive files (to), or send them (from).
    to: bool,
    from: bool,
    recursive: bool,
    /// Keep modes and times.
    preserve: bool,
    /// The target must be a folder.
    to_folder: bool,
}

pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (options, paths) = match parse(args) {
        Ok(parsed) => parsed,
        Err(word) => {
            eprintln!(
                "myelin scp: {word}: only the half that a client's scp starts is built in (-t, -f, -r, -p, -d)"
            );
            return ExitCode::FAILURE;
        }
    };
    let done = Wire::new().and_then(|mut wire| {
        if options.to {
            sink::receive(&mut wire, &options, &paths, sink::set_mask(&options))
        } else {
            source::send(&mut wire, &options, &paths)
        }?;
        Ok(wire.errors == 0)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                eprintln!("scp: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Options, Vec<PathBuf>), String> {
    let mut options = Options::default();
    let mut args = args.into_iter().peekable();
    while let Some(word) = args.next_if(|word| word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")) {
        if word == "--" {
            break;
        }
        let word = word.to_string_lossy().into_owned();
        for letter in word.chars().skip(1) {
            match letter {
                't' => options.to = true,
                'f' => options.from = true,
                'r' => options.recursive = true,
                'p' => options.preserve = true,
                'd' => options.to_folder = true,
                // Talkative or silent: there is nobody here to talk to.
                'v' | 'q' => {}
                _ => return Err(word),
            }
        }
    }
    let paths: Vec<PathBuf> = args.map(PathBuf::from).collect();
    if options.to == options.from || paths.is_empty() {
        Err("wrong arguments".into())
    } else {
        Ok((options, paths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_joined_and_apart() {
        let parse = |line: &str| parse(line.split(' ').map(OsString::from));
        let (options, paths) = parse("-r -pd -v -t -- -name").unwrap();
        let expected = Options { to: true, from: false, recursive: true, preserve: true, to_folder: true };
        assert_eq!((options, paths), (expected, vec![PathBuf::from("-name")]));
        assert!(parse("-f a b").unwrap().0.from);
        for wrong in ["-t", "a b", "-t -f x", "-x -t y"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
