//! `scp -t`: files come from the client.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::{Mode, umask};

use super::Options;
use super::source::reason;
use super::wire::{Line, Wire};

/// What a client announces before it sends it.
#[derive(Debug, PartialEq, Eq)]
struct Announced<'a> {
    mode: u32,
    size: u64,
    name: &'a [u8],
}

struct Sink<'a> {
    wire: &'a mut Wire,
    options: &'a Options,
    /// See `set_mask`.
    mask: u32,
}

/// The permissions that new files do not get from this process, from now on.
pub fn set_mask(options: &Options) -> u32 {
    let inherited = umask(Mode::empty());
    let mask = if options.preserve { Mode::empty() } else { inherited };
    umask(mask);
    mask.bits()
}

pub fn receive(wire: &mut Wire, options: &Options, paths: &[PathBuf], mask: u32) -> io::Result<()> {
    let [target] = paths else { return wire.give_up(b"ambiguous target", "one is wanted") };
    if options.to_folder && !target.is_dir() {
        let what = fs::metadata(target).map_or_else(|error| reason(&error), |_| "Not a directory".into());
        return wire.give_up(target.as_os_str().as_bytes(), &what);
    }
    Sink { wire, options, mask }.fill(target, true)
}

impl Sink<'_> {
    /// Takes what comes for `target`, a folder or the name of the one file, until the folder or everything ends.
    /// Each folder inside is a call of its own; the length of a path that the kernel takes bounds their number.
    fn fill(&mut self, target: &Path, is_first: bool) -> io::Result<()> {
        self.wire.accept()?;
        let mut times = None;
        let mut nothing_yet = is_first;
        loop {
            let record = match self.wire.line()? {
                Line::Record(record) => record,
                Line::Warning => continue,
                Line::End => return Ok(()),
            };
            let record = record.strip_suffix(b"\n").unwrap_or(&record);
            match record.split_first() {
                Some((b'E', [])) => return self.wire.accept(),
                Some((b'T', rest)) => {
                    let Some(parsed) = parse_times(rest) else { return self.screwed_up("bad times") };
                    times = Some(parsed);
                    self.wire.accept()?;
                }
                Some((&kind @ (b'C' | b'D'), rest)) => {
                    let Some(announced) = parse(rest) else { return self.screwed_up("bad record") };
                    if !is_plain(announced.name) {
                        return self.wire.give_up(b"error: unexpected filename", "refused");
                    }
                    let name = std::ffi::OsStr::from_bytes(announced.name);
                    let path = if target.is_dir() { target.join(name) } else { target.into() };
                    match (kind, self.options.recursive) {
                        (b'C', _) => self.file(&path, &announced, times.take())?,
                        (_, true) => self.folder(&path, announced.mode, times.take())?,
                        _ => return self.screwed_up("received directory without -r"),
                    }
                }
                // Words of a shell, perhaps, that stand where scp should.
                _ if nothing_yet => return self.wire.give_up(record, "not understood"),
                _ => return self.screwed_up("expected control record"),
            }
            nothing_yet = false;
        }
    }

    fn screwed_up(&mut self, what: &str) -> io::Result<()> {
        self.wire.give_up(b"protocol error", what)
    }

    fn complain(&mut self, path: &Path, what: &str) -> io::Result<()> {
        self.wire.complain(path.as_os_str().as_bytes(), what)
    }

    fn folder(&mut self, path: &Path, mode: u32, times: Option<FileTimes>) -> io::Result<()> {
        let is_new = match DirBuilder::new().mode(mode | 0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return self.complain(path, "Not a directory");
            }
            Err(error) => return self.complain(path, &reason(&error)),
        };
        self.fill(path, false)?;
        // The mode and the times last: filling it needs the one and changes the other. The end of the folder has been
        // accepted, so what goes wrong now can only be counted.
        let mode = Permissions::from_mode(mode & !self.mask);
        let kept = if is_new || self.options.preserve { fs::set_permissions(path, mode) } else { Ok(()) };
        let timed = times.map_or(Ok(()), |times| File::open(path)?.set_times(times));
        if let Err(error) = kept.and(timed) {
            self.wire.errors += 1;
            eprintln!("scp: {}: {error}", path.display());
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, announced: &Announced<'_>, times: Option<FileTimes>) -> io::Result<()> {
        let is_new = !path.exists();
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(announced.mode | 0o200)
            .custom_flags(flags)
            .open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return self.complain(path, &reason(&error)),
        };
        self.wire.accept()?;
        // What cannot be written is read nevertheless: the rest of the stream stands behind it.
        let mut written = Ok(());
        self.wire.take(announced.size, |bytes| {
            if written.is_ok() {
                written = file.write_all(bytes);
            }
        })?;
        if written.is_ok() && file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            written = file.set_len(announced.size);
        }
        if written.is_ok() && (is_new || self.options.preserve) {
            written = file.set_permissions(Permissions::from_mode(announced.mode & !self.mask));
        }
        if let (Ok(()), Some(times)) = (&written, times) {
            written = file.set_times(times);
        }
        self.wire.is_accepted()?;
        match written {
            Ok(()) => self.wire.accept(),
            Err(error) => self.complain(path, &reason(&error)),
        }
    }
}

/// `MODE SIZE NAME`, the mode in four octal digits.
fn parse(record: &[u8]) -> Option<Announced<'_>> {
    let (mode, rest) = record.split_at_checked(4)?;
    let rest = rest.strip_prefix(b" ")?;
    let blank = rest.iter().position(|&byte| byte == b' ')?;
    let (size, name) = (rest.get(..blank)?, rest.get(blank + 1..)?);
    let digits = |text| std::str::from_utf8(text).ok().filter(|text: &&str| !text.starts_with('+'));
    let mode = u32::from_str_radix(digits(mode)?, 8).ok()?;
    let size = digits(size)?.parse().ok().filter(|size| i64::try_from(*size).is_ok())?;
    Some(Announced { mode, size, name })
}

/// `MTIME 0 ATIME 0`, in seconds and microseconds.
fn parse_times(record: &[u8]) -> Option<FileTimes> {
    let mut numbers = std::str::from_utf8(record).ok()?.split(' ');
    let mut time = || {
        let (seconds, micros): (u32, u32) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(UNIX_EPOCH + Duration::new(seconds.into(), 0) + Duration::from_micros(micros.into()))
    };
    let (changed, accessed) = (time()?, time()?);
    numbers.next().is_none().then(|| FileTimes::new().set_modified(changed).set_accessed(accessed))
}

/// Whether a name stays in the folder that it is put into.
fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_wrong_ones_are_not() {
        let announced = |mode, size, name| Some(Announced { mode, size, name });
        assert_eq!(parse(b"0644 12 a b"), announced(0o644, 12, b"a b"));
        assert_eq!(parse(b"4755 0 \xff"), announced(0o4755, 0, b"\xff"));
        for wrong in [
            &b""[..],
            b"0644",
            b"0644 12",
            b"064 12 a",
            b"0694 12 a",
            b"+644 1 a",
            b"0644 -1 a",
            b"0644 x a",
            b"0644 9223372036854775808 a",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert!(parse_times(b"981173106 0 5 999999").is_some());
        for wrong in [&b""[..], b"1 0 2", b"1 0 2 0 3", b"-1 0 2 0", b"99999999999 0 2 0"] {
            assert!(parse_times(wrong).is_none(), "{wrong:?}");
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
