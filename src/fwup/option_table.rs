//! The options there are, for the parser and for people.

use super::getopt::Spec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
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

/// With one of them, a lone argument is no archive to apply.
pub const EXCLUDES_EASY: &[Id] = &[
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

pub const OPTIONS: &[Spec<Id>] = &[
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
