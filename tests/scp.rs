//! scp's old protocol (`scp -O`): with the scp of the image, and on an image that has none.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use common::transfer::{client, described, new_tree, succeeded};
use common::{
    Device, descendants, new_folder, pipe_into, random_bytes, signal, text, wait_at_most, wait_until,
};

/// A daemon for which the machine's scp is no program.
fn without_scp() -> Option<Device> {
    let script = "mount --make-rprivate / && mount --bind /dev/null \"$(command -v scp)\" && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", script, "sh"];
    let possible = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output().unwrap();
    if !possible.status.success() {
        eprintln!("SKIPPED: the built-in scp is not tested, this needs root: {}", text(&possible.stderr));
        return None;
    }
    let (folder, public) = new_folder();
    let device = Device::start_wrapped(folder, &wrapper, &public, "", "");
    device.wait_until_it_answers();
    assert!(!device.run("command -v scp").status.success(), "it is hidden");
    Some(device)
}

/// The image's scp, to know that the test is right, and ours.
fn both() -> Vec<(&'static str, Device)> {
    let image = ("the image's", Device::start("", ""));
    [Some(image), without_scp().map(|device| ("ours", device))].into_iter().flatten().collect()
}

fn scp(device: &Device, options: &[&str], from: &str, to: &str) -> Output {
    let mut command = client(device, "scp", &["-O", "-q"]);
    Command::new("timeout")
        .arg("60")
        .arg("scp")
        .args(command.args(options).args([from, to]).get_args())
        .output()
        .unwrap()
}

fn remote(path: &Path) -> String {
    format!("root@127.0.0.1:{}", path.display())
}

#[test]
fn trees_are_copied_both_ways() {
    for (name, device) in both() {
        let (source, there, back) = (device.path("source"), device.path("there"), device.path("back"));
        new_tree(&source);
        // Its lines cannot hold such a name.
        fs::remove_file(source.join("new\nline")).unwrap();
        Command::new("touch").args(["-d", "2001-02-03 04:05:06"]).arg(&source).status().unwrap();
        succeeded(&scp(&device, &["-rp"], source.to_str().unwrap(), &remote(&there)), name);
        assert_eq!(described(&there), described(&source), "{name}: up");
        succeeded(&scp(&device, &["-rp"], &remote(&there), back.to_str().unwrap()), name);
        assert_eq!(described(&back), described(&source), "{name}: down");
        // Once more over what is there already, into the folder.
        succeeded(&scp(&device, &["-rp"], source.to_str().unwrap(), &remote(&there)), name);
        assert_eq!(described(&there.join("source")), described(&source), "{name}: into a folder");
    }
}

#[test]
fn single_files_go_where_they_are_sent() {
    for (name, device) in both() {
        let (file, there) = (device.path("file"), device.path("there"));
        fs::create_dir(&there).unwrap();
        let big = random_bytes(5_000_001, 1);
        fs::write(&file, &big).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o757)).unwrap();
        let local = file.to_str().unwrap();
        succeeded(&scp(&device, &[], local, &remote(&there)), name);
        assert!(fs::read(there.join("file")).unwrap() == big, "{name}");
        let mode = |path: &str| fs::metadata(there.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("file"), 0o755, "{name}: less the umask");
        succeeded(&scp(&device, &[], local, &remote(&there.join("newname"))), name);
        assert!(fs::read(there.join("newname")).unwrap() == big, "{name}");
        // A longer file is cut, and keeps its mode.
        fs::write(&file, "short").unwrap();
        fs::set_permissions(there.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        succeeded(&scp(&device, &[], local, &remote(&there.join("file"))), name);
        assert_eq!(fs::read(there.join("file")).unwrap(), b"short", "{name}");
        assert_eq!(mode("file"), 0o640, "{name}");
        succeeded(&scp(&device, &["-p"], local, &remote(&there.join("kept"))), name);
        assert_eq!(mode("kept"), 0o757, "{name}");

        // Wildcards and variables are the shell's on the device.
        let got = device.path("got");
        fs::create_dir(&got).unwrap();
        succeeded(
            &scp(&device, &[], &format!("root@127.0.0.1:{}/*", there.display()), got.to_str().unwrap()),
            name,
        );
        assert_eq!(fs::read_dir(&got).unwrap().count(), 3, "{name}");
        assert!(fs::read(got.join("newname")).unwrap() == big, "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_and_the_rest_is_copied() {
    for (name, device) in both() {
        let (source, back) = (device.path("source"), device.path("back"));
        fs::create_dir_all(source.join("folder")).unwrap();
        fs::create_dir(&back).unwrap();
        fs::write(source.join("a"), "a").unwrap();
        fs::write(source.join("z"), "z").unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        let all = scp(&device, &["-r"], &remote(&source), back.to_str().unwrap());
        assert_eq!(all.status.code(), Some(1), "{name}");
        assert!(text(&all.stderr).contains("dangling: No such file"), "{name}: {}", text(&all.stderr));
        for file in ["a", "z", "folder"] {
            assert!(back.join("source").join(file).exists(), "{name}: {file}");
        }
        let local = source.join("a");
        let local = local.to_str().unwrap();
        for (options, from, to, words) in [
            (&[][..], remote(&source.join("none")), back.display().to_string(), "No such file or directory"),
            (&[], remote(&source), back.display().to_string(), "not a regular file"),
            (&[], local.into(), remote(Path::new("/no/such/folder/x")), "No such file or directory"),
            (&[], local.into(), remote(Path::new("/dev/full")), "No space left on device"),
            (&["-r"], source.display().to_string(), remote(&source.join("a")), "Not a directory"),
        ] {
            let output = scp(&device, options, &from, &to);
            assert_ne!(output.status.code(), Some(0), "{name}: {from} {to}");
            assert!(text(&output.stderr).contains(words), "{name}: {from} {to}: {}", text(&output.stderr));
        }
        device.assert_reachable();
    }
}

/// Lets a sender say `words` to `scp -t`, and gives what it answers.
fn say(device: &Device, options: &str, target: &Path, words: &[u8]) -> Output {
    pipe_into(device.ssh().arg(format!("scp {options} -t {}", target.display())), words)
}

#[test]
fn a_hostile_sender_stays_in_its_folder() {
    for (name, device) in both() {
        let target = device.path("target");
        fs::create_dir(&target).unwrap();
        let long = [b"C0644 1 ", &[b'x'; 100_000][..], b"\n"].concat();
        for words in [
            &b"C0644 4 ../evil\nevil\0"[..],
            b"C0644 4 /evil\nevil\0",
            b"C0644 4 ..\nevil\0",
            b"C0644 4 \nevil\0",
            b"D0755 0 ..\nC0644 4 evil\nevil\0E\n",
            b"D0755 0 .\nC0644 4 evil\nevil\0E\n",
            b"C0644 99999999999999999999 evil\nevil\0",
            b"C0644 -1 evil\nevil\0",
            b"Cxxxx 4 evil\nevil\0",
            b"C0644 4\n",
            b"T1 0\nC0644 4 evil\nevil\0",
            b"garbage of a shell\n",
            b"\n",
            b"C0644 4",
            &long,
        ] {
            let output = say(&device, "-r", &target, words);
            let shown = text(&words[..words.len().min(60)]);
            assert_eq!(output.status.code(), Some(1), "{name}: {shown}: {output:?}");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{name}: {shown}");
            assert!(!device.path("evil").exists(), "{name}: {shown}");
        }
        let no_folder = say(&device, "", &target, b"D0755 0 d\nE\n");
        assert_eq!(no_folder.status.code(), Some(1), "{name}");
        assert!(text(&no_folder.stdout).contains("without -r"), "{name}: {no_folder:?}");
        let file = device.path("config.toml");
        let output = say(&device, "-d", &file, b"C0644 4 evil\nevil\0");
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(text(&output.stdout).contains("Not a directory"), "{name}: {output:?}");
        // A good sender, word by word.
        let good = say(&device, "-rp", &target, b"T6 0 5 0\nD0750 0 d\nT8 0 7 0\nC0604 4 f\ngood\0E\n");
        assert_eq!((good.status.code(), &good.stdout[..]), (Some(0), &[0; 7][..]), "{name}: {good:?}");
        let (folder, file) =
            (fs::metadata(target.join("d")).unwrap(), fs::metadata(target.join("d/f")).unwrap());
        assert_eq!(folder.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(6), "{name}");
        assert_eq!(file.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(8), "{name}");
        assert_eq!((folder.permissions().mode() & 0o777, file.permissions().mode() & 0o777), (0o750, 0o604));
    }
}

#[test]
fn nothing_is_left_of_a_client_that_was_killed() {
    for (name, device) in both() {
        let worker = device.worker();
        let (large, local) = (device.path("large"), device.path("local"));
        fs::File::create(&large).unwrap().set_len(4 << 30).unwrap();
        let mut command = client(&device, "scp", &["-O", "-q"]);
        command.arg(remote(&large)).arg(&local).stderr(Stdio::null());
        let mut copy = command.spawn().unwrap();
        wait_until("it is under way", || fs::metadata(&local).is_ok_and(|file| file.len() > 1 << 20));
        assert!(!descendants(worker).is_empty(), "{name}");
        descendants(copy.id()).into_iter().for_each(|(pid, _)| signal(pid, "KILL"));
        copy.kill().unwrap();
        copy.wait().unwrap();
        wait_at_most(Duration::from_secs(20), "its scp is gone", &mut || descendants(worker).is_empty());
    }
}

#[test]
fn it_is_no_way_around_a_configuration_without_commands() {
    let device = Device::start("exec = \"disabled\"", "");
    let output = scp(&device, &[], &remote(Path::new("/etc/passwd")), device.path("got").to_str().unwrap());
    assert!(!output.status.success() && !device.path("got").exists());
}
