#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
//! `myelin keys` as its users see it: the file it leaves behind, what it says, and its exit status.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN+Wjn4+4Fcvl2JlKpggT+wCRxpSvtqqpVrQrKN1/A22";
const PRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

struct Device {
    folder: tempfile::TempDir,
}

impl Device {
    fn new(ssh: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("state_dir = {:?}\n[ssh]\n{ssh}\n", folder.path().join("state"));
        fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state/ssh/authorized_keys")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn keys(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.arg("keys").args(args).arg("--config").arg(self.folder.path().join("config.toml"));
        command
    }

    fn list(&self) -> serde_json::Value {
        serde_json::from_slice(&self.keys(&["list", "--json"]).stdout).unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_added_key_is_in_the_file_with_tight_modes() {
    let device = Device::new("");
    let added = device.keys(&["add", &format!("{KEY} ada@lab")]);
    assert!(added.status.success(), "{}", out(&added));
    assert_eq!(device.text(), format!("{KEY} ada@lab\n"));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(device.file()), 0o600);
    assert_eq!(mode(device.folder.path().join("state/ssh")), 0o700);
    assert_eq!(mode(device.folder.path().join("state")), 0o700);
}

#[test]
fn a_key_is_added_once() {
    let device = Device::new("");
    device.keys(&["add", KEY]);
    let again = device.keys(&["add", &format!("{KEY} another comment")]);
    assert!(again.status.success());
    assert!(out(&again).contains("already there"), "{}", out(&again));
    assert_eq!(device.text(), format!("{KEY}\n"));
}

#[test]
fn lines_come_as_words_from_a_file_or_from_stdin() {
    let device = Device::new("");
    let words: Vec<&str> = KEY.split(' ').collect();
    assert!(device.keys(&["add", words[0], words[1], "one", "two"]).status.success());
    let path = device.folder.path().join("team.pub");
    fs::write(&path, format!("\u{feff}# team\r\n\r\n{OTHER} other\r\n")).unwrap();
    assert!(device.keys(&["add", "--file", path.to_str().unwrap()]).status.success());
    assert_eq!(device.text(), format!("{KEY} one two\n{OTHER} other\n"));

    let device = Device::new("");
    let mut child = device.command(&["add", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{KEY}\n{OTHER}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(device.text(), format!("{KEY}\n{OTHER}\n"));
}

#[test]
fn one_bad_line_adds_nothing_and_is_explained() {
    let device = Device::new("");
    let refused = device.keys(&["add", KEY, &format!("verify-required {OTHER}")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("option verify-required"), "{}", out(&refused));
    assert!(!device.file().exists());
    let security_key = device.keys(&["add", "sk-ssh-ed25519@openssh.com AAAA me"]);
    assert!(out(&security_key).contains("no-touch-required"), "{}", out(&security_key));
    assert_eq!(device.keys(&["add"]).status.code(), Some(2));
}

#[test]
fn removing_leaves_comments_options_and_garbage_as_they_were() {
    let device = Device::new("");
    let rest = format!("# hand-written\n\ngarbage\nrestrict,command=\"x y\" {OTHER} o\n");
    device.keys(&["add", KEY]);
    for name in [PRINT, KEY, KEY.split(' ').nth(1).unwrap()] {
        fs::write(device.file(), format!("{rest}{KEY} me")).unwrap();
        let removed = device.keys(&["remove", name]);
        assert!(removed.status.success(), "{}", out(&removed));
        assert_eq!(device.text(), rest);
    }
    let unknown = device.keys(&["remove", PRINT]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(out(&unknown).contains("no such key"), "{}", out(&unknown));
}

#[test]
fn a_key_of_the_configuration_is_revoked_until_it_is_added_again() {
    let device = Device::new(&format!("authorized_keys = [\"{KEY} boss\", \"{OTHER}\"]"));
    device.keys(&["add", KEY]);
    let removed = device.keys(&["remove", PRINT]);
    assert!(removed.status.success(), "{}", out(&removed));
    assert!(out(&removed).contains("the configuration: revoked in "), "{}", out(&removed));
    assert_eq!(device.text(), "");
    let deny = device.file().with_file_name("revoked_keys");
    assert_eq!(fs::read_to_string(&deny).unwrap(), format!("{KEY} boss\n"));
    assert_eq!(fs::metadata(&deny).unwrap().permissions().mode() & 0o777, 0o600);
    let list = device.list();
    assert_eq!(list["keys"].as_array().unwrap().len(), 1);
    assert_eq!(list["revoked"][0]["fingerprint"], PRINT);
    assert!(out(&device.keys(&["list"])).contains(&format!("revoked: ssh-ed25519 {PRINT} ")));
    let again = device.keys(&["remove", KEY]);
    assert!(again.status.success() && out(&again).contains("revoked before"), "{}", out(&again));

    let mut file = fs::OpenOptions::new().append(true).open(&deny).unwrap();
    file.write_all(format!("# mine\n{OTHER}").as_bytes()).unwrap();
    let added = device.keys(&["add", &format!("{KEY} back")]);
    assert!(added.status.success() && out(&added).contains("no longer revoked"), "{}", out(&added));
    assert_eq!(fs::read_to_string(&deny).unwrap(), format!("# mine\n{OTHER}\n"));
    assert_eq!(device.list()["keys"].as_array().unwrap().len(), 2, "in the configuration and in the file");
}

#[test]
fn what_the_image_revokes_stays_revoked() {
    let device = Device::new("revoked_keys = \"/dev/null/none\"");
    let deny = device.folder.path().join("denied");
    fs::write(&deny, format!("{KEY}\n")).unwrap();
    let config = device.folder.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap().replace("/dev/null/none", deny.to_str().unwrap());
    fs::write(&config, text).unwrap();
    let refused = device.keys(&["add", OTHER, KEY]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains(&format!("revoked in {}:1: remove it there", deny.display())));
    assert!(!device.file().exists());
}

#[test]
fn the_list_shows_where_each_key_comes_from_and_what_is_refused() {
    let device = Device::new(&format!("authorized_keys = [\"{KEY} boss\"]"));
    device.keys(&["add", &format!("{OTHER} evil\u{1b}[2Jname")]);
    let mut file = fs::OpenOptions::new().append(true).open(device.file()).unwrap();
    file.write_all(format!("verify-required {KEY}\nssh-dss AAAA\n").as_bytes()).unwrap();
    let list = device.list();
    let path = device.file().display().to_string();
    assert_eq!(list["keys"][0]["source"], "config");
    assert_eq!(list["keys"][0]["fingerprint"], PRINT);
    assert_eq!(list["keys"][0]["comment"], "boss");
    assert_eq!(list["keys"][0]["bits"], 256);
    assert_eq!(list["keys"][1]["source"], format!("{path}:1"));
    assert_eq!(list["refused"][0]["source"], format!("{path}:2"));
    assert!(list["refused"][1]["reason"].as_str().unwrap().contains("ssh-dss"));
    let text = out(&device.keys(&["list"]));
    assert!(text.contains(PRINT) && text.contains("refused: ") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn many_at_once_lose_no_key() {
    let device = Device::new("");
    let made: Vec<String> = (0..8).map(|number| key_number(&device, number)).collect();
    let children: Vec<_> = made.iter().map(|line| device.command(&["add", line]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = device.text();
    assert!(made.iter().all(|line| text.contains(line.as_str())), "{text}");
}

fn key_number(device: &Device, number: usize) -> String {
    let path = device.folder.path().join(format!("id{number}"));
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    public.trim().to_owned()
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_with_its_name() {
    let device = Device::new("");
    fs::write(device.folder.path().join("state"), "a file, not a folder").unwrap();
    let failed = device.keys(&["add", KEY]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(out(&failed).contains("state"), "{}", out(&failed));
}
