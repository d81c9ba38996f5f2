//! An SFTP server on pipes, spoken to packet by packet.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::text;

pub const REFERENCE: &str = "/usr/lib/openssh/sftp-server";

/// Status codes of draft-ietf-secsh-filexfer-02.
pub const OK: u32 = 0;
pub const EOF: u32 = 1;
pub const NO_SUCH_FILE: u32 = 2;
pub const DENIED: u32 = 3;
pub const FAILURE: u32 = 4;
pub const BAD_MESSAGE: u32 = 5;
pub const UNSUPPORTED: u32 = 8;

/// A server process, and packets to it and from it.
pub struct Sftp {
    pub server: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    pub id: u32,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Status(u32),
    Other(u8, Vec<u8>),
}

impl Sftp {
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut server = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (server.stdin.take(), server.stdout.take().unwrap());
        let mut sftp = Self { server, input, output, id: 0 };
        sftp.send(&[1, 0, 0, 0, 3]);
        let hello = sftp.packet().unwrap();
        assert_eq!(hello[..5], [2, 0, 0, 0, 3]);
        sftp
    }

    pub fn ours(arguments: &[&str]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_myelin"), &[&["sftp-server"], arguments].concat())
    }

    /// Ours, and OpenSSH's to know that the test is right.
    pub fn both() -> [(&'static str, Self); 2] {
        [("ours", Self::ours(&[])), ("OpenSSH", Self::start(REFERENCE, &[]))]
    }

    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.input.as_mut().unwrap().write_all(bytes).is_ok()
    }

    pub fn send(&mut self, packet: &[u8]) {
        let length = u32::try_from(packet.len()).unwrap();
        assert!(self.raw(&[&length.to_be_bytes(), packet].concat()));
    }

    /// The next packet, or None at the end.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.output.read_exact(&mut length).ok()?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.output.read_exact(&mut packet).unwrap();
        Some(packet)
    }

    pub fn answer(&mut self) -> Answer {
        let packet = self.packet().expect("the server still runs");
        assert_eq!(packet[1..5], self.id.to_be_bytes(), "the answer to this request");
        match packet[0] {
            101 => Answer::Status(u32::from_be_bytes(packet[5..9].try_into().unwrap())),
            kind => Answer::Other(kind, packet[5..].to_vec()),
        }
    }

    pub fn ask(&mut self, kind: u8, fields: &[&[u8]]) -> Answer {
        self.id += 1;
        let id = self.id.to_be_bytes();
        self.send(&[&[kind], &id[..], &fields.concat()].concat());
        self.answer()
    }

    pub fn status(&mut self, kind: u8, fields: &[&[u8]]) -> u32 {
        match self.ask(kind, fields) {
            Answer::Status(code) => code,
            other => panic!("{other:?} where a status was expected"),
        }
    }

    /// The rest of an answer that is no status.
    pub fn reply(&mut self, kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        match self.ask(kind, fields) {
            Answer::Other(_, body) => body,
            Answer::Status(code) => panic!("status {code} for {kind} {fields:?}"),
        }
    }

    /// Opens a file; the handle as it stands in a packet, with its length.
    pub fn open(&mut self, path: &Path, flags: u32) -> Result<Vec<u8>, u32> {
        match self.ask(3, &[&path_of(path), &flags.to_be_bytes(), &NO_ATTRIBUTES]) {
            Answer::Other(102, handle) => Ok(handle),
            Answer::Status(code) => Err(code),
            other => panic!("{other:?}"),
        }
    }

    pub fn extended(&mut self, name: &str, fields: &[&[u8]]) -> Answer {
        let name = string(name.as_bytes());
        self.ask(200, &[&[&name[..]], fields].concat())
    }

    /// Closes our side, and says how the server ended.
    pub fn end(&mut self) -> Option<i32> {
        self.input = None;
        self.server.wait().unwrap().code()
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub const NO_ATTRIBUTES: [u8; 4] = [0; 4];
pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
pub const APPEND: u32 = 4;
pub const CREATE: u32 = 8;
pub const TRUNCATE: u32 = 16;
pub const EXCLUSIVE: u32 = 32;

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

pub fn path_of(path: &Path) -> Vec<u8> {
    string(path.to_str().unwrap().as_bytes())
}

/// What an answer holds.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn take(&mut self, length: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub fn text(&mut self) -> String {
        let length = self.u32() as usize;
        text(self.take(length))
    }
}

/// The one path of a NAME answer.
pub fn name_in(body: &[u8]) -> String {
    let mut fields = Fields(body);
    assert_eq!(fields.u32(), 1);
    fields.text()
}
