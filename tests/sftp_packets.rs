//! SFTP packet by packet: what each request does, and that OpenSSH's server does the same.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::random_bytes;
use common::sftp::*;

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
