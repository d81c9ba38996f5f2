//! SFTP as no well-behaved client speaks it. Where OpenSSH's server can be asked the same, it is.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::sftp::*;
use common::{random_bytes, status_kib, text};

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
