//! The options of the program: the table, and what they add up to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::getopt::{Item, Parser, Spec, UsageError};
use super::keys::{KeyError, PrivateKey, PublicKey};
use super::number;
use super::output::Output;
use super::progress::Style;

/// What the command line asks for.
pub enum Request {
    Usage { failed: bool },
    Version,
    Detect,
    Select,
    Run(Command, Box<Options>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Apply,
    Create,
    List,
    Metadata,
    GenerateKeys,
    Sign,
    Verify,
    SparseCheck(PathBuf),
}

pub struct Options {
    pub destination: Option<PathBuf>,
    pub input: Option<PathBuf>,
    pub output: Option<PathBuf>,
    pub configuration: PathBuf,
    pub task: Option<OsString>,
    pub public_keys: Vec<PublicKey>,
    pub private_key: Option<PrivateKey>,
    pub exit_handshake: bool,
    pub style: Style,
    pub progress_low: i64,
    pub progress_high: i64,
    pub verbose: bool,
    pub unmount: bool,
    /// Use an automatically found medium without asking.
    pub accept_found: bool,
    pub enable_trim: bool,
    /// In blocks.
    pub max_size: Option<u64>,
    pub verify_writes: Option<bool>,
    pub minimize_writes: bool,
    pub allow_unsafe: bool,
    pub metadata_key: Option<OsString>,
    pub reboot_param_path: Option<PathBuf>,
    pub sparse_check_size: u64,
    pub compression: u32,
}

impl Options {
    /// The archive, when it is a file.
    pub fn input_file(&self) -> Option<&Path> {
        self.input.as_deref().filter(|path| *path != Path::new("-"))
    }
}

/// Reads the command line from left to right. `handshake` is set as soon as the option is met, so that an
/// error behind it still ends with the handshake.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    output: &mut Output,
    handshake: &mut bool,
) -> Result<Request, OptionError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.is_empty() {
        return Ok(Request::Usage { failed: true });
    }
    let mut reading = Reading::new(output);
    for item in Parser::new(OPTIONS, args) {
        let (id, value) = match item? {
            Item::Argument(word) => {
                reading.arguments.push(word);
                continue;
            }
            Item::Option(id, value) => (id, value.unwrap_or_default()),
        };
        match id {
            Id::Help => return Ok(Request::Usage { failed: false }),
            Id::Version => return Ok(Request::Version),
            Id::Detect => return Ok(Request::Detect),
            Id::Select => return Ok(Request::Select),
            _ => reading.option(id, value)?,
        }
        *handshake = reading.options.exit_handshake;
    }
    reading.finish()
}

/// The command line as far as it was read.
struct Reading<'a> {
    output: &'a mut Output,
    options: Options,
    command: Option<Command>,
    arguments: Vec<OsString>,
    /// No option was met that excludes easy mode.
    easy: bool,
    numeric: bool,
    quiet: bool,
}

impl<'a> Reading<'a> {
    fn new(output: &'a mut Output) -> Self {
        let options = Options {
            destination: None,
            input: None,
            output: None,
            configuration: "fwupdate.conf".into(),
            task: None,
            public_keys: Vec::new(),
            private_key: None,
            exit_handshake: false,
            style: Style::Bar,
            progress_low: 0,
            progress_high: 100,
            verbose: false,
            unmount: true,
            accept_found: false,
            enable_trim: false,
            max_size: None,
            verify_writes: None,
            minimize_writes: false,
            allow_unsafe: false,
            metadata_key: None,
            reboot_param_path: None,
            sparse_check_size: 4096,
            compression: 9,
        };
        Self { output, options, command: None, arguments: vec![], easy: true, numeric: false, quiet: false }
    }

    fn option(&mut self, id: Id, value: OsString) -> Result<(), OptionError> {
        if EXCLUDES_EASY.contains(&id) {
            self.easy = false;
        }
        let number = || number::parse_u64(value.as_bytes()).ok_or_else(|| OptionError::number(&value));
        let options = &mut self.options;
        match id {
            Id::Apply => self.command = Some(Command::Apply),
            Id::Create => self.command = Some(Command::Create),
            Id::List => self.command = Some(Command::List),
            Id::Metadata => self.command = Some(Command::Metadata),
            Id::GenerateKeys => self.command = Some(Command::GenerateKeys),
            Id::Sign => self.command = Some(Command::Sign),
            Id::Verify => self.command = Some(Command::Verify),
            Id::SparseCheck => self.command = Some(Command::SparseCheck(value.into())),
            Id::Destination => options.destination = Some(value.into()),
            Id::Input => options.input = Some(value.into()),
            Id::Output => options.output = Some(value.into()),
            Id::Configuration => options.configuration = value.into(),
            Id::Task => options.task = Some(value),
            Id::PublicKeyFile => self.add_key(PublicKey::from_file(Path::new(&value))?),
            Id::PublicKey => self.add_key(PublicKey::from_text(value.as_bytes())?),
            Id::PrivateKeyFile => options.private_key = Some(PrivateKey::from_file(Path::new(&value))?),
            Id::PrivateKey => options.private_key = Some(PrivateKey::from_text(value.as_bytes())?),
            Id::Framing => self.output.use_frames(),
            Id::ExitHandshake => options.exit_handshake = true,
            Id::Numeric => self.numeric = true,
            Id::Quiet => self.quiet = true,
            Id::ProgressLow | Id::ProgressHigh => {
                let value = number::parse_i64(value.as_bytes()).ok_or_else(|| OptionError::number(&value))?;
                if id == Id::ProgressLow {
                    options.progress_low = value;
                } else {
                    options.progress_high = value;
                }
            }
            Id::Verbose => options.verbose = true,
            Id::Unmount => options.unmount = true,
            Id::NoUnmount => options.unmount = false,
            Id::AcceptFound => options.accept_found = true,
            Id::EnableTrim => options.enable_trim = true,
            Id::MaxSize => options.max_size = Some(number()?),
            Id::VerifyWrites => options.verify_writes = Some(true),
            Id::NoVerifyWrites => options.verify_writes = Some(false),
            Id::MinimizeWrites => options.minimize_writes = true,
            Id::NoMinimizeWrites => options.minimize_writes = false,
            Id::Unsafe => options.allow_unsafe = true,
            Id::MetadataKey => options.metadata_key = Some(value),
            Id::RebootParamPath => options.reboot_param_path = Some(value.into()),
            Id::SparseCheckSize => options.sparse_check_size = number()?,
            Id::Level(level) => options.compression = level,
            // Ejecting does nothing on Linux; the others were answered where they were met.
            Id::Eject | Id::Help | Id::Version | Id::Detect | Id::Select => {}
        }
        Ok(())
    }

    fn add_key(&mut self, key: PublicKey) {
        if self.options.public_keys.len() < MOST_PUBLIC_KEYS {
            self.options.public_keys.push(key);
        } else {
            self.output.info(format!("only {MOST_PUBLIC_KEYS} public keys count: this one is ignored"));
        }
    }

    fn finish(mut self) -> Result<Request, OptionError> {
        if self.numeric && self.quiet {
            return Err(OptionError::NumericAndQuiet);
        }
        if self.easy && self.arguments.len() == 1 {
            self.command = Some(Command::Apply);
            self.options.input = self.arguments.pop().map(PathBuf::from);
            self.options.task.get_or_insert_with(|| "complete".into());
        }
        if let Some(argument) = self.arguments.first() {
            return Err(OptionError::Extra { argument: argument.to_string_lossy().into_owned() });
        }
        self.options.style = match (self.output.is_framed(), self.quiet, self.numeric) {
            (_, true, _) => Style::Quiet,
            (true, ..) => Style::Framed,
            (_, _, true) => Style::Numeric,
            _ => Style::Bar,
        };
        let command = self.command.ok_or(OptionError::NoCommand)?;
        Ok(Request::Run(command, Box::new(self.options)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Apply,
    Create,
    List,
    Metadata,
    GenerateKeys,
    Sign,
    Verify,
    SparseCheck,
    Detect,
    Select,
    Help,
    Version,
    Destination,
    Input,
    Output,
    Configuration,
    Task,
    PublicKeyFile,
    PublicKey,
    PrivateKeyFile,
    PrivateKey,
    Framing,
    ExitHandshake,
    Numeric,
    Quiet,
    ProgressLow,
    ProgressHigh,
    Verbose,
    Unmount,
    NoUnmount,
    Eject,
    AcceptFound,
    EnableTrim,
    MaxSize,
    VerifyWrites,
    NoVerifyWrites,
    MinimizeWrites,
    NoMinimizeWrites,
    Unsafe,
    MetadataKey,
    RebootParamPath,
    SparseCheckSize,
    Level(u32),
}

const EXCLUDES_EASY: &[Id] = &[
    Id::Apply,
    Id::Create,
    Id::Configuration,
    Id::GenerateKeys,
    Id::Input,
    Id::List,
    Id::Metadata,
    Id::Output,
    Id::PublicKeyFile,
    Id::PrivateKeyFile,
    Id::Framing,
    Id::Sign,
    Id::Verify,
    Id::PrivateKey,
    Id::SparseCheck,
];

const fn flag(id: Id, short: u8, long: &'static str) -> Spec<Id> {
    Spec { id, short: Some(short), long: Some(long), takes_value: false }
}

const fn value(id: Id, short: u8, long: &'static str) -> Spec<Id> {
    Spec { id, short: Some(short), long: Some(long), takes_value: true }
}

const fn short(id: Id, short: u8, takes_value: bool) -> Spec<Id> {
    Spec { id, short: Some(short), long: None, takes_value }
}

const fn long(id: Id, long: &'static str, takes_value: bool) -> Spec<Id> {
    Spec { id, short: None, long: Some(long), takes_value }
}

const OPTIONS: &[Spec<Id>] = &[
    flag(Id::Apply, b'a', "apply"),
    flag(Id::Create, b'c', "create"),
    flag(Id::List, b'l', "list"),
    flag(Id::Metadata, b'm', "metadata"),
    flag(Id::GenerateKeys, b'g', "gen-keys"),
    flag(Id::Sign, b'S', "sign"),
    flag(Id::Verify, b'V', "verify"),
    long(Id::SparseCheck, "sparse-check", true),
    flag(Id::Detect, b'D', "detect"),
    short(Id::Select, b'z', false),
    flag(Id::Help, b'h', "help"),
    long(Id::Version, "version", false),
    short(Id::Destination, b'd', true),
    short(Id::Input, b'i', true),
    short(Id::Output, b'o', true),
    short(Id::Configuration, b'f', true),
    value(Id::Task, b't', "task"),
    value(Id::PublicKeyFile, b'p', "public-key-file"),
    long(Id::PublicKey, "public-key", true),
    value(Id::PrivateKeyFile, b's', "private-key-file"),
    long(Id::PrivateKey, "private-key", true),
    flag(Id::Framing, b'F', "framing"),
    long(Id::ExitHandshake, "exit-handshake", false),
    short(Id::Numeric, b'n', false),
    flag(Id::Quiet, b'q', "quiet"),
    long(Id::ProgressLow, "progress-low", true),
    long(Id::ProgressHigh, "progress-high", true),
    flag(Id::Verbose, b'v', "verbose"),
    flag(Id::Unmount, b'u', "unmount"),
    flag(Id::NoUnmount, b'U', "no-unmount"),
    flag(Id::Eject, b'E', "eject"),
    long(Id::Eject, "no-eject", false),
    short(Id::AcceptFound, b'y', false),
    long(Id::EnableTrim, "enable-trim", false),
    long(Id::MaxSize, "max-size", true),
    long(Id::VerifyWrites, "verify-writes", false),
    long(Id::NoVerifyWrites, "no-verify-writes", false),
    long(Id::MinimizeWrites, "minimize-writes", false),
    long(Id::NoMinimizeWrites, "no-minimize-writes", false),
    long(Id::Unsafe, "unsafe", false),
    long(Id::MetadataKey, "metadata-key", true),
    long(Id::RebootParamPath, "reboot-param-path", true),
    long(Id::SparseCheckSize, "sparse-check-size", true),
    short(Id::Level(1), b'1', false),
    short(Id::Level(2), b'2', false),
    short(Id::Level(3), b'3', false),
    short(Id::Level(4), b'4', false),
    short(Id::Level(5), b'5', false),
    short(Id::Level(6), b'6', false),
    short(Id::Level(7), b'7', false),
    short(Id::Level(8), b'8', false),
    short(Id::Level(9), b'9', false),
];

const MOST_PUBLIC_KEYS: usize = 10;

pub const USAGE: &str = "\
Usage: fwup [OPTION]… [ARCHIVE]

With nothing but an archive and perhaps -d and -t, the task `complete` of the archive is applied.

Commands:
  -a, --apply                 apply an archive
  -c, --create                create an archive
  -l, --list                  list the tasks of an archive
  -m, --metadata              print the metadata of an archive
  -g, --gen-keys              make a signing key pair
  -S, --sign                  sign an archive
  -V, --verify                verify an archive
  -D, --detect                list removable media
      --sparse-check PATH     does the file system at PATH support holes?
  -h, --help                  this text
      --version               the version of fwup this program stands in for

Files and keys:
  -d PATH                     destination: a device or an image file
  -i PATH                     archive to read (default: stdin)
  -o PATH                     file to write (default: stdout; -g: prefix of the key files)
  -f PATH                     configuration for -c (default: fwupdate.conf)
  -t, --task TASK             task to apply; the first that begins so and whose requirements hold
  -p, --public-key-file PATH  key that must have signed the archive; may be repeated
      --public-key KEY        the same, the key itself
  -s, --private-key-file PATH key to sign with
      --private-key KEY       the same, the key itself
  -1 … -9                     compression of -c (default: 9)

What applying may do and shows:
  -n                          progress as numbers
  -q, --quiet                 no progress
  -F, --framing               frames on stdin and stdout
      --exit-handshake        end with 0x1a and the status, wait until stdin is closed
      --progress-low N        first progress value (default: 0)
      --progress-high N       last progress value (default: 100)
  -v, --verbose               say more
  -u, --unmount               unmount what is mounted from the destination (default)
  -U, --no-unmount            do not
  -y                          use the one removable medium without asking
  -z                          print that medium
      --enable-trim           discard blocks of a device that are trimmed
      --max-size BLOCKS       the destination ends there
      --verify-writes, --no-verify-writes      read back what was written (default: on devices)
      --minimize-writes, --no-minimize-writes  write only what differs
      --unsafe                allow commands and writing to other files
      --metadata-key NAME     with -m: print this value alone
      --reboot-param-path PATH  where reboot_param writes
      --sparse-check-size N   size of the hole for --sparse-check (default: 4096)
";

#[derive(Debug, Error)]
pub enum OptionError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("'{text}' is no number")]
    Number { text: String },
    #[error("pick either -n or -q, but not both")]
    NumericAndQuiet,
    #[error("unexpected argument '{argument}': see --help")]
    Extra { argument: String },
    #[error("specify a command, such as -a, -c, -l, -m, -S or -V: see --help")]
    NoCommand,
}

impl OptionError {
    fn number(text: &OsString) -> Self {
        Self::Number { text: text.to_string_lossy().into_owned() }
    }
}
