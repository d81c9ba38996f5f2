//! How the server behaves: a command line between the ssh worker and its child.

use std::ffi::OsString;
use std::path::PathBuf;

/// What may be set. The letters are those of sftp-server(8) where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Clients see this folder as `/` and nothing outside of it.
    pub root: Option<PathBuf>,
    /// Where relative paths begin, inside `root`. None: where the process was started.
    pub start: Option<PathBuf>,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Permissions that new files do not get. None: as inherited.
    pub umask: Option<u32>,
    /// Files and folders that may be open at the same time.
    pub max_handles: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: None, start: None, read_only: false, umask: None, max_handles: 64 }
    }
}

impl Options {
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec!["--handles".into(), self.max_handles.to_string().into()];
        let mut pair = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                args.extend([name.into(), value]);
            }
        };
        pair("--root", self.root.clone().map(Into::into));
        pair("-d", self.start.clone().map(Into::into));
        pair("-u", self.umask.map(|mask| format!("{mask:o}").into()));
        if self.read_only {
            args.push("-R".into());
        }
        args
    }

    /// Reads what `to_args` wrote; the error is the word that is wrong.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(word) = args.next() {
            let name = word.to_string_lossy().into_owned();
            if name == "-R" {
                options.read_only = true;
                continue;
            }
            let value = args.next().ok_or_else(|| name.clone())?;
            let text = value.to_string_lossy();
            match name.as_str() {
                "--root" => options.root = Some(value.into()),
                "-d" => options.start = Some(value.into()),
                "-u" => options.umask = Some(u32::from_str_radix(&text, 8).map_err(|_| text)?),
                "--handles" => options.max_handles = text.parse().map_err(|_| text)?,
                _ => return Err(name),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_reads_what_the_worker_writes() {
        let all = Options {
            root: Some("/srv/a b".into()),
            start: Some("/in".into()),
            read_only: true,
            umask: Some(0o27),
            max_handles: 7,
        };
        for options in [Options::default(), all] {
            assert_eq!(Options::parse(options.to_args()), Ok(options));
        }
        for wrong in [&["-x", "y"][..], &["-u", "8"], &["--root"]] {
            assert!(Options::parse(wrong.iter().map(OsString::from)).is_err(), "{wrong:?}");
        }
    }
}
