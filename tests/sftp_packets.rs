//! SFTP packet by packet, as no well-behaved client sends them. Where OpenSSH's server can be asked the same, it is.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{random_bytes, status_kib, text};

const REFERENCE: &str = "/usr/lib/openssh/sftp-server";

/// Status codes of draft-ietf-secsh-filexfer-02.
const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// A server process, and packets to it and from it.
struct Sftp {
    server: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    id: u32,
}

/// What came back.
#[derive(Debug, PartialEq)]
enum Answer {
    Status(u32),
    Other(u8, Vec<u8>),
}

impl Sftp {
    fn start(program: &str, arguments: &[&str]) -> Self {
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

    fn ours(arguments: &[&str]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_myelin"), &[&["sftp-server"], arguments].concat())
    }

    /// Ours, and OpenSSH's to know that the test is right.
    fn both() -> [(&'static str, Self); 2] {
        [("ours", Self::ours(&[])), ("OpenSSH", Self::start(REFERENCE, &[]))]
    }

    fn raw(&mut self, bytes: &[u8]) -> bool {
        self.input.as_mut().unwrap().write_all(bytes).is_ok()
    }

    fn send(&mut self, packet: &[u8]) {
        let length = u32::try_from(packet.len()).unwrap();
        assert!(self.raw(&[&length.to_be_bytes(), packet].concat()));
    }

    /// The next packet, or None at the end.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.output.read_exact(&mut length).ok()?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.output.read_exact(&mut packet).unwrap();
        Some(packet)
    }

    fn answer(&mut self) -> Answer {
        let packet = self.packet().expect("the server still runs");
        assert_eq!(packet[1..5], self.id.to_be_bytes(), "the answer to this request");
        match packet[0] {
            101 => Answer::Status(u32::from_be_bytes(packet[5..9].try_into().unwrap())),
            kind => Answer::Other(kind, packet[5..].to_vec()),
        }
    }

    fn ask(&mut self, kind: u8, fields: &[&[u8]]) -> Answer {
        self.id += 1;
        let id = self.id.to_be_bytes();
        self.send(&[&[kind], &id[..], &fields.concat()].concat());
        self.answer()
    }

    fn status(&mut self, kind: u8, fields: &[&[u8]]) -> u32 {
        match self.ask(kind, fields) {
            Answer::Status(code) => code,
            other => panic!("{other:?} where a status was expected"),
        }
    }

    /// The rest of an answer that is no status.
    fn reply(&mut self, kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        match self.ask(kind, fields) {
            Answer::Other(_, body) => body,
            Answer::Status(code) => panic!("status {code} for {kind} {fields:?}"),
        }
    }

    /// Opens a file; the handle as it stands in a packet, with its length.
    fn open(&mut self, path: &Path, flags: u32) -> Result<Vec<u8>, u32> {
        match self.ask(3, &[&path_of(path), &flags.to_be_bytes(), &NO_ATTRIBUTES]) {
            Answer::Other(102, handle) => Ok(handle),
            Answer::Status(code) => Err(code),
            other => panic!("{other:?}"),
        }
    }

    fn extended(&mut self, name: &str, fields: &[&[u8]]) -> Answer {
        let name = string(name.as_bytes());
        self.ask(200, &[&[&name[..]], fields].concat())
    }

    /// Closes our side, and says how the server ended.
    fn end(&mut self) -> Option<i32> {
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

const NO_ATTRIBUTES: [u8; 4] = [0; 4];
const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn path_of(path: &Path) -> Vec<u8> {
    string(path.to_str().unwrap().as_bytes())
}

/// What an answer holds.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.u32() as usize;
        text(self.take(length))
    }
}

/// The one path of a NAME answer.
fn name_in(body: &[u8]) -> String {
    let mut fields = Fields(body);
    assert_eq!(fields.u32(), 1);
    fields.text()
}

#[test]
fn reads_and_writes_at_any_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mut sftp) in Sftp::both() {
        let file = folder.path().join(name);
        let handle = sftp.open(&file, READ | WRITE | CREATE | TRUNCATE).unwrap();
        let write = |sftp: &mut Sftp, offset: u64, data: &[u8]| {
            sftp.status(6, &[&handle, &offset.to_be_bytes(), &string(data)])
        };
        let read = |sftp: &mut Sftp, offset: u64, length: u32| {
            sftp.ask(5, &[&handle, &offset.to_be_bytes(), &length.to_be_bytes()])
        };
        assert_eq!(write(&mut sftp, 5, b"world"), OK, "{name}");
        assert_eq!(write(&mut sftp, 0, b"hello"), OK, "{name}");
        assert_eq!(write(&mut sftp, 3, b""), OK, "{name}");
        assert_eq!(fs::read(&file).unwrap(), b"helloworld", "{name}");
        assert_eq!(read(&mut sftp, 3, 4), Answer::Other(103, string(b"lowo")), "{name}");
        assert_eq!(read(&mut sftp, 8, 100), Answer::Other(103, string(b"ld")), "{name}");
        assert_eq!(read(&mut sftp, 3, 0), Answer::Other(103, string(b"")), "{name}");
        for beyond in [10, 11, 1 << 31, 1 << 32, 1 << 40] {
            assert_eq!(read(&mut sftp, beyond, 5), Answer::Status(EOF), "{name} {beyond}");
        }
        for impossible in [(1 << 63) - 1, 1 << 63, u64::MAX] {
            assert_eq!(read(&mut sftp, impossible, 5), Answer::Status(BAD_MESSAGE), "{name} {impossible}");
            assert_eq!(write(&mut sftp, impossible, b"x"), BAD_MESSAGE, "{name} {impossible}");
        }
        assert_eq!(read(&mut sftp, 0, u32::MAX), Answer::Other(103, string(b"helloworld")), "{name}");
        assert_eq!(sftp.status(4, &[&handle]), OK);
        assert_eq!(fs::read(&file).unwrap(), b"helloworld", "{name}");

        let handle = sftp.open(&file, WRITE | APPEND).unwrap();
        assert_eq!(sftp.status(6, &[&handle, &0_u64.to_be_bytes(), &string(b"!")]), OK);
        assert_eq!(fs::read(&file).unwrap(), b"helloworld!", "{name}");
        assert_eq!(sftp.open(&file, WRITE | CREATE | EXCLUSIVE), Err(FAILURE), "{name}");
        assert_eq!(sftp.open(&folder.path().join("none"), READ), Err(NO_SUCH_FILE), "{name}");
        assert_eq!(sftp.open(&folder.path().join("none/x"), WRITE | CREATE), Err(NO_SUCH_FILE), "{name}");
        assert_eq!(sftp.open(folder.path(), WRITE), Err(FAILURE), "{name}: a folder");
        assert_eq!(sftp.end(), Some(0), "{name}");
    }
}

#[test]
fn handles_that_were_never_opened_name_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mut sftp) in Sftp::both() {
        let folder_path = path_of(folder.path());
        let listing = sftp.reply(11, &[&folder_path]);
        for handle in [&b""[..], b"\0\0\0\x63", b"\xff\xff\xff\xff", b"abcdefgh", &[0; 256]] {
            let handle = string(handle);
            let (offset, length) = (0_u64.to_be_bytes(), 5_u32.to_be_bytes());
            assert_eq!(sftp.status(5, &[&handle, &offset, &length]), FAILURE, "{name}: read");
            assert_eq!(sftp.status(6, &[&handle, &offset, &string(b"x")]), FAILURE, "{name}: write");
            assert_ne!(sftp.status(4, &[&handle]), OK, "{name}: close");
            for kind in [8, 12] {
                assert_eq!(sftp.status(kind, &[&handle]), FAILURE, "{name}: {kind}");
            }
            assert_eq!(sftp.status(10, &[&handle, &NO_ATTRIBUTES]), FAILURE, "{name}: fsetstat");
            let fsync = sftp.extended("fsync@openssh.com", &[&handle]);
            assert!([FAILURE, NO_SUCH_FILE].map(Answer::Status).contains(&fsync), "{name}: fsync");
        }
        // A folder's handle is no file's, and the other way round.
        assert_eq!(sftp.status(5, &[&listing, &[0; 12]]), FAILURE, "{name}");
        assert_eq!(sftp.status(4, &[&listing]), OK, "{name}");
        assert_ne!(sftp.status(4, &[&listing]), OK, "{name}: closed twice");
        assert_eq!(sftp.end(), Some(0), "{name}");
    }
}

#[test]
fn folders_are_listed_whole_in_portions() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..250 {
        fs::write(folder.path().join(format!("file {n:03}")), "").unwrap();
    }
    for (name, mut sftp) in Sftp::both() {
        let handle = sftp.reply(11, &[&path_of(folder.path())]);
        let mut names = Vec::new();
        let mut portions = 0;
        while let Answer::Other(104, body) = sftp.ask(12, &[&handle]) {
            portions += 1;
            let mut fields = Fields(&body);
            let count = fields.u32();
            assert!(count <= 100, "{name}");
            for _ in 0..count {
                let (file, line) = (fields.text(), fields.text());
                fields.take(32);
                // Mode, links, owner, group, size, month, day, time or year.
                let columns = line.strip_suffix(&file).unwrap().split_whitespace().count();
                assert_eq!(columns, 8, "{name}: {line}");
                assert!(line.starts_with("-rw-") || line.starts_with("drwx"), "{name}: {line}");
                names.push(file);
            }
            assert!(fields.0.is_empty(), "{name}");
        }
        names.sort();
        assert_eq!(names.len(), 252, "{name}: with . and ..");
        assert_eq!((&names[0][..], &names[1][..], &names[251][..]), (".", "..", "file 249"), "{name}");
        assert!(portions >= 3, "{name}");
        assert_eq!(sftp.status(12, &[&handle]), EOF, "{name}: and stays at the end");
    }
}

#[test]
fn paths_of_all_kinds_get_a_clean_answer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, mut sftp) in Sftp::both() {
        let long = format!("{}/{}", folder.display(), "x/".repeat(2100));
        let name_256 = folder.join("n".repeat(256));
        assert_eq!(sftp.status(17, &[&path_of(&name_256)]), BAD_MESSAGE, "{name}: a name of 256 bytes");
        for length in [4096, 4097, 5000] {
            let too_long = string(&long.as_bytes()[..length.min(long.len())]);
            for kind in [7, 11, 13, 15, 17, 19] {
                assert_eq!(sftp.status(kind, &[&too_long]), BAD_MESSAGE, "{name}: {kind}, {length} bytes");
            }
        }
        assert_eq!(sftp.status(17, &[&string(b"")]), NO_SUCH_FILE, "{name}: no name at all");
        let above = sftp.reply(16, &[&string(b"/../../..//tmp/./..")]);
        assert_eq!(name_in(&above), "/", "{name}");
        let missing = folder.join("not-there");
        assert_eq!(name_in(&sftp.reply(16, &[&path_of(&missing)])), missing.to_str().unwrap(), "{name}");
        assert_eq!(sftp.status(16, &[&path_of(&missing.join("x"))]), NO_SUCH_FILE, "{name}");
        for odd in [&b"with space"[..], b"new\nline", b"latin \xe4\xf6", &[b'n'; 255], b"-rf", b"~", b"*"] {
            let path = string(&[folder.as_os_str().as_encoded_bytes(), b"/", odd].concat());
            assert_eq!(sftp.status(14, &[&path, &NO_ATTRIBUTES]), OK, "{name}: {odd:?}");
            let real = sftp.reply(16, &[&path]);
            assert!(real.windows(odd.len()).any(|part| part == odd), "{name}: {odd:?}");
            assert_eq!(sftp.status(15, &[&path]), OK, "{name}: {odd:?}");
        }
        assert_eq!(sftp.status(13, &[&path_of(folder)]), FAILURE, "{name}: a folder is no file");
        assert_eq!(sftp.status(15, &[&path_of(&missing)]), NO_SUCH_FILE, "{name}");
    }
    // OpenSSH's server ends at a zero byte; ours has an answer.
    let mut sftp = Sftp::ours(&[]);
    for kind in [7, 11, 13, 15, 16, 17, 19] {
        assert_eq!(sftp.status(kind, &[&string(b"/tmp\0/x")]), BAD_MESSAGE);
    }
    for kind in [13, 15] {
        for place in ["/", "..", ".", "/tmp/.."] {
            assert_eq!(sftp.status(kind, &[&string(place.as_bytes())]), FAILURE, "{kind} {place}");
        }
    }
}

#[test]
fn renames_and_links_are_those_that_clients_expect() {
    for (name, mut sftp) in Sftp::both() {
        let folder = tempfile::tempdir().unwrap();
        let at = |file: &str| folder.path().join(file);
        fs::write(at("a"), "a").unwrap();
        fs::write(at("b"), "b").unwrap();
        let (a, b, c) = (path_of(&at("a")), path_of(&at("b")), path_of(&at("c")));
        assert_eq!(sftp.status(18, &[&a, &b]), FAILURE, "{name}: never over another file");
        assert_eq!(fs::read(at("b")).unwrap(), b"b", "{name}");
        assert_eq!(sftp.status(18, &[&a, &c]), OK, "{name}");
        assert_eq!(sftp.extended("posix-rename@openssh.com", &[&c, &b]), Answer::Status(OK), "{name}");
        assert_eq!(fs::read(at("b")).unwrap(), b"a", "{name}");
        // The target first, as OpenSSH has it.
        assert_eq!(sftp.status(20, &[&string(b"b"), &path_of(&at("link"))]), OK, "{name}");
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("b"), "{name}");
        assert_eq!(name_in(&sftp.reply(19, &[&path_of(&at("link"))])), "b", "{name}");
        assert_eq!(sftp.status(19, &[&b]), BAD_MESSAGE, "{name}: no link");
        let hard = path_of(&at("hard"));
        assert_eq!(sftp.extended("hardlink@openssh.com", &[&b, &hard]), Answer::Status(OK), "{name}");
        fs::write(at("b"), "both").unwrap();
        assert_eq!(fs::read(at("hard")).unwrap(), b"both", "{name}");
        assert_eq!(sftp.extended("hardlink@openssh.com", &[&b, &hard]), Answer::Status(FAILURE), "{name}");
        assert_eq!(name_in(&sftp.reply(16, &[&path_of(&at("link"))])), at("b").to_str().unwrap(), "{name}");
    }
}

#[test]
fn attributes_are_set_and_told() {
    const SIZE: u32 = 1;
    const OWNER: u32 = 2;
    const MODE: u32 = 4;
    const TIMES: u32 = 8;
    for (name, mut sftp) in Sftp::both() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "0123456789").unwrap();
        let path = path_of(&file);
        let numbers = |all: &[u32]| all.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
        let told = |body: &[u8]| {
            let mut fields = Fields(body);
            assert_eq!(fields.u32(), SIZE | OWNER | MODE | TIMES);
            let (size, _user, _group, mode, access) =
                (fields.u64(), fields.u32(), fields.u32(), fields.u32(), fields.u32());
            (size, mode, access, fields.u32())
        };
        let set = numbers(&[SIZE | MODE | TIMES, 0, 4, 0o100_640, 1_000_000_000, 1_100_000_000]);
        assert_eq!(sftp.status(9, &[&path, &set]), OK, "{name}");
        let expected = (4, 0o100_640, 1_000_000_000, 1_100_000_000);
        for kind in [7, 17] {
            assert_eq!(told(&sftp.reply(kind, &[&path])), expected, "{name}");
        }
        let handle = sftp.open(&file, READ | WRITE).unwrap();
        assert_eq!(told(&sftp.reply(8, &[&handle])), expected, "{name}");
        assert_eq!(fs::read(&file).unwrap(), b"0123", "{name}");
        assert_eq!(sftp.status(10, &[&handle, &numbers(&[SIZE, 0, 2])]), OK, "{name}");
        assert_eq!(sftp.status(10, &[&handle, &numbers(&[MODE, 0o4711])]), OK, "{name}");
        assert_eq!(sftp.status(10, &[&handle, &numbers(&[TIMES, 1, 2])]), OK, "{name}");
        assert_eq!(told(&sftp.reply(8, &[&handle])), (2, 0o104_711, 1, 2), "{name}");
        assert_eq!(sftp.status(9, &[&path, &numbers(&[SIZE, u32::MAX, 0])]), BAD_MESSAGE, "{name}");

        let link = folder.path().join("link");
        symlink("file", &link).unwrap();
        let link = path_of(&link);
        let times = numbers(&[TIMES, 5, 6]);
        assert_eq!(sftp.extended("lsetstat@openssh.com", &[&link, &times]), Answer::Status(OK), "{name}");
        let (size, mode, ..) = told(&sftp.reply(7, &[&link]));
        assert_eq!((size, mode), (4, 0o120_777), "{name}: the link itself");
        assert_eq!(fs::symlink_metadata(folder.path().join("link")).unwrap().modified().unwrap(), at(6));
        assert_eq!(told(&sftp.reply(17, &[&link])), (2, 0o104_711, 1, 2), "{name}: what it leads to");
        if nobody_else_owns_files() {
            continue;
        }
        assert_eq!(sftp.status(9, &[&path, &numbers(&[OWNER, 12, 34])]), OK, "{name}");
        let metadata = fs::metadata(&file).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34), "{name}");
    }
}

fn at(seconds: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

fn nobody_else_owns_files() -> bool {
    let not_root = !Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if not_root {
        eprintln!("not tested: only root can give files away");
    }
    not_root
}

#[test]
fn extensions_tell_what_they_tell_at_openssh() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_of(folder.path());
    let asked: Vec<_> = Sftp::both()
        .into_iter()
        .map(|(name, mut sftp)| {
            let Answer::Other(201, found) = sftp.extended("statvfs@openssh.com", &[&path]) else {
                panic!("{name}: no statvfs");
            };
            let mut fields = Fields(&found);
            // Block sizes and counts; how much is free changes meanwhile.
            let sizes = (fields.u64(), fields.u64(), fields.u64());
            fields.take(4 * 8 + 8);
            let more = (fields.u64(), fields.u64(), fields.u64());
            let Answer::Other(201, limits) = sftp.extended("limits@openssh.com", &[]) else {
                panic!("{name}: no limits");
            };
            let limits = limits[..24].to_vec();
            let expanded = ["~root", "/tmp/..", "~nobody-like-this"]
                .map(|path| sftp.extended("expand-path@openssh.com", &[&string(path.as_bytes())]));
            let unknown = sftp.extended("nothing@example.com", &[&path]);
            (sizes, more, limits, expanded, unknown)
        })
        .collect();
    assert_eq!(asked[0], asked[1]);

    let mut sftp = Sftp::ours(&["--handles", "7"]);
    let Answer::Other(201, limits) = sftp.extended("limits@openssh.com", &[]) else { panic!("no limits") };
    let mut limits = Fields(&limits);
    assert_eq!([limits.u64(), limits.u64(), limits.u64(), limits.u64()], [262_144, 261_120, 261_120, 7]);
    let home = std::env::var("HOME").unwrap_or_default();
    for (path, expanded) in [("~", home.clone()), ("~/x", format!("{home}/x"))] {
        let answer = sftp.extended("expand-path@openssh.com", &[&string(path.as_bytes())]);
        assert!(matches!(&answer, Answer::Other(104, body) if name_in(body) == expanded), "{answer:?}");
    }
    let home = sftp.extended("home-directory", &[&string(b"root")]);
    assert!(matches!(home, Answer::Other(104, body) if name_in(&body) == "/root"));
    let ids = [&string(&0_u32.to_be_bytes())[..], &string(&[0, 0, 0, 0, 255, 255, 255, 0])].concat();
    let Answer::Other(201, names) = sftp.extended("users-groups-by-id@openssh.com", &[&ids]) else {
        panic!("no names");
    };
    assert_eq!(names, [string(&string(b"root")), string(&[string(b"root"), string(b"")].concat())].concat());

    fs::write(folder.path().join("from"), random_bytes(200_000, 1)).unwrap();
    let from = sftp.open(&folder.path().join("from"), READ).unwrap();
    let to = sftp.open(&folder.path().join("to"), WRITE | CREATE).unwrap();
    let number = |n: u64| n.to_be_bytes();
    let copied = sftp.extended("copy-data", &[&from, &number(100), &number(0), &to, &number(5)]);
    assert_eq!(copied, Answer::Status(OK));
    let (from_bytes, to_bytes) =
        (fs::read(folder.path().join("from")).unwrap(), fs::read(folder.path().join("to")).unwrap());
    assert!(to_bytes[..5] == [0; 5] && to_bytes[5..] == from_bytes[100..]);
    let onto_itself = sftp.extended("copy-data", &[&from, &number(0), &number(0), &from, &number(5)]);
    assert_eq!(onto_itself, Answer::Status(FAILURE));
    assert_eq!(sftp.extended("fsync@openssh.com", &[&to]), Answer::Status(OK));
}

#[test]
fn open_handles_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut sftp = Sftp::ours(&[]);
    let handles: Vec<_> = (0..64).map(|_| sftp.open(&file, READ).unwrap()).collect();
    let new = folder.path().join("new");
    assert_eq!(sftp.open(&new, WRITE | CREATE), Err(FAILURE));
    assert!(!new.exists(), "what is refused is not made either");
    assert_eq!(sftp.status(11, &[&path_of(folder.path())]), FAILURE);
    assert_eq!(sftp.status(4, &[&handles[5]]), OK);
    assert!(sftp.open(&file, READ).is_ok());
}

#[test]
fn a_read_only_server_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "content").unwrap();
    for (name, mut sftp) in [("ours", Sftp::ours(&["-R"])), ("OpenSSH", Sftp::start(REFERENCE, &["-R"]))] {
        let (path, new) = (path_of(&file), path_of(&folder.path().join("new")));
        for flags in [WRITE, READ | WRITE, READ | CREATE, READ | TRUNCATE, WRITE | APPEND] {
            assert_eq!(sftp.open(&file, flags), Err(DENIED), "{name}: {flags}");
        }
        for (kind, fields) in [
            (9, vec![&path[..], &NO_ATTRIBUTES]),
            (13, vec![&path]),
            (14, vec![&new, &NO_ATTRIBUTES]),
            (15, vec![&new]),
            (18, vec![&path, &new]),
            (20, vec![&path, &new]),
        ] {
            assert_eq!(sftp.status(kind, &fields), DENIED, "{name}: {kind}");
        }
        for extension in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
            assert_eq!(
                sftp.extended(extension, &[&path, &new]),
                Answer::Status(DENIED),
                "{name}: {extension}"
            );
        }
        let handle = sftp.open(&file, READ).unwrap();
        assert_eq!(sftp.status(6, &[&handle, &[0; 8], &string(b"x")]), DENIED, "{name}");
        assert_eq!(sftp.status(10, &[&handle, &NO_ATTRIBUTES]), DENIED, "{name}");
        let read = sftp.ask(5, &[&handle, &[0; 8], &7_u32.to_be_bytes()]);
        assert_eq!(read, Answer::Other(103, string(b"content")), "{name}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
    }
}

#[test]
fn new_files_get_the_permissions_that_are_asked_for_less_the_mask() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mut sftp) in
        [("ours", Sftp::ours(&["-u", "027"])), ("OpenSSH", Sftp::start(REFERENCE, &["-u", "027"]))]
    {
        let mut make = |file: &str, attributes: &[u32]| {
            let path = folder.path().join(format!("{name} {file}"));
            let attributes: Vec<u8> = attributes.iter().flat_map(|n| n.to_be_bytes()).collect();
            let flags = (WRITE | CREATE).to_be_bytes();
            assert!(matches!(sftp.ask(3, &[&path_of(&path), &flags, &attributes]), Answer::Other(102, _)));
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(make("default", &[0]), 0o640, "{name}");
        assert_eq!(make("all", &[4, 0o777]), 0o750, "{name}");
        assert_eq!(make("private", &[4, 0o100_600]), 0o600, "{name}");
        let path = folder.path().join(format!("{name} folder"));
        assert_eq!(sftp.status(14, &[&path_of(&path), &NO_ATTRIBUTES]), OK);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o750, "{name}");
    }
}

#[test]
fn a_pipe_without_a_partner_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut sftp = Sftp::ours(&[]);
    assert_eq!(sftp.open(&pipe, WRITE), Err(FAILURE));
    let handle = sftp.open(&pipe, READ).unwrap();
    assert_eq!(sftp.status(5, &[&handle, &[0; 8], &[0, 0, 0, 9]]), FAILURE);
}

#[test]
fn packets_that_are_cut_short_are_bad_messages() {
    let mut sftp = Sftp::ours(&[]);
    let two = [string(b"/nowhere/a"), string(b"/nowhere/b")].concat();
    let whole: [(u8, Vec<u8>); 6] = [
        (3, [string(b"/nowhere/a"), vec![0; 8]].concat()),
        (9, [string(b"/nowhere/a"), vec![0, 0, 0, 15], vec![0; 32]].concat()),
        (
            14,
            [string(b"/nowhere/a"), 0x8000_0000_u32.to_be_bytes().to_vec(), vec![0, 0, 0, 1], two.clone()]
                .concat(),
        ),
        (18, two.clone()),
        (20, two.clone()),
        (200, [string(b"posix-rename@openssh.com"), two].concat()),
    ];
    for (kind, fields) in whole {
        for length in 0..fields.len() {
            let cut = sftp.status(kind, &[&fields[..length]]);
            // A path that can be read may be looked for before the rest is found missing.
            assert!([BAD_MESSAGE, NO_SUCH_FILE, UNSUPPORTED].contains(&cut), "{kind} at {length}: {cut}");
            assert!(cut == BAD_MESSAGE || length > 12, "{kind} at {length}: {cut}");
        }
        assert_eq!(sftp.status(kind, &[&fields]), NO_SUCH_FILE, "{kind}");
    }
    let long = [&0xffff_ffff_u32.to_be_bytes()[..], b"/tmp"].concat();
    assert_eq!(sftp.status(17, &[&long]), BAD_MESSAGE, "a string longer than its packet");
    let endless = [&string(b"/nowhere/a")[..], &[0x80, 0, 0, 0], &[0xff; 4]].concat();
    assert_eq!(sftp.status(9, &[&endless]), BAD_MESSAGE, "4 thousand million extended attributes");
    for unknown in [0, 21, 99, 101, 104, 199, 201, 255] {
        assert_eq!(sftp.status(unknown, &[b"abc"]), UNSUPPORTED, "{unknown}");
    }
    assert!(matches!(sftp.ask(17, &[&string(b"/")]), Answer::Other(105, _)), "it is still in step");
}

#[test]
fn lengths_that_cannot_be_end_the_session() {
    let start_raw = || {
        let mut server = Command::new(env!("CARGO_BIN_EXE_myelin"));
        server.arg("sftp-server").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        server
    };
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    for bytes in [&[0, 0, 0, 0][..], &[0, 4, 0, 1], &[0x7f, 0xff, 0xff, 0xff], &[0xff; 4], &[0, 0, 0, 1, 17]]
    {
        let output = common::pipe_into(&mut start_raw(), &[&init[..], bytes, &[0; 300_000]].concat());
        assert_eq!(output.status.code(), Some(1), "{bytes:?}");
        assert!(text(&output.stderr).contains("packet"), "{bytes:?}: {}", text(&output.stderr));
        assert_eq!(output.stdout[4], 2, "what came before was answered");
    }
    let output = common::pipe_into(&mut start_raw(), &[0, 0, 0, 9, 17, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "a request before the version");
    let output = common::pipe_into(&mut start_raw(), &[&init[..], &[0, 0, 1, 0, 17, 0]].concat());
    assert_eq!(output.status.code(), Some(0), "an end in the middle of a packet is an end");
}

#[test]
fn noise_neither_ends_the_server_nor_makes_it_grow() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), random_bytes(300_000, 7)).unwrap();
    let mut sftp = Sftp::ours(&["--root", root.to_str().unwrap()]);
    let pid = sftp.server.id();
    let mut noise = random_bytes(6_000_000, 11).into_iter();
    let mut byte = move || noise.next().unwrap_or(0);
    let names = [&b"a"[..], b"/", b"..", b"d", b"\0", b"a/..", b"\xff", b""];
    for round in 0..60_000 {
        let kind = match byte() % 24 {
            n @ 3..=20 => n,
            21 => 200,
            22 => byte(),
            n => n + 3,
        };
        let mut packet = vec![kind, 0, 0, 0, 0];
        for _ in 0..byte() % 6 {
            match byte() % 5 {
                0 => packet.extend(string(names[usize::from(byte()) % names.len()])),
                1 => packet.extend(string(&[0, 0, 0, byte() % 70])),
                2 => packet.extend([0, 0, byte() % 2, byte()]),
                3 => packet.extend([byte(), byte(), byte(), byte()]),
                _ => packet.extend([0, 0, 0, 0, 0, 0, byte() % 4, byte()]),
            }
        }
        sftp.id += 1;
        packet[1..5].copy_from_slice(&sftp.id.to_be_bytes());
        if kind == 1 {
            continue;
        }
        sftp.send(&packet);
        sftp.answer();
        if round == 1000 {
            let _ = sftp.open(Path::new("/a"), READ);
        }
    }
    let peak = status_kib(pid, "VmHWM");
    assert!(peak < 16 << 10, "it used {peak} KiB");
    assert_eq!(sftp.end(), Some(0));
    let outside: Vec<_> =
        fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(outside, ["root"]);
}

#[test]
fn below_a_root_there_is_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(folder.path().join("secret"), "outside").unwrap();
    fs::write(root.join("file"), "inside").unwrap();
    symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
    symlink("../../secret", root.join("sub/up")).unwrap();
    let mut sftp = Sftp::ours(&["--root", root.to_str().unwrap(), "-d", "/sub"]);
    assert_eq!(name_in(&sftp.reply(16, &[&string(b".")])), "/sub");
    assert_eq!(name_in(&sftp.reply(16, &[&string(b"../../..")])), "/");
    for path in ["/etc/passwd", "../../secret", "/absolute", "up", "/sub/up", "../../../../etc/passwd"] {
        let path = string(path.as_bytes());
        assert_eq!(sftp.status(17, &[&path]), NO_SUCH_FILE);
        assert_eq!(sftp.status(3, &[&path, &READ.to_be_bytes(), &NO_ATTRIBUTES]), NO_SUCH_FILE);
        assert_eq!(sftp.status(9, &[&path, &[0, 0, 0, 4, 0, 0, 1, 0xff]]), NO_SUCH_FILE);
    }
    let to_outside = [string(b"/file"), string(b"../../../taken")].concat();
    assert_eq!(sftp.status(18, &[&to_outside]), OK);
    assert!(root.join("taken").exists(), "above the root is the root");
    assert_eq!(name_in(&sftp.reply(19, &[&string(b"up")])), "../../secret", "a link's text is its own");
    let home = sftp.extended("expand-path@openssh.com", &[&string(b"~/x")]);
    assert!(matches!(home, Answer::Other(104, body) if name_in(&body) == "/sub/x"));
    // Of the folder above the root not even the attributes are shown.
    let listing = sftp.reply(11, &[&string(b"/")]);
    let names = sftp.reply(12, &[&listing]);
    let mut fields = Fields(&names[4..]);
    let (dot, _, dot_attributes) = (fields.text(), fields.text(), fields.take(32).to_vec());
    let (dots, _, dots_attributes) = (fields.text(), fields.text(), fields.take(32).to_vec());
    assert_eq!((&dot[..], &dots[..]), (".", ".."));
    assert_eq!(dot_attributes, dots_attributes);

    let missing = folder.path().join("missing");
    let output = Command::new(env!("CARGO_BIN_EXE_myelin"))
        .args(["sftp-server", "--root", missing.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("sftp_root"), "{}", text(&output.stderr));
}

#[test]
fn two_clients_write_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let mut clients = [Sftp::ours(&[]), Sftp::ours(&[])];
    let handles: Vec<_> = clients.iter_mut().map(|sftp| sftp.open(&file, WRITE | CREATE).unwrap()).collect();
    for n in 0..200_u64 {
        for (which, sftp) in (0_u8..).zip(&mut clients) {
            let offset = (n * 2 + u64::from(which)) * 1000;
            let data = string(&[which + 1; 1000]);
            assert_eq!(sftp.status(6, &[&handles[usize::from(which)], &offset.to_be_bytes(), &data]), OK);
        }
    }
    let written = fs::File::open(&file).unwrap();
    let mut block = [0; 1000];
    for n in 0..400 {
        written.read_exact_at(&mut block, n * 1000).unwrap();
        assert_eq!(block, [u8::try_from(n % 2).unwrap() + 1; 1000], "{n}");
    }
}
