//! The client that is built in, for what the system's ssh does by itself: logging in, known hosts, jump hosts. Against
//! OpenSSH's sshd and against our daemon; keys, agents and known_hosts files are made by OpenSSH's programs.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::scripted::{self, GOOD, STATUS, all, expect};
use common::terminal::Terminal;
use common::{Device, new_key, random_bytes, status_kib, text, wait_until};

/// A user of our daemon, whose password is `secret` (made by `openssl passwd -6`).
const ADA: &str = "[ssh.users.ada]\npassword_hash = \"$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.\"";
const SECRET: &str =
    "$6$saltsaltsalt$PMWE8DTlam1JU37Piyk43bHcMxTJq6sgu5DKB0/tGPjanN35jcY68QkpDfPFUGPWX5uCxIQkSPzMmqEiVNgts.";

/// A place to push to, and what belongs to it.
struct Place {
    port: u16,
    folder: PathBuf,
    _device: Kept,
}

/// What runs as long as the place is there.
enum Kept {
    Sshd(#[allow(dead_code)] scripted::Device),
    Ours(#[allow(dead_code)] Device),
}

impl Place {
    fn sshd(config: &str) -> Self {
        Self::sshd_in("cat >got; echo 'Success!'", config, &[])
    }

    fn sshd_in(fwup: &str, config: &str, wrapper: &[&str]) -> Self {
        let device = scripted::Device::start(fwup, &["--builtin"], &format!("{config}\n{STATUS}"), wrapper);
        Self { port: device.port, folder: device.folder.path().to_owned(), _device: Kept::Sshd(device) }
    }

    /// Our daemon, with the same script.
    fn ours(more_ssh: &str) -> Self {
        let (folder, public) = common::new_folder();
        let path = folder.path().to_owned();
        for name in ["user", "user.pub"] {
            let from = if name == "user" { "key" } else { "key.pub" };
            fs::copy(path.join(from), path.join(name)).unwrap();
        }
        new_key(&path.join("stranger"));
        scripted::firmware(&path.join("new.fw"), "board-x");
        let here = path.display();
        // Our own fwup takes no second update before a reboot; pushes to it are in another file.
        let script = format!("#!/bin/sh\ncd {here}\ncat >got\necho 'Success!'\n");
        fs::write(path.join("fwup"), script).unwrap();
        fs::set_permissions(path.join("fwup"), PermissionsExt::from_mode(0o755)).unwrap();
        let subsystem = format!("[ssh.subsystem]\nfwup = \"{here}/fwup\"");
        let device = Device::start_in(folder, &public, more_ssh, &subsystem);
        Self { port: device.port, folder: path, _device: Kept::Ours(device) }
    }

    fn both() -> [Self; 2] {
        [Self::sshd(""), Self::ours("")]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An upload without keys, agent or known hosts, and with these options.
    fn bare(&self, options: &[&str]) -> Command {
        self.with_hosts_in("known_hosts", options)
    }

    fn with_hosts_in(&self, file: &str, options: &[&str]) -> Command {
        let known = format!("UserKnownHostsFile={}", self.path(file).display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command
            .args(["upload", "--builtin", "--no-wait", "-p", &self.port.to_string()])
            .args(["-o", &known])
            .args(options)
            .args(["127.0.0.1", "new.fw"])
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("MYELIN_HOST")
            .stdin(Stdio::null())
            .current_dir(&self.folder);
        command
    }

    /// The same for whom hosts that are not known are no question.
    fn open(&self, options: &[&str]) -> Command {
        self.bare(&[&["-o", "StrictHostKeyChecking=accept-new"], options].concat())
    }

    /// The same with the right key.
    fn keyed(&self, options: &[&str]) -> Command {
        self.bare(&[&["-i", "user"], options].concat())
    }

    fn known_hosts(&self) -> String {
        format!("UserKnownHostsFile={}", self.path("known_hosts").display())
    }

    #[track_caller]
    fn got_the_file(&self) {
        assert!(fs::read(self.path("got")).unwrap() == fs::read(self.path("new.fw")).unwrap());
        fs::remove_file(self.path("got")).unwrap();
    }

    #[track_caller]
    fn works(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        expect(&output, 0, "Success!");
        self.got_the_file();
        all(&output)
    }

    #[track_caller]
    fn fails(&self, command: &mut Command, code: i32, words: &str) -> String {
        let output = command.output().unwrap();
        expect(&output, code, words);
        assert!(!self.path("got").exists(), "nothing was sent: {}", all(&output));
        all(&output)
    }

    /// Writes a known_hosts file of these lines; `KEY` is the key of the host, `OTHER` another of its type.
    fn knows(&self, lines: &str) {
        let key = |name: &str| {
            let words = fs::read_to_string(self.path(name)).unwrap();
            words.split(' ').take(2).collect::<Vec<_>>().join(" ")
        };
        let lines = lines.replace("HOST", &format!("[127.0.0.1]:{}", self.port));
        let lines = lines.replace("KEY", &key(self.host_key())).replace("OTHER", &key("stranger.pub"));
        fs::write(self.path("known_hosts"), lines).unwrap();
    }

    /// Lets this key in; gives the file and what stood in it.
    fn add_key(&self, name: &str) -> (PathBuf, String) {
        let public = fs::read_to_string(self.path(name)).unwrap();
        let (path, before) = match self._device {
            Kept::Sshd(_) => (self.path("user.pub"), fs::read_to_string(self.path("user.pub")).unwrap()),
            Kept::Ours(_) => (self.path("state/ssh/authorized_keys"), String::new()),
        };
        fs::write(&path, format!("{before}{public}")).unwrap();
        (path, before)
    }

    fn host_key(&self) -> &'static str {
        match self._device {
            Kept::Sshd(_) => "host.pub",
            Kept::Ours(_) => "state/ssh/ssh_host_ed25519_key.pub",
        }
    }

    fn fingerprint(&self) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.path(self.host_key())).output().unwrap();
        text(&output.stdout).split(' ').nth(1).unwrap().to_owned()
    }
}

fn keygen(args: &[&str], folder: &Path) -> Output {
    let output = Command::new("ssh-keygen").args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "ssh-keygen {args:?}: {}", all(&output));
    output
}

/// OpenSSH's agent with keys.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path, keys: &[&str]) -> Self {
        let socket = folder.join("agent");
        let process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-agent is installed (apt install openssh-client)");
        wait_until("the agent listens", || socket.exists());
        let added =
            Command::new("ssh-add").args(keys).env("SSH_AUTH_SOCK", &socket).current_dir(folder).output();
        let added = added.unwrap();
        assert!(added.status.success(), "{}", all(&added));
        Self { process, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// --- Keys ------------------------------------------------------------------------------------------------

#[test]
fn keys_of_every_type_get_in() {
    for place in Place::both() {
        for (kind, format) in [
            ("ed25519", "RFC4716"),
            ("ecdsa", "RFC4716"),
            ("rsa", "RFC4716"),
            ("rsa", "PEM"),
            ("ecdsa", "PKCS8"),
        ] {
            let _ = fs::remove_file(place.path("new"));
            let bits = if kind == "rsa" { "2048" } else { "256" };
            keygen(&["-q", "-t", kind, "-b", bits, "-m", format, "-N", "", "-f", "new"], &place.folder);
            let authorized = place.add_key("new.pub");
            let shown = place.works(&mut place.open(&["-i", "new", "-o", "BatchMode=yes"]));
            assert!(shown.contains("took the firmware"), "{kind} {format}: {shown}");
            fs::write(authorized.0, authorized.1).unwrap();
        }
    }
}

#[test]
fn a_stranger_is_5_and_sends_nothing() {
    for place in Place::both() {
        let shown = place.fails(&mut place.open(&["-i", "stranger"]), 5, "Permission denied (publickey");
        assert!(shown.contains("root@127.0.0.1: Permission denied"), "{shown}");
        place.fails(&mut place.open(&["-i", "not-there"]), 5, "not-there cannot be read");
        // The right key among wrong ones is found.
        place.works(&mut place.open(&["-i", "stranger", "-o", "IdentityFile=user"]));
    }
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let place = Place::sshd("");
    fs::set_permissions(place.path("user"), PermissionsExt::from_mode(0o640)).unwrap();
    place.fails(&mut place.open(&["-i", "user"]), 5, "Permissions 0640 for 'user' are too open");
}

#[test]
fn a_passphrase_is_asked_for_once_and_not_shown() {
    for place in Place::both() {
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let _ = fs::remove_file(place.path("locked"));
            keygen(&["-q", "-t", kind, "-N", "open sesame", "-f", "locked"], &place.folder);
            let (path, before) = place.add_key("locked.pub");
            let mut terminal = Terminal::run(&place.open(&["-i", "locked"]));
            terminal.wait_for("Enter passphrase for key 'locked': ", 1);
            assert!(!terminal.echoes());
            terminal.type_in("wrong\r");
            terminal.wait_for("Bad passphrase, try again for 'locked': ", 1);
            terminal.type_in("open sesame\r");
            assert!(terminal.end().success(), "{}", terminal.screen());
            assert!(terminal.echoes());
            let shown = terminal.screen();
            assert!(shown.contains("took the firmware") && !shown.contains("sesame"), "{shown}");
            assert_eq!(shown.matches("Enter passphrase").count(), 1, "{shown}");
            place.got_the_file();

            let batch =
                place.fails(&mut place.open(&["-i", "locked", "-o", "BatchMode=yes"]), 5, "passphrase");
            assert!(batch.contains("nobody may be asked"), "{batch}");
            fs::write(place.path("passphrase"), "open sesame\n").unwrap();
            place.works(&mut place.open(&["-i", "locked", "--passphrase-file", "passphrase"]));
            fs::write(place.path("passphrase"), "wrong\n").unwrap();
            let wrong = &["-i", "locked", "--passphrase-file", "passphrase"];
            place.fails(&mut place.open(wrong), 5, "does not hold the passphrase of key 'locked'");
            fs::write(path, before).unwrap();
        }
    }
}

#[test]
fn a_key_that_is_locked_in_an_old_format_is_told_how_to_become_a_new_one() {
    let place = Place::sshd("");
    for more in [&["-t", "rsa", "-m", "PEM"][..], &["-t", "ed25519", "-Z", "aes256-cbc"]] {
        let _ = fs::remove_file(place.path("locked"));
        keygen(&[&["-q", "-N", "open sesame", "-f", "locked"], more].concat(), &place.folder);
        let (path, before) = place.add_key("locked.pub");
        let batch = ["-i", "locked", "-o", "BatchMode=yes"];
        place.fails(&mut place.open(&batch), 5, "ssh-keygen -p -f 'locked' writes it anew");
        keygen(&["-p", "-P", "open sesame", "-N", "open sesame", "-f", "locked"], &place.folder);
        fs::write(place.path("passphrase"), "open sesame\n").unwrap();
        place.works(&mut place.open(&["-i", "locked", "--passphrase-file", "passphrase"]));
        fs::write(path, before).unwrap();
    }
}

#[test]
fn nobody_is_asked_for_the_passphrase_of_a_key_that_the_device_does_not_take() {
    let place = Place::sshd("");
    keygen(&["-q", "-t", "ed25519", "-N", "open sesame", "-f", "locked"], &place.folder);
    let mut terminal =
        Terminal::run(&place.open(&["-i", "locked", "-o", "PreferredAuthentications=publickey"]));
    assert_eq!(terminal.end().code(), Some(5), "{}", terminal.screen());
    assert!(!terminal.screen().contains("passphrase"), "{}", terminal.screen());
}

#[test]
fn ctrl_c_at_a_question_ends_it_and_leaves_the_terminal_as_it_was() {
    let place = Place::sshd("");
    keygen(&["-q", "-t", "ed25519", "-N", "open sesame", "-f", "locked"], &place.folder);
    place.add_key("locked.pub");
    let mut terminal = Terminal::run(&place.open(&["-i", "locked"]));
    terminal.wait_for("Enter passphrase", 1);
    terminal.type_in("open\x03");
    // setsid(1) gives what a shell would.
    let status = terminal.end();
    assert!(status.signal() == Some(2) || status.code().is_some_and(|code| code != 0), "{status:?}");
    assert!(terminal.echoes());
    assert!(!place.path("got").exists());
}

#[test]
fn an_agent_signs() {
    for place in Place::both() {
        keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "rsa"], &place.folder);
        place.add_key("rsa.pub");
        for key in ["user", "rsa"] {
            let agent = Agent::start(&place.folder, &["stranger", key]);
            let socket = agent.socket.display().to_string();
            let none = ["-o", "IdentityFile=none"];
            place.works(place.open(&none).env("SSH_AUTH_SOCK", &agent.socket));
            place.works(&mut place.open(&[&none[..], &["-o", &format!("IdentityAgent={socket}")]].concat()));
            let off = [&none[..], &["-o", "IdentityAgent=none"]].concat();
            place.fails(place.open(&off).env("SSH_AUTH_SOCK", &agent.socket), 5, "Permission denied");
            // Of the agent's keys only those that are named.
            let only =
                |name: &str| place.open(&["-o", "IdentitiesOnly=yes", "-o", &format!("IdentityFile={name}")]);
            fs::copy(place.path(key).with_extension("pub"), place.path("named.pub")).unwrap();
            place.works(only("named").env("SSH_AUTH_SOCK", &agent.socket));
            place.works(only("named.pub").env("SSH_AUTH_SOCK", &agent.socket));
            place.fails(only("stranger.pub").env("SSH_AUTH_SOCK", &agent.socket), 5, "Permission denied");
            drop(agent);
            fs::remove_file(place.path("agent")).unwrap();
        }
        let gone = place.fails(
            place.open(&["-i", "stranger"]).env("SSH_AUTH_SOCK", "/not/there"),
            5,
            "the agent at",
        );
        assert!(gone.contains("does not answer"), "{gone}");
    }
}

// --- Passwords -------------------------------------------------------------------------------------------

/// Where root's password is `secret`: for this sshd alone, in a file system of its own.
fn sshd_with_password(config: &str) -> Option<Place> {
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: OpenSSH's sshd is asked for no password, that needs root");
        return None;
    }
    let script = format!(
        "(echo 'root:{SECRET}:19000:0:99999:7:::'; grep -v '^root:' /etc/shadow) >shadow && chmod 600 shadow && \
         mount --bind shadow /etc/shadow && exec \"$@\""
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
    let config = format!("PermitRootLogin yes\n{config}");
    Some(Place::sshd_in("cat >got; echo 'Success!'", &config, &wrapper))
}

fn with_passwords(method: &str) -> Vec<(&'static str, Place)> {
    let config = match method {
        "password" => "PasswordAuthentication yes\nKbdInteractiveAuthentication no",
        _ => "PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes",
    };
    let sshd = sshd_with_password(config).map(|place| ("root", place));
    sshd.into_iter().chain([("ada", Place::ours(ADA))]).collect()
}

#[test]
fn a_password_is_asked_for_once_and_not_shown() {
    for method in ["password", "keyboard-interactive"] {
        for (user, place) in with_passwords(method) {
            let only = format!("PreferredAuthentications={method}");
            let mut options = vec!["-l", user, "-o", &only];
            let mut terminal = Terminal::run(&place.open(&options));
            terminal.wait_for("assword: ", 1);
            assert!(!terminal.echoes());
            terminal.type_in("wrong\r");
            terminal.wait_for("assword: ", 2);
            wait_until("nothing is shown", || !terminal.echoes());
            terminal.type_in("secret\r");
            assert!(terminal.end().success(), "{method} {user}: {}", terminal.screen());
            let shown = terminal.screen();
            assert!(shown.contains("took the firmware") && !shown.contains("secret"), "{shown}");
            assert_eq!(shown.matches("assword: ").count(), 2, "{shown}");
            place.got_the_file();

            fs::write(place.path("password"), "secret\nmore\n").unwrap();
            options.extend(["--password-file", "password"]);
            place.works(&mut place.open(&options));
            fs::write(place.path("password"), "wrong\n").unwrap();
            let wrong = place.fails(&mut place.open(&options), 5, "Permission denied");
            assert!(!wrong.contains("wrong"), "{wrong}");
            let batch = ["-l", user, "-o", &only, "-o", "BatchMode=yes"];
            place.fails(&mut place.open(&batch), 5, "Permission denied");
        }
    }
}

#[test]
fn a_key_and_a_password_can_both_be_needed() {
    let config = "PasswordAuthentication yes\nAuthenticationMethods publickey,password";
    let sshd = sshd_with_password(config).map(|place| ("root", place));
    let ours = Place::ours(&format!("authentication_methods = \"publickey,password\"\n{ADA}"));
    for (user, place) in sshd.into_iter().chain([("ada", ours)]) {
        fs::write(place.path("password"), "secret").unwrap();
        place.works(&mut place.open(&["-l", user, "-i", "user", "--password-file", "password"]));
        place.fails(
            &mut place.open(&["-l", user, "-i", "user", "-o", "BatchMode=yes"]),
            5,
            "Permission denied",
        );
        place.fails(
            &mut place.open(&["-l", user, "-i", "stranger", "--password-file", "password"]),
            5,
            "(publickey)",
        );
    }
}

// --- Known hosts -----------------------------------------------------------------------------------------

#[test]
fn a_new_host_is_written_down_when_that_is_asked_for() {
    for place in Place::both() {
        fs::write(place.path("known_hosts"), "# no end").unwrap();
        let shown = place.works(&mut place.keyed(&["-o", "StrictHostKeyChecking=accept-new"]));
        assert!(shown.contains("Warning: Permanently added"), "{shown}");
        let host = format!("[127.0.0.1]:{}", place.port);
        let found = keygen(&["-F", &host, "-f", "known_hosts"], &place.folder);
        let key = fs::read_to_string(place.path(place.host_key())).unwrap();
        assert!(text(&found.stdout).contains(key.split(' ').nth(1).unwrap()), "{}", all(&found));
        assert!(fs::read_to_string(place.path("known_hosts")).unwrap().starts_with("# no end\n["));
        // From now on it is known.
        let shown = place.works(&mut place.keyed(&["-o", "StrictHostKeyChecking=yes"]));
        assert!(!shown.contains("Warning"), "{shown}");

        // Folders are made for it, that nobody else can look into.
        place.works(
            &mut place.with_hosts_in("new/known_hosts", &["-i", "user", "-o", "StrictHostKeyChecking=no"]),
        );
        let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("new"), mode("new/known_hosts")), (0o700, 0o600));
        keygen(&["-F", &host, "-f", "new/known_hosts"], &place.folder);
    }
}

#[test]
fn a_person_is_asked_about_a_new_host() {
    let place = Place::sshd("");
    let run = || Terminal::run(&place.keyed(&[]));
    let question = "(yes/no/[fingerprint])? ";
    let mut no = run();
    no.wait_for(question, 1);
    assert!(no.screen().contains(&place.fingerprint()), "{}", no.screen());
    no.type_in("y\r");
    no.wait_for("Please type 'yes', 'no' or the fingerprint: ", 1);
    no.type_in("no\r");
    assert_eq!(no.end().code(), Some(5), "{}", no.screen());
    assert!(no.screen().contains("Host key verification failed."), "{}", no.screen());
    assert!(!place.path("known_hosts").exists() && !place.path("got").exists());
    for answer in ["yes".to_owned(), place.fingerprint()] {
        let mut yes = run();
        yes.wait_for(question, 1);
        yes.type_in(&format!("{answer}\r"));
        assert!(yes.end().success(), "{}", yes.screen());
        assert_eq!(yes.screen().matches(question).count(), 1, "{}", yes.screen());
        place.got_the_file();
        fs::remove_file(place.path("known_hosts")).unwrap();
    }
    let mut batch = Terminal::run(&place.keyed(&["-o", "BatchMode=yes"]));
    assert_eq!(batch.end().code(), Some(5), "{}", batch.screen());
    assert!(!batch.screen().contains(question), "{}", batch.screen());
    // The connection has a time limit, the person has none.
    let mut slow = Terminal::run(&place.keyed(&["-o", "ConnectTimeout=2"]));
    slow.wait_for(question, 1);
    std::thread::sleep(std::time::Duration::from_secs(4));
    slow.type_in("yes\r");
    assert!(slow.end().success(), "{}", slow.screen());
}

#[test]
fn a_new_host_is_5_where_nobody_may_be_asked() {
    for place in Place::both() {
        for options in [&[][..], &["-o", "BatchMode=yes"], &["-o", "StrictHostKeyChecking=yes"]] {
            // In a session of its own there is no terminal.
            let command = place.keyed(options);
            let mut alone = Command::new("setsid");
            alone
                .arg("--wait")
                .arg(command.get_program())
                .args(command.get_args())
                .current_dir(&place.folder);
            alone.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
            let shown = place.fails(&mut alone, 5, "Host key verification failed.");
            assert!(shown.contains("No ED25519 host key is known for [127.0.0.1]:"), "{shown}");
            assert!(shown.contains(&place.fingerprint()), "{shown}");
        }
    }
}

#[test]
fn a_changed_key_is_5_and_says_where_the_old_one_stands() {
    for place in Place::both() {
        place.knows("# one\nHOST OTHER\n");
        for strict in ["ask", "accept-new", "yes"] {
            let strict = format!("StrictHostKeyChecking={strict}");
            let shown =
                place.fails(&mut place.keyed(&["-o", &strict]), 5, "REMOTE HOST IDENTIFICATION HAS CHANGED!");
            let line = format!("{}:2.", place.path("known_hosts").display());
            assert!(shown.contains(&line) && shown.contains("ssh-keygen -R '[127.0.0.1]:"), "{shown}");
        }
        // The command that it names is right.
        let host = format!("[127.0.0.1]:{}", place.port);
        keygen(&["-R", &host, "-f", "known_hosts"], &place.folder);
        place.works(&mut place.keyed(&["-o", "StrictHostKeyChecking=accept-new"]));
    }
}

#[test]
fn a_changed_key_that_is_accepted_gets_no_password() {
    let place = Place::ours(ADA);
    place.knows("HOST OTHER\n");
    fs::write(place.path("password"), "secret").unwrap();
    let no = ["-o", "StrictHostKeyChecking=no"];
    let shown = place.works(&mut place.keyed(&no));
    assert!(shown.contains("REMOTE HOST IDENTIFICATION HAS CHANGED!"), "{shown}");
    assert!(!fs::read_to_string(place.path("known_hosts")).unwrap().contains("Permanently"));
    let password = [&no[..], &["-l", "ada", "-i", "stranger", "--password-file", "password"]].concat();
    let shown = place.fails(&mut place.bare(&password), 5, "Permission denied");
    assert!(shown.contains("Password authentication is disabled"), "{shown}");
    place.knows("HOST KEY\n");
    place.works(&mut place.bare(&password));
}

#[test]
fn what_known_hosts_can_say_is_understood() {
    let place = Place::sshd("");
    let yes = ["-o", "StrictHostKeyChecking=yes"];
    for known in [
        "HOST KEY a comment\n",
        "other,HOST KEY",
        "[127.0.0.*]:* KEY",
        "HOST OTHER\nHOST KEY\n",
        "@cert-authority * OTHER\n@cert-authority HOST KEY\nHOST KEY\n",
        // A port that is not known is the host that is known.
        "127.0.0.1 KEY\n",
        "\u{0}\u{1}\u{ff}\n@\n@revoked\n@revoked *\n|1|\n|1|x|y ssh-ed25519 z\nHOST KEY\n",
    ] {
        place.knows(known);
        place.works(&mut place.keyed(&yes));
    }
    for unknown in
        ["", "[127.0.0.*]:*,!HOST KEY\n", "@cert-authority HOST KEY\n", "# HOST KEY\n", "[127.0.0.1]:1 KEY\n"]
    {
        place.knows(unknown);
        place.fails(&mut place.keyed(&yes), 5, "Host key verification failed.");
    }
    for revoked in ["HOST KEY\n@revoked * KEY\n", "@revoked HOST KEY\nHOST KEY\n"] {
        place.knows(revoked);
        for strict in ["StrictHostKeyChecking=yes", "StrictHostKeyChecking=no"] {
            place.fails(&mut place.keyed(&["-o", strict]), 5, "REVOKED HOST KEY");
        }
    }
    place.knows("HOST KEY\n");
    keygen(&["-H", "-f", "known_hosts"], &place.folder);
    let hashed = fs::read_to_string(place.path("known_hosts")).unwrap();
    assert!(hashed.starts_with("|1|") && !hashed.contains("127.0.0.1"), "{hashed}");
    place.works(&mut place.keyed(&yes));
    place.knows("HOST OTHER\n");
    keygen(&["-H", "-f", "known_hosts"], &place.folder);
    place.fails(&mut place.keyed(&yes), 5, "HAS CHANGED");
    place.knows("the-lab KEY\n");
    place.works(&mut place.keyed(&["-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=the-lab"]));
}

#[test]
fn the_type_of_key_that_is_known_is_asked_for() {
    let place = Place::sshd("HostKey HERE/rsa\nHostKey HERE/ecdsa");
    let known = |name: &str| {
        let key = fs::read_to_string(place.path(name)).unwrap();
        fs::write(place.path("known_hosts"), format!("[127.0.0.1]:{} {key}", place.port)).unwrap();
    };
    for kind in ["rsa", "ecdsa"] {
        keygen(&["-q", "-t", kind, "-N", "", "-f", kind], &place.folder);
    }
    let Kept::Sshd(device) = &place._device else { unreachable!() };
    common::signal(device.sshd.id(), "HUP");
    let scanned = || {
        text(
            &Command::new("ssh-keyscan")
                .args(["-p", &place.port.to_string(), "127.0.0.1"])
                .output()
                .unwrap()
                .stdout,
        )
    };
    wait_until("sshd has all its keys", || scanned().contains("ssh-rsa") && scanned().contains("ecdsa-sha2"));
    for name in ["rsa.pub", "ecdsa.pub", "host.pub"] {
        known(name);
        place.works(&mut place.keyed(&["-o", "StrictHostKeyChecking=yes"]));
    }
    // A type that it has no more is as good as a change.
    keygen(&["-q", "-t", "ecdsa", "-b", "521", "-N", "", "-f", "old"], &place.folder);
    known("old.pub");
    place.fails(
        &mut place.keyed(&["-o", "StrictHostKeyChecking=accept-new"]),
        5,
        "known by a key of another type",
    );
}

// --- Jump hosts ------------------------------------------------------------------------------------------

#[test]
fn jump_hosts_are_gone_through() {
    let place = Place::sshd("");
    let sshd = Place::sshd("AllowTcpForwarding yes\nLogLevel DEBUG1");
    let ours = Place::ours("");
    for jump in [&sshd, &ours] {
        // Each takes the key of the device.
        fs::copy(place.path("user.pub"), jump.path("other.pub")).unwrap();
        jump.add_key("other.pub");
    }
    let [first, second] = [&sshd, &ours].map(|jump| format!("127.0.0.1:{}", jump.port));
    for hosts in [first.clone(), second.clone(), format!("root@{first},ssh://{second}")] {
        place.works(&mut place.open(&["-i", "user", "-J", &hosts]));
        place.works(&mut place.open(&["-i", "user", "-o", &format!("ProxyJump={hosts}")]));
    }
    let logs =
        [(sshd.path("sshd.log"), "server_request_direct_tcpip"), (ours.path("log"), "direction=\"local\"")];
    for (log, words) in logs {
        let (log, port) = (fs::read_to_string(log).unwrap(), place.port.to_string());
        assert!(log.lines().any(|line| line.contains(words) && line.contains(&port)), "{log}");
    }
    let known = fs::read_to_string(place.path("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 3, "each is known by its own key: {known}");
    place.works(&mut place.open(&["-i", "user", "-J", "none"]));

    // The key of each is checked, and each asks for a login.
    let other = fs::read_to_string(place.path("stranger.pub")).unwrap();
    fs::write(place.path("known_hosts"), format!("[127.0.0.1]:{} {other}", sshd.port)).unwrap();
    place.fails(&mut place.open(&["-i", "user", "-J", &first]), 5, "HAS CHANGED");
    fs::write(place.path("known_hosts"), "").unwrap();
    place.fails(&mut place.open(&["-i", "stranger", "-J", &second]), 5, "Permission denied");
    let nowhere = format!("127.0.0.1:{}", common::free_port());
    place.fails(&mut place.open(&["-i", "user", "-J", &nowhere]), 4, "Connection refused");
}

#[test]
fn a_device_that_is_not_there_behind_a_jump_host_is_4() {
    for jump in Place::both() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        let known = jump.known_hosts();
        command
            .args([
                "upload",
                "--builtin",
                "-i",
                "user",
                "-o",
                &known,
                "-o",
                "StrictHostKeyChecking=accept-new",
            ])
            .args(["-J", &format!("127.0.0.1:{}", jump.port), "-p", &common::free_port().to_string()])
            .args(["127.0.0.1", "new.fw"])
            .current_dir(&jump.folder);
        jump.fails(&mut command, 4, "through the jump host");
    }
}

// --- Connections -----------------------------------------------------------------------------------------

#[test]
fn a_server_that_says_nothing_is_4() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::sshd("");
    let port = silent.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.args(["upload", "--builtin", "-p", &port, "-o", "ConnectTimeout=1", "127.0.0.1", "new.fw"]);
    place.fails(command.current_dir(&place.folder), 4, "Connection timed out");
}

#[test]
fn without_ssh_in_path_it_is_used_by_itself() {
    let place = Place::sshd_in(GOOD, "", &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command
        .args(["upload", "-p", &place.port.to_string(), "-i", "user", "-o", &place.known_hosts()])
        .args(["-o", "StrictHostKeyChecking=accept-new", "ssh://root@127.0.0.1", "new.fw"])
        .env("PATH", place.path("empty"))
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null())
        .current_dir(&place.folder);
    let shown = place.works(&mut command);
    assert!(shown.contains("There is no ssh in PATH: the built-in client connects."), "{shown}");
    assert!(shown.contains("Done: the device is back and runs slot b"), "{shown}");
    let refused = command.args(["-o", "ProxyCommand=x"]).output().unwrap();
    expect(&refused, 2, "does not know the option ProxyCommand");
}

#[test]
fn what_it_does_not_understand_is_2() {
    let place = Place::sshd("");
    for (options, words) in [
        (&["-F", "/etc/ssh/ssh_config"][..], "reads no configuration of ssh (-F /etc/ssh/ssh_config)"),
        (&["-o", "ControlMaster=auto"], "does not know the option ControlMaster; it understands BatchMode,"),
        (&["-o", "StrictHostKeyChecking=perhaps"], "yes, ask, accept-new or no"),
        (&["-J", "a b"], "jump host a b"),
    ] {
        place.fails(&mut place.keyed(options), 2, words);
    }
    let output = place.keyed(&["--dry-run", "-J", "jump"]).output().unwrap();
    expect(&output, 0, "would run: the built-in client: root@jump port 22, then root@127.0.0.1 port");
    let mut ssh = Command::new(env!("CARGO_BIN_EXE_myelin"));
    ssh.args(["upload", "--password-file", "x", "127.0.0.1", "new.fw"]).current_dir(&place.folder);
    place.fails(&mut ssh, 2, "give --builtin");
}

#[test]
fn a_large_file_arrives_unchanged_and_waits_on_the_disk_not_in_memory() {
    const SIZE: usize = 64 << 20;
    let place = Place::sshd_in(
        "touch begun; until [ -e go ]; do sleep 0.05; done; cat >got; echo 'Success!'",
        "",
        &[],
    );
    fs::write(place.path("noise"), random_bytes(SIZE, 5)).unwrap();
    let config = "meta-product = \"p\"\nmeta-version = \"2.0\"\nfile-resource noise { host-path = \"noise\" }\n\
                  task upgrade { on-resource noise { raw_write(0) } }\n";
    fs::write(place.path("big.conf"), config).unwrap();
    let mut fwup = Command::new(env!("CARGO_BIN_EXE_myelin"));
    let made =
        fwup.args(["fwup", "-c", "-f", "big.conf", "-o", "new.fw"]).current_dir(&place.folder).output();
    assert!(made.as_ref().unwrap().status.success(), "{}", all(&made.unwrap()));
    assert!(fs::metadata(place.path("new.fw")).unwrap().len() >= SIZE as u64);
    let mut command = place.open(&["-i", "user"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the upload has begun", || place.path("begun").exists());
    // It sends as much as the device has room for, and then nothing more.
    let mut before = 0;
    wait_until("the upload waits", || {
        let sent = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        let sent = sent.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        std::mem::replace(&mut before, sent) == sent
    });
    let own = status_kib(child.id(), "RssAnon");
    assert!(own < 24 << 10, "{own} KiB");
    fs::write(place.path("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    expect(&output, 0, "Success!");
    place.got_the_file();
}
