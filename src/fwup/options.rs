//! What the options of a command line add up to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::getopt::{Item, Parser, UsageError};
use super::keys::{KeyError, PrivateKey, PublicKey};
use super::number;
use super::option_table::{EXCLUDES_EASY, Id, OPTIONS};
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

const MOST_PUBLIC_KEYS: usize = 10;

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
