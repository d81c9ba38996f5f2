//! Why a request is not done, as a client hears it.

use std::io;

use thiserror::Error;

/// Status codes (draft-ietf-secsh-filexfer-02 section 7).
pub const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const OP_UNSUPPORTED: u32 = 8;

#[derive(Debug, Error)]
pub enum Refusal {
    #[error("end of file")]
    Eof,
    #[error("bad message")]
    Malformed,
    #[error("this server is read-only")]
    ReadOnly,
    #[error("no such handle")]
    NoSuchHandle,
    #[error("too many open files: close some")]
    TooManyHandles,
    #[error("operation unsupported")]
    Unsupported,
    #[error("no such user")]
    NoSuchUser,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<nix::Error> for Refusal {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

impl Refusal {
    /// The code that OpenSSH's server answers in the same case, because clients were tested against that.
    pub fn code(&self) -> u32 {
        match self {
            Self::Eof => EOF,
            Self::Malformed => BAD_MESSAGE,
            Self::ReadOnly => PERMISSION_DENIED,
            Self::NoSuchHandle | Self::TooManyHandles => FAILURE,
            Self::Unsupported => OP_UNSUPPORTED,
            Self::NoSuchUser => NO_SUCH_FILE,
            Self::Io(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => NO_SUCH_FILE,
                Some(libc::EPERM | libc::EACCES) => PERMISSION_DENIED,
                Some(libc::ENAMETOOLONG | libc::EINVAL) => BAD_MESSAGE,
                Some(libc::ENOSYS | libc::EOPNOTSUPP) => OP_UNSUPPORTED,
                _ => FAILURE,
            },
        }
    }
}
