//! The script of `myelin gen-script`: clean, and the same under every shell that is here.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// A folder with the script, and an `ssh` on PATH that writes down how it was called.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder };
        assert!(bench.generate(&[]).status.success());
        fs::create_dir(bench.path("bin")).unwrap();
        let ssh = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$SSH_LOG\"\n\
                   [ -z \"${LD_LIBRARY_PATH:-}\" ] || exit 99\ncat >\"$SSH_LOG.input\"\necho 'Success!'\nexit 7\n";
        fs::write(bench.path("bin/ssh"), ssh).unwrap();
        fs::set_permissions(bench.path("bin/ssh"), PermissionsExt::from_mode(0o755)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn generate(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.arg("gen-script").args(args).current_dir(self.folder.path()).output().unwrap()
    }

    fn run(&self, shell: &[&str], args: &[&str], environment: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        Command::new(shell[0])
            .args(&shell[1..])
            .arg("./upload.sh")
            .args(args)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("SSH_LOG", self.path("log"))
            .env("LD_LIBRARY_PATH", "/nonexistent")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn put(&self, name: &str, age: u64) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000 - age);
        File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    }

    fn sent(&self) -> String {
        fs::read_to_string(self.path("log.input")).unwrap()
    }
}

/// The shells of the specification that are installed here; dash is everywhere the tests run.
fn shells() -> Vec<Vec<&'static str>> {
    let known: [&[&str]; 5] = [&["sh"], &["dash"], &["bash", "--posix"], &["busybox", "ash"], &["zsh"]];
    let installed = |shell: &&[&str]| {
        let words = [&shell[1..], &["-c", "exit 0"]].concat();
        Command::new(shell[0]).args(words).output().is_ok_and(|output| output.status.success())
    };
    let bash: &[&str] = &["bash"];
    known.into_iter().chain([bash]).filter(installed).map(<[&str]>::to_vec).collect()
}

#[test]
fn shellcheck_finds_nothing() {
    let bench = Bench::new();
    let Ok(output) = Command::new("shellcheck").arg(bench.path("upload.sh")).output() else {
        eprintln!("skipped: shellcheck is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_file_goes_to_the_fwup_subsystem_and_the_status_of_ssh_comes_back() {
    for shell in shells() {
        let bench = Bench::new();
        bench.put("my app.fw", 0);
        let options = [("SSH_OPTIONS", "-p 2222 -i key")];
        let output = bench.run(&shell, &["root@dev", "my app.fw"], &options);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{shell:?}: {errors}");
        assert_eq!(output.stdout, b"Success!\n", "{shell:?}");
        assert!(errors.contains("Uploading to root@dev..."), "{shell:?}: {errors}");
        let words = fs::read_to_string(bench.path("log")).unwrap();
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words[..4], ["-p", "2222", "-i", "key"], "{shell:?}");
        assert_eq!(words[words.len() - 4..], ["-s", "--", "root@dev", "fwup"], "{shell:?}");
        assert_eq!(bench.sent(), "my app.fw", "{shell:?}");
    }
}

#[test]
fn without_a_name_the_newest_file_of_a_build_is_sent() {
    for shell in shells() {
        let bench = Bench::new();
        let none = bench.run(&shell, &[], &[]);
        assert_eq!(none.status.code(), Some(3), "{shell:?}: {}", String::from_utf8_lossy(&none.stderr));
        bench.put("here.fw", 0);
        bench.run(&shell, &[], &[]);
        assert_eq!(bench.sent(), "./here.fw".trim_start_matches("./"), "{shell:?}");
        bench.put("output/images/old.fw", 9);
        bench.put("output/images/new.fw", 5);
        bench.run(&shell, &["dev"], &[]);
        assert_eq!(bench.sent(), "output/images/new.fw", "{shell:?}");
        bench.put("_build/rpi0_dev/nerves/images/app.fw", 99);
        bench.run(&shell, &["dev"], &[("MIX_TARGET", "rpi0"), ("MIX_ENV", "dev")]);
        assert_eq!(bench.sent(), "_build/rpi0_dev/nerves/images/app.fw", "{shell:?}");
        bench.put("elsewhere/app.fw", 999);
        bench.run(&shell, &["dev"], &[("MYELIN_FW", "elsewhere")]);
        assert_eq!(bench.sent(), "elsewhere/app.fw", "{shell:?}");
    }
}

#[test]
fn files_of_one_age_are_listed_and_none_is_sent() {
    for shell in shells() {
        let bench = Bench::new();
        bench.put("a.fw", 4);
        bench.put("b.fw", 4);
        let output = bench.run(&shell, &["dev"], &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{shell:?}");
        assert!(errors.contains("a.fw") && errors.contains("b.fw"), "{shell:?}: {errors}");
        assert!(!bench.path("log").exists());
    }
}

#[test]
fn a_host_never_becomes_an_option() {
    let bench = Bench::new();
    bench.put("a.fw", 0);
    let output = bench.run(&["sh"], &["-oProxyCommand=touch hit"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!bench.path("log").exists());
}

#[test]
fn a_script_that_is_there_is_kept_unless_forced() {
    let bench = Bench::new();
    assert_eq!(mode(&bench.path("upload.sh")), 0o755);
    fs::write(bench.path("upload.sh"), "mine").unwrap();
    assert_eq!(bench.generate(&[]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(bench.path("upload.sh")).unwrap(), "mine");
    assert!(bench.generate(&["-f"]).status.success());
    assert!(fs::read_to_string(bench.path("upload.sh")).unwrap().starts_with("#!/bin/sh\n"));
    assert!(bench.generate(&["other.sh"]).status.success());
    assert_eq!(mode(&bench.path("other.sh")), 0o755);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
