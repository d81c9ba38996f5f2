//! Users of the system (`user_mode`, `run_as`), with the clients of OpenSSH; where there is a choice, the same is asked
//! of OpenSSH's sshd in the same place.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::place::{ADA, BOB, HASH, by_key, inside, place, ssh, system};
use common::{Device, banner, free_port, new_key, pipe_into, text, wait_until};

/// OpenSSH's daemon in the place of a device.
struct Sshd {
    port: u16,
    daemon: Child,
}

impl Sshd {
    /// The key of the device opens every account, unless `config` names other files.
    fn start(device: &Device, config: &str) -> Self {
        let here = device.folder.path();
        let port = free_port();
        let host = here.join("sshd_host");
        if !host.exists() {
            new_key(&host);
        }
        fs::copy(here.join("key.pub"), here.join("keys")).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nUsePAM no\nPidFile none\n{config}\nStrictModes no\n\
             AuthorizedKeysFile {}\nSubsystem sftp internal-sftp\nPermitRootLogin yes\n",
            host.display(),
            here.join("keys").display()
        );
        let path = here.join(format!("sshd_config.{port}"));
        fs::write(&path, text).unwrap();
        let daemon = Command::new("nsenter")
            .args(["-t", &device.daemon.id().to_string(), "-m", "/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .stderr(fs::File::create(here.join("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let sshd = Self { port, daemon };
        wait_until("sshd answers", || banner(port).is_some());
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn ssh_by(device: &Device, port: u16, user: &str, key: &Path) -> Output {
    by_key(device, port, user, key).output().unwrap()
}

#[track_caller]
fn said(output: &Output, expected: &str) {
    assert_eq!(text(&output.stdout), expected, "{output:?}");
}

fn is_refused(output: &Output) -> bool {
    output.status.code() == Some(255) && text(&output.stderr).contains("Permission denied")
}

#[test]
fn sessions_are_those_of_their_user() {
    let Some(device) = system("") else { return };
    let sshd = Sshd::start(&device, "");
    let script = "id -un; id -u; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL; grep -E '^(Uid|Gid|Groups|CapEff)' \
                  /proc/self/status; cat /proc/self/oom_score_adj; umask; readlink /proc/self/fd/3";
    for user in ["ada", "bob", "root"] {
        let [ours, theirs] = [device.port, sshd.port]
            .map(|port| text(&ssh(&device, port, user, &[]).arg(script).output().unwrap().stdout));
        assert_eq!(ours, theirs, "{user}");
        if user == "ada" {
            let begin = "ada\n2001\n2001 2100 2101\n/home/ada\n/home/ada ada ada /bin/sh\nUid:\t2001\t2001\t2001\t2001\n";
            assert!(ours.starts_with(begin), "{ours}");
            assert!(ours.contains("CapEff:\t0000000000000000"), "{ours}");
        }
    }
    for (port, which) in [(device.port, "ours"), (sshd.port, "sshd")] {
        for (user, name) in [("ada", "-sh"), ("bob", "-bash")] {
            let shell = pipe_into(&mut ssh(&device, port, user, &["-T"]), b"echo $0; id -un\n");
            assert!(text(&shell.stdout).ends_with(&format!("{name}\n{user}\n")), "{which}: {shell:?}");
        }
        for command in [&["true"][..], &[]] {
            let no = ssh(&device, port, "files", &["-T"]).args(command).output().unwrap();
            assert_eq!(no.status.code(), Some(1), "{which}: {no:?}");
            assert!(text(&no.stdout).contains("not available"), "{which}: {no:?}");
            let no = ssh(&device, port, "false", &["-T"]).args(command).output().unwrap();
            assert_eq!((no.status.code(), &*text(&no.stdout)), (Some(1), ""), "{which}: {no:?}");
        }
        let homeless = ssh(&device, port, "homeless", &[]).arg("pwd; id -un").output().unwrap();
        said(&homeless, "/\nhomeless\n");
        assert!(text(&homeless.stderr).contains("/home/nowhere"), "{which}: {homeless:?}");
    }
    // Nothing of ours is open for them.
    let open = ssh(&device, device.port, "ada", &[]).arg("ls /proc/self/fd | wc -l").output().unwrap();
    let theirs = ssh(&device, sshd.port, "ada", &[]).arg("ls /proc/self/fd | wc -l").output().unwrap();
    assert_eq!(text(&open.stdout), text(&theirs.stdout));
    let mut sleeper = ssh(&device, device.port, "ada", &[]).arg("sleep 1000").spawn().unwrap();
    wait_until("the list shows who is there", || {
        text(&device.myelin(&["sessions", "list"]).stdout).contains(" ada ")
    });
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    device.wait_for_log("user=\"ada\" kind=\"exec\"");
}

#[test]
fn a_configured_shell_counts_more_and_ends_with_its_client() {
    let Some(device) = system("shell = [\"/bin/sh\", \"-e\"]") else { return };
    let output = ssh(&device, device.port, "bob", &[]).arg("echo $SHELL $-").output().unwrap();
    assert!(text(&output.stdout).starts_with("/bin/sh e"), "{output:?}");
    let allowed = ssh(&device, device.port, "files", &[]).arg("id -un").output().unwrap();
    said(&allowed, "files\n");
    // The death of the worker ends the sessions of other users too.
    let mut client = ssh(&device, device.port, "bob", &[]).arg("exec sleep 7654321").spawn().unwrap();
    let mut pid = None;
    wait_until("it runs", || {
        let all = common::descendants(device.daemon.id());
        pid = all.iter().find(|(_, line)| line == "sleep 7654321").map(|(pid, _)| *pid);
        pid.is_some()
    });
    let line = format!("/proc/{}/cmdline", pid.unwrap());
    common::signal(device.worker(), "KILL");
    wait_until("it has ended", || fs::read(&line).map_or(true, |line| line.is_empty()));
    client.wait().unwrap();
}

#[test]
fn who_is_no_user_learns_nothing() {
    let ca = "trusted_user_ca_keys = [\"HERE/ca.pub\"]";
    let passwords = "[ssh.users.ada]\npassword_hash = \"HASH\"\n[ssh.users.ghost]\npassword_hash = \"HASH\"";
    for (more, methods) in [
        ("deny_users = [\"b?b\"]", "publickey"),
        (ca, "publickey"),
        (passwords, "publickey,keyboard-interactive,password"),
        ("[ssh.users.ghost]\npassword_hash = \"HASH\"", "publickey"),
    ] {
        let Some(device) = system(&more.replace("HASH", HASH)) else { return };
        let other = device.path("other");
        new_key(&other);
        if more == ca {
            new_key(&device.path("ca"));
            let path = device.path("ca.pub").display().to_string();
            let config = fs::read_to_string(device.config()).unwrap().replace("HERE/ca.pub", &path);
            fs::write(device.config(), config).unwrap();
            common::signal(device.worker(), "HUP");
            device.wait_for_log("configuration read again");
        }
        let heard = |user: &str, method: &str| {
            let mut command = ssh(&device, device.port, user, &["-v", "-o", "LogLevel=VERBOSE"]);
            let method = format!("PreferredAuthentications={method}");
            let output = command.args(["-o", &method, "-i"]).arg(&other).arg("true").output().unwrap();
            let lines = text(&output.stderr);
            let told =
                |line: &&str| line.contains("Authentications that") || line.contains("Permission denied");
            lines.lines().filter(told).map(|line| line.replace(user, "USER")).collect::<Vec<_>>()
        };
        for user in ["ghost", "locked"] {
            let by_key = ssh_by(&device, device.port, user, &other);
            assert!(is_refused(&by_key), "{by_key:?}");
            // Not even with the key that opens every account.
            assert!(is_refused(&ssh(&device, device.port, user, &[]).arg("true").output().unwrap()));
            let none = heard(user, "none");
            assert_eq!(none, heard("ada", "none"), "{user}");
            assert!(none.iter().any(|line| line.ends_with(&format!("({methods})."))), "{none:?}");
        }
        let offered = |user: &str| {
            let key = format!("IdentityFile={}", other.display());
            let mut command = Command::new("ssh");
            command.args(["-v", "-F", "none", "-o", &key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
            command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
            command.args(["-p", &device.port.to_string(), &format!("{user}@127.0.0.1"), "true"]);
            let output = command.stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK").output().unwrap();
            text(&output.stderr).matches("Server accepts key").count()
        };
        // Where there is an authority every key may turn out to have a certificate.
        let expected = usize::from(more == ca);
        assert_eq!(["ada", "ghost", "locked"].map(offered), [expected; 3], "{more}");
        // One refusal a second has a line in the log.
        for (user, reason) in [("ghost", "no such user"), ("locked", "the account is locked")] {
            wait_until(reason, || {
                ssh_by(&device, device.port, user, &other);
                device.log().contains(reason)
            });
        }
        if more.contains("deny") {
            wait_until("a user is denied", || {
                assert!(is_refused(&ssh(&device, device.port, "bob", &[]).arg("true").output().unwrap()));
                device.log().contains("user in deny_users")
            });
        }
    }
}

#[test]
fn names_are_allowed_and_denied_by_patterns_in_either_mode() {
    for mode in ["single", "system"] {
        let settings =
            format!("user_mode = \"{mode}\"\nallow_users = [\"a*\", \"root\"]\ndeny_users = [\"*t\"]");
        let Some(device) = place("", &settings, "") else { return };
        for (user, may) in [("ada", true), ("bob", false), ("root", false)] {
            let output = ssh(&device, device.port, user, &[]).arg("true").output().unwrap();
            assert_eq!(output.status.code(), Some(if may { 0 } else { 255 }), "{mode} {user}: {output:?}");
        }
    }
}

#[test]
fn a_users_own_file_opens_his_account_and_no_other() {
    let Some(device) = system("authorized_keys_file = [\"%h/.ssh/authorized_keys\"]") else { return };
    let sshd = Sshd::start(&device, "AuthorizedKeysFile %h/.ssh/authorized_keys\nStrictModes yes");
    let keys = ["ada", "bob"].map(|user| {
        let key = device.path(&format!("key_of_{user}"));
        let public = new_key(&key);
        let path = inside(&device, &format!("/home/{user}/.ssh/authorized_keys"));
        fs::write(&path, public + "\n").unwrap();
        let uid = if user == "ada" { ADA } else { BOB };
        chown(&path, Some(uid), Some(uid)).unwrap();
        key
    });
    let [ada, bob] = &keys;
    let ports = [(device.port, "ours"), (sshd.port, "sshd")];
    for (port, which) in ports {
        said(&ssh_by(&device, port, "ada", ada), "ada\n");
        said(&ssh_by(&device, port, "bob", bob), "bob\n");
        for (user, key) in [("bob", ada), ("ada", bob), ("root", ada), ("locked", ada), ("ghost", ada)] {
            assert!(is_refused(&ssh_by(&device, port, user, key)), "{which}: {user}");
        }
    }
    // What others could change does not count.
    let (home, folder) = (inside(&device, "/home/ada"), inside(&device, "/home/ada/.ssh"));
    let file = folder.join("authorized_keys");
    for path in [&home, &folder, &file] {
        let mode = fs::metadata(path).unwrap().mode() & 0o777;
        for loose in [mode | 0o020, mode | 0o002] {
            fs::set_permissions(path, fs::Permissions::from_mode(loose)).unwrap();
            for (port, which) in ports {
                // Debian's sshd trusts a group that is the user's alone.
                if which == "sshd" && loose & 0o002 == 0 {
                    continue;
                }
                assert!(
                    is_refused(&ssh_by(&device, port, "ada", ada)),
                    "{which}: {} {loose:o}",
                    path.display()
                );
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chown(path, Some(BOB), None).unwrap();
        for (port, which) in ports {
            assert!(is_refused(&ssh_by(&device, port, "ada", ada)), "{which}: {} of bob", path.display());
        }
        chown(path, Some(ADA), None).unwrap();
        for (port, _) in ports {
            said(&ssh_by(&device, port, "ada", ada), "ada\n");
        }
    }
    device.wait_for_log("others than its user and root may change");
    // A link counts as what it leads to, and what the user may not read he cannot use.
    let elsewhere = folder.join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink("elsewhere", &file).unwrap();
    for (port, _) in ports {
        said(&ssh_by(&device, port, "ada", ada), "ada\n");
    }
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&elsewhere, Some(0), Some(0)).unwrap();
    for (port, which) in ports {
        assert!(is_refused(&ssh_by(&device, port, "ada", ada)), "{which}: a file of root's");
    }
    // Neither a pipe nor a device is read, nor waited for.
    for command in ["mkfifo", "ln -s /dev/zero", "mkdir"] {
        fs::remove_file(&file).unwrap();
        let made = Command::new("sh").args(["-c", &format!("{command} \"$0\"")]).arg(&file).status().unwrap();
        assert!(made.success());
        assert!(is_refused(&ssh_by(&device, device.port, "ada", ada)), "{command}");
    }
    // The image's keys open all of them still.
    for user in ["ada", "bob", "root"] {
        said(&ssh_by(&device, device.port, user, &device.path("key")), &format!("{user}\n"));
    }
}

#[test]
fn strict_modes_can_be_switched_off_and_keys_by_name_kept_elsewhere() {
    let Some(device) = system("strict_modes = false\nauthorized_keys_file = [\"/home/keys-%U-%%-%u\"]")
    else {
        return;
    };
    let key = device.path("own");
    let public = new_key(&key);
    let file = inside(&device, "/home/keys-2001-%-ada");
    fs::write(&file, format!("command=\"echo forced\" {public}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    said(&ssh_by(&device, device.port, "ada", &key), "forced\n");
    assert!(is_refused(&ssh_by(&device, device.port, "bob", &key)));
    // A key that is revoked opens nothing, wherever it stands.
    let path = device.path("state/ssh/revoked_keys");
    fs::write(path, public).unwrap();
    assert!(is_refused(&ssh_by(&device, device.port, "ada", &key)));
    // What the commands add is for everybody.
    let added = new_key(&device.path("added"));
    assert!(device.myelin(&["keys", "add", &added]).status.success());
    for user in ["ada", "root"] {
        said(&ssh_by(&device, device.port, user, &device.path("added")), &format!("{user}\n"));
    }
}

#[test]
fn certificates_are_for_the_users_that_they_name() {
    let Some(device) = system("") else { return };
    let (ca, key) = (device.path("ca"), device.path("holder"));
    let authority = new_key(&ca);
    new_key(&key);
    let mut signed = Command::new("ssh-keygen");
    signed.args(["-q", "-s"]).arg(&ca).args(["-I", "x", "-n", "ada,ghost"]);
    assert!(signed.arg(key.with_extension("pub")).status().unwrap().success());
    let path = device.path("state/ssh/authorized_keys");
    fs::write(path, format!("cert-authority {authority}\n")).unwrap();
    said(&ssh_by(&device, device.port, "ada", &key), "ada\n");
    for user in ["bob", "root", "ghost"] {
        assert!(is_refused(&ssh_by(&device, device.port, user, &key)), "{user}");
    }
}

/// One of the programs that copy files, by a port.
fn copier(device: &Device, program: &str, port: u16, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", program]).args(device.ssh_options()).args(["-P", &port.to_string()]).args(arguments);
    command.stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK").output().unwrap()
}

fn owner(path: &Path) -> Option<(u32, u32)> {
    fs::metadata(path).ok().map(|file| (file.uid(), file.gid()))
}

#[test]
fn files_are_read_and_written_as_their_user() {
    // Without the machine's scp, ours is used.
    let hide = "mount --bind /dev/null \"$(command -v scp)\"";
    for (script, which) in [("", "the image's scp"), (hide, "our scp")] {
        let Some(device) = place(script, "user_mode = \"system\"", "") else { return };
        let sshd = script.is_empty().then(|| Sshd::start(&device, ""));
        let local = device.path("local");
        fs::write(&local, "content").unwrap();
        let local = local.to_str().unwrap();
        fs::write(inside(&device, "/home/secret"), "of root").unwrap();
        fs::set_permissions(inside(&device, "/home/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        for port in [Some(device.port), sshd.as_ref().map(|sshd| sshd.port)].into_iter().flatten() {
            for options in [&["-q"][..], &["-q", "-O"]] {
                let back = device.path("back").display().to_string();
                let scp =
                    |from: &str, to: &str| copier(&device, "scp", port, &[options, &[from, to]].concat());
                let put = scp(local, "ada@127.0.0.1:put");
                assert!(put.status.success(), "{which} {options:?}: {put:?}");
                let file = inside(&device, "/home/ada/put");
                assert_eq!(owner(&file), Some((ADA, ADA)), "{which} {options:?}");
                assert!(scp("ada@127.0.0.1:put", &back).status.success(), "{which} {options:?}");
                for (from, to) in [
                    ("ada@127.0.0.1:/home/secret", back.as_str()),
                    ("ada@127.0.0.1:/etc/shadow", back.as_str()),
                    (local, "ada@127.0.0.1:/home/bob/put"),
                    (local, "ada@127.0.0.1:/etc/put"),
                ] {
                    let refused = scp(from, to);
                    assert!(!refused.status.success(), "{which} {options:?} {from} {to}: {refused:?}");
                }
                assert_eq!(fs::read_to_string(&back).unwrap(), "content");
                fs::remove_file(file).unwrap();
            }
            // A user without a shell has his files all the same.
            for user in ["ada", "files"] {
                let batch = device.path("batch");
                fs::write(
                    &batch,
                    format!("pwd\nput {local} put\nmkdir folder\n-get /home/secret\n-rm /etc/passwd\n"),
                )
                .unwrap();
                let arguments = ["-b", batch.to_str().unwrap(), &format!("{user}@127.0.0.1")];
                let output = copier(&device, "sftp", port, &arguments);
                assert!(output.status.success(), "{which}: {output:?}");
                assert!(text(&output.stdout).contains(&format!("directory: /home/{user}\n")), "{output:?}");
                assert_eq!(
                    text(&output.stderr).matches("ermission denied").count(),
                    2,
                    "{which}: {output:?}"
                );
                let uid = if user == "ada" { ADA } else { 2003 };
                for name in ["put", "folder"] {
                    let path = inside(&device, &format!("/home/{user}/{name}"));
                    assert_eq!(owner(&path), Some((uid, uid)), "{which}");
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                }
            }
            let line = format!("ssh {} -p {port}", device.ssh_options().join(" "));
            let rsync = |from: &str, to: &str| {
                let mut command = Command::new("timeout");
                command
                    .args(["60", "rsync", "-a", "-e", &line, from, to])
                    .stdin(Stdio::null())
                    .output()
                    .unwrap()
            };
            let up = rsync(local, "ada@127.0.0.1:synced");
            assert!(up.status.success(), "{which}: {up:?}");
            assert_eq!(owner(&inside(&device, "/home/ada/synced")), Some((ADA, ADA)));
            assert!(
                !rsync("ada@127.0.0.1:/home/secret", device.path("x").to_str().unwrap()).status.success()
            );
        }
    }
}

#[test]
fn a_root_for_files_holds_users_too() {
    let Some(device) = system("sftp_root = \"/home/ada\"") else { return };
    symlink("/etc", inside(&device, "/home/ada/out")).unwrap();
    let batch = device.path("batch");
    fs::write(&batch, "pwd\n-get /etc/passwd\n-get ../../etc/passwd\n-get out/passwd\nmkdir in\n").unwrap();
    let output = copier(&device, "sftp", device.port, &["-b", batch.to_str().unwrap(), "ada@127.0.0.1"]);
    assert!(output.status.success() && text(&output.stdout).contains("directory: /\n"), "{output:?}");
    assert_eq!(text(&output.stderr).matches("not found").count(), 3, "{output:?}");
    assert_eq!(owner(&inside(&device, "/home/ada/in")), Some((ADA, ADA)));
    let output = copier(&device, "sftp", device.port, &["-b", batch.to_str().unwrap(), "bob@127.0.0.1"]);
    assert!(!output.status.success() && text(&output.stderr).contains("ermission denied"), "{output:?}");
}

#[test]
fn a_terminal_belongs_to_its_user() {
    let Some(device) = system("") else { return };
    let sshd = Sshd::start(&device, "");
    for (port, which) in [(device.port, "ours"), (sshd.port, "sshd")] {
        for user in ["ada", "root"] {
            let command = "stat -c '%U %G %a' \"$(tty)\"; test -r $(tty) && test -w $SSH_TTY && echo mine";
            let output = ssh(&device, port, user, &["-tt"]).arg(command).output().unwrap();
            assert_eq!(text(&output.stdout), format!("{user} tty 620\r\nmine\r\n"), "{which}: {output:?}");
        }
    }
}

#[test]
fn ports_and_sockets_of_root_are_for_root() {
    let settings = "allow_tcp_forwarding = \"all\"\nallow_stream_local_forwarding = \"all\"\n\
                    permit_socket = [\"/home/*\", \"/home/*/*\"]";
    let Some(device) = system(settings) else { return };
    let sshd = Sshd::start(&device, "");
    let forward = |port: u16, user: &str, what: &str| {
        let options = ["-o", "ExitOnForwardFailure=yes", "-R", what];
        ssh(&device, port, user, &options).arg("true").output().unwrap().status.code()
    };
    // A port below 1024 that nobody has.
    let low = (600..1024).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let low = format!("{}:127.0.0.1:9", low.unwrap());
    for (port, which) in [(device.port, "ours"), (sshd.port, "sshd")] {
        assert_eq!(forward(port, "ada", &low), Some(255), "{which}");
        assert_eq!(forward(port, "root", &low), Some(0), "{which}");
        assert_eq!(forward(port, "ada", "0:127.0.0.1:9"), Some(0), "{which}");
    }
    device.wait_for_log("ports below 1024 are root's");
    assert_eq!(forward(device.port, "ada", "/home/ada/socket:127.0.0.1:9"), Some(255));
    assert!(!inside(&device, "/home/ada/socket").exists());
    assert_eq!(forward(device.port, "root", "/home/socket:127.0.0.1:9"), Some(0));
    device.wait_for_log("sockets of the file system are for root only");
    // The same the other way: nobody but root reaches this one.
    let secret = inside(&device, "/home/service");
    let listener = std::os::unix::net::UnixListener::bind(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    listener.set_nonblocking(true).unwrap();
    for (user, reaches) in [("ada", false), ("root", true)] {
        let local = device.path(&format!("local_{user}"));
        let what = format!("{}:/home/service", local.display());
        let mut client = ssh(&device, device.port, user, &["-N", "-L", &what]).spawn().unwrap();
        wait_until("the client listens", || std::os::unix::net::UnixStream::connect(&local).is_ok());
        if reaches {
            wait_until("root reaches it", || listener.accept().is_ok());
        } else {
            wait_until("it is refused", || {
                device.log().matches("sockets of the file system are").count() > 1
            });
            assert!(listener.accept().is_err());
        }
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn the_agent_is_behind_a_socket_of_its_user() {
    let Some(device) = system("allow_agent_forwarding = true") else { return };
    let sshd = Sshd::start(&device, "");
    let socket = device.path("agent");
    let _agent = Agent::start(&socket);
    let added =
        Command::new("ssh-add").arg("-q").arg(device.path("key")).env("SSH_AUTH_SOCK", &socket).status();
    assert!(added.unwrap().success());
    let script =
        "ssh-add -l; stat -c '%U %a' $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); id -un; echo $SSH_AUTH_SOCK";
    let mut heard = Vec::new();
    for port in [device.port, sshd.port] {
        let mut command = ssh(&device, port, "ada", &["-A"]);
        let output = text(&command.env("SSH_AUTH_SOCK", &socket).arg(script).output().unwrap().stdout);
        heard.push(output.lines().take(4).map(|line| line.replace("755", "600")).collect::<Vec<_>>());
        assert!(output.starts_with("256 SHA256:"), "{output}");
    }
    // sshd leaves it to the folder.
    assert_eq!(heard[0][1..], ["ada 600", "ada 700", "ada"].map(String::from), "{heard:?}");
    assert_eq!(heard[0], heard[1]);
    // Two at once, and neither reaches the other's.
    let mut command = ssh(&device, device.port, "ada", &["-A"]);
    let mut ada =
        command.env("SSH_AUTH_SOCK", &socket).arg("echo $SSH_AUTH_SOCK > there; sleep 1000").spawn().unwrap();
    let there = inside(&device, "/home/ada/there");
    wait_until("it tells", || fs::read_to_string(&there).is_ok_and(|path| path.ends_with('\n')));
    let path = fs::read_to_string(&there).unwrap();
    let steal = format!(
        "SSH_AUTH_SOCK={} ssh-add -l; ls {}",
        path.trim(),
        Path::new(path.trim()).parent().unwrap().display()
    );
    let mut command = ssh(&device, device.port, "bob", &["-A"]);
    let stolen = command.env("SSH_AUTH_SOCK", &socket).arg(steal).output().unwrap();
    assert_eq!(text(&stolen.stdout), "", "{stolen:?}");
    assert!(text(&stolen.stderr).to_lowercase().contains("permission denied"), "{stolen:?}");
    ada.kill().unwrap();
    ada.wait().unwrap();
    wait_until("its socket is gone", || !Path::new(path.trim()).exists());
}

/// A real ssh-agent, for as long as this lives.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(socket).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Self(agent.spawn().unwrap());
        wait_until("the agent is there", || socket.exists());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration with a fwup that takes everything and says so in the file `pushed`.
fn with_fwup(more_ssh: &str) -> Option<Device> {
    let script = "printf '#!/bin/sh\\ncat > /home/pushed; printf \"\\\\032\\\\000\"\\n' > /home/fwup; chmod 755 /home/fwup";
    let firmware = "[firmware]\nfwup = \"/home/fwup\"\ndevpath = \"/home/disk\"\nenv_file = \"/home/env\"\n\
                    success_action = \"none\"\n";
    let device = place(&format!("{script}; : > /home/disk"), more_ssh, firmware)?;
    Some(device)
}

#[test]
fn updates_are_for_root_and_those_who_are_named() {
    let push = |device: &Device, user: &str| {
        pipe_into(ssh(device, device.port, user, &["-s"]).arg("fwup"), b"firmware")
    };
    let Some(device) = with_fwup("user_mode = \"system\"") else { return };
    let pushed = inside(&device, "/home/pushed");
    let refused = push(&device, "ada");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("firmware_users"), "{refused:?}");
    let status = ssh(&device, device.port, "ada", &["-s"]).arg("myelin-status").output().unwrap();
    assert_eq!((status.status.code(), &*text(&status.stdout)), (Some(1), ""), "{status:?}");
    assert!(!pushed.exists());
    let by_root = push(&device, "root");
    assert_eq!(by_root.status.code(), Some(0), "{by_root:?}");
    assert_eq!(fs::read(&pushed).unwrap(), b"firmware");
    let Some(device) = with_fwup("user_mode = \"system\"\nfirmware_users = [\"ada\"]") else { return };
    assert_eq!(push(&device, "bob").status.code(), Some(1));
    for user in ["ada", "root"] {
        let status = ssh(&device, device.port, user, &["-s"]).arg("myelin-status").output().unwrap();
        assert!(status.status.success(), "{status:?}");
        let output = push(&device, user);
        assert_eq!(output.status.code(), Some(0), "{user}: {output:?}");
    }
}

#[test]
fn one_user_for_all_names() {
    let Some(device) = with_fwup("run_as = \"ada\"\nallow_tcp_forwarding = \"all\"") else { return };
    for name in ["root", "ghost", "locked"] {
        let output = ssh(&device, device.port, name, &[])
            .arg("id -un; id -G; pwd; echo $USER $SHELL")
            .output()
            .unwrap();
        said(&output, "ada\n2001 2100 2101\n/home/ada\nada /bin/sh\n");
    }
    let batch = device.path("batch");
    fs::write(&batch, "pwd\nmkdir /home/ada/made\n-get /etc/shadow\n").unwrap();
    let output = copier(&device, "sftp", device.port, &["-b", batch.to_str().unwrap(), "root@127.0.0.1"]);
    assert!(text(&output.stdout).contains("directory: /\n"), "{output:?}");
    assert!(text(&output.stderr).contains("ermission denied"), "{output:?}");
    assert_eq!(owner(&inside(&device, "/home/ada/made")), Some((ADA, ADA)));
    let low = ["-o", "ExitOnForwardFailure=yes", "-R", "1:127.0.0.1:9"];
    assert_eq!(
        ssh(&device, device.port, "root", &low).arg("true").output().unwrap().status.code(),
        Some(255)
    );
    // Whoever gets in may update.
    let pushed = pipe_into(ssh(&device, device.port, "x", &["-s"]).arg("fwup"), b"firmware");
    assert_eq!(pushed.status.code(), Some(0), "{pushed:?}");
    // A user that is not there runs nothing, and keeps nobody from an update.
    let Some(device) = with_fwup("run_as = \"ghost\"") else { return };
    let output = device.run("id");
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(126), ""), "{output:?}");
    assert!(text(&output.stderr).contains("run_as"), "{output:?}");
    let batch = ["-b", "/dev/null", "root@127.0.0.1"];
    assert!(!copier(&device, "sftp", device.port, &batch).status.success());
    assert_eq!(device.push(b"firmware").status.code(), Some(0));
}

/// A login of OpenSSH that has this password and no key.
fn by_password(device: &Device, user: &str, password: &str) -> Output {
    let ask = device.path("askpass");
    fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$ASKED\"\n").unwrap();
    fs::set_permissions(&ask, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no"]);
    command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"]);
    command.args(["-p", &device.port.to_string(), &format!("{user}@127.0.0.1"), "id -un"]);
    command.env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force").env("ASKED", password);
    command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_passwords_of_the_system_count_where_it_is_said() {
    let Some(device) = system("shadow_passwords = true") else { return };
    said(&by_password(&device, "ada", "secret"), "ada\n");
    for (user, password) in [
        ("ada", "Secret"),
        ("bob", ""),
        ("bob", "*"),
        ("locked", "secret"),
        ("crypt", "a"),
        ("ghost", "secret"),
    ] {
        let output = by_password(&device, user, password);
        assert!(is_refused(&output), "{user}: {output:?}");
    }
    wait_until("the log has the reason", || {
        by_password(&device, "crypt", "a");
        device.log().contains("of a kind that cannot be checked here")
    });
    assert!(!device.log().contains("$6$") && !device.log().contains("$y$"));
    let Some(device) = system("") else { return };
    let output = by_password(&device, "ada", "secret");
    assert!(text(&output.stderr).contains("(publickey)"), "{output:?}");
    let Some(device) = place("", "shadow_passwords = true", "") else { return };
    let output = by_password(&device, "ada", "secret");
    assert!(text(&output.stderr).contains("(publickey)"), "there are no users of the system: {output:?}");
}

#[test]
fn a_daemon_without_roots_rights_has_one_user() {
    // The folder is its own, and so is what it keeps there.
    let become_ada = "chown -R ada:ada $here; set -- setpriv --reuid ada --regid ada --init-groups \"$@\"";
    let Some(device) = place(become_ada, "user_mode = \"system\"", "") else { return };
    said(
        &ssh(&device, device.port, "ada", &[]).arg("id -un; echo $SHELL").output().unwrap(),
        "ada\n/bin/sh\n",
    );
    for user in ["bob", "root"] {
        assert!(is_refused(&ssh(&device, device.port, user, &[]).arg("true").output().unwrap()), "{user}");
    }
    device.wait_for_log("only its own user can log in");
}
