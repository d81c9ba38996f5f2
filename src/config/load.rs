//! Which files are read, in which order, and what is said about them. Loading never fails.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::layers::Layers;
use super::{Config, Source};
use crate::files;

/// A configuration that can be used, and what was wrong on the way to it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub problems: Vec<Problem>,
    /// Where each of `config.ssh.authorized_keys` stands.
    pub authorized_keys_at: Vec<Place>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// A line of a file; line 0 is the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

/// Something wrong in a file; what it says was left out and everything else counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// In snake_case with its section (`ssh.port`); empty when no key is to blame.
    pub key: String,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{}: {}{colon}{}", self.place, self.key, self.text)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            file: &'a Path,
            line: Option<usize>,
            key: Option<&'a str>,
            text: &'a str,
        }
        let line = (self.place.line > 0).then_some(self.place.line);
        let key = (!self.key.is_empty()).then_some(self.key.as_str());
        Fields { file: &self.place.file, line, key, text: &self.text }.serialize(serializer)
    }
}

/// Reads the configuration. Whatever is wrong, what is right counts, and the rest has its default.
pub fn load(source: &Source) -> Loaded {
    match source {
        Source::File(file) => {
            let mut loading = Loading::default();
            loading.read(file, true);
            loading.finish()
        }
        Source::System => load_system(Path::new(SYSTEM_FOLDER)),
    }
}

fn load_system(folder: &Path) -> Loaded {
    let mut loading = Loading::default();
    loading.read(&folder.join("config.toml"), false);
    for file in drop_ins(&folder.join("conf.d")) {
        loading.read(&file, true);
    }
    let state_dir = loading.layers.build().0.state_dir;
    let overrides = state_dir.join("config.toml");
    loading.read(&overrides, false);
    let mut loaded = loading.finish();
    if loaded.config.state_dir != state_dir {
        // It says where this very file is; obeying it would lose the host keys that are here.
        let place = Place { file: overrides.as_path().into(), line: 0 };
        let text = format!("can only be set in {}: ignored here", folder.display());
        loaded.problems.push(Problem { place, key: "state_dir".into(), text });
        loaded.config.state_dir = state_dir;
    }
    loaded
}

/// The `.toml` files of a folder, sorted by name. A pipe among them would keep us waiting.
fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.metadata().map_or(true, |metadata| metadata.is_file()))
        .collect();
    files.sort_unstable();
    files
}

#[derive(Default)]
struct Loading {
    layers: Layers,
    files: Vec<PathBuf>,
}

impl Loading {
    fn read(&mut self, file: &Path, must_exist: bool) {
        match files::read_limited(file, MAX_FILE) {
            Ok(bytes) => {
                self.layers.add(file, &bytes);
                self.files.push(file.into());
            }
            Err(error) if error.is_not_found() && !must_exist => {}
            Err(error) => {
                let place = Place { file: file.into(), line: 0 };
                let text = format!("{error}; its settings are missing");
                self.layers.problems.push(Problem { place, key: String::new(), text });
            }
        }
    }

    fn finish(self) -> Loaded {
        let (config, authorized_keys_at) = self.layers.build();
        Loaded { config, problems: self.layers.problems, authorized_keys_at, files: self.files }
    }
}

const SYSTEM_FOLDER: &str = "/etc/myelin";
const MAX_FILE: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::values::Seconds;
    use crate::config::{Bytes, Program};

    fn from_text(text: &str) -> Loaded {
        let mut loading = Loading::default();
        loading.layers.add(Path::new("test.toml"), text.as_bytes());
        loading.finish()
    }

    fn problems(loaded: &Loaded) -> Vec<String> {
        loaded.problems.iter().map(Problem::to_string).collect()
    }

    fn write(path: &Path, text: &str) {
        files::make_dir(path.parent().unwrap(), 0o755).unwrap();
        files::replace(path, text.as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn any_spelling_of_a_key_counts() {
        let loaded = from_text(
            "StateDir = \"/x\"\n[SSH]\nLoginGraceTime = \"1m\"\nMax-Auth-Tries = 3\nRekeyLimit = \"64M\"\n\
             MACs = [\"+hmac-sha2-256\", \"hmac-sha2-512\"]\nshell = [\"/bin/ash\", \"-x\"]\n[ssh.Legacy]\nEnabled = true\n",
        );
        assert_eq!(problems(&loaded), [""; 0]);
        let ssh = &loaded.config.ssh;
        assert_eq!(loaded.config.state_dir, Path::new("/x"));
        assert_eq!((ssh.login_grace_time, ssh.max_auth_tries), (Seconds::from_secs(60), 3));
        assert_eq!((ssh.rekey_limit, ssh.macs.as_str()), (Bytes(64 << 20), "+hmac-sha2-256,hmac-sha2-512"));
        assert_eq!(ssh.shell, Some(Program::Command(vec!["/bin/ash".into(), "-x".into()])));
        assert!(ssh.legacy.enabled);
    }

    #[test]
    fn a_wrong_value_keeps_its_default_and_is_named() {
        let loaded = from_text(
            "[ssh]\nport = 2222\nmax_sessions = 0\nlogin_grace_time = \"1y\"\nciphers = \"-*\"\nprot = 22\n\
             listen_address = [\"nowhere\"]\nmacs = \"+hmac-md5\"\nauthorized_keys = [\"a\", 5, \"b\"]\n",
        );
        let ssh = &loaded.config.ssh;
        assert_eq!((ssh.port, ssh.max_sessions, ssh.listen_address.len()), (2222, 8, 0));
        assert_eq!((ssh.ciphers.as_str(), &ssh.authorized_keys[..]), ("", &["a".into(), "b".into()][..]));
        let said = problems(&loaded);
        let places = ["3: ssh.max_sessions", "4: ssh.login_grace_time", "5: ssh.ciphers", "6: ssh.prot"];
        let more = ["7: ssh.listen_address", "8: ssh.macs", "9: ssh.authorized_keys"];
        assert_eq!(said.len(), places.len() + more.len(), "{said:#?}");
        for (said, place) in said.iter().zip(places.iter().chain(&more)) {
            assert!(said.starts_with(&format!("test.toml:{place}: ")), "{said}");
        }
    }

    #[test]
    fn of_two_sizes_of_groups_that_do_not_fit_the_smaller_counts() {
        let sizes = |text: &str| {
            let loaded = from_text(text);
            let ssh = &loaded.config.ssh;
            (ssh.dh_gex_min, ssh.dh_gex_max, problems(&loaded))
        };
        assert_eq!(sizes("[ssh]\ndh_gex_min = 2048\ndh_gex_max = 2048\n"), (2048, 2048, vec![]));
        let (min, max, said) = sizes("[ssh]\ndh_gex_max = 4096\ndh_gex_min = 6144\nmax_sessions = 9\n");
        assert_eq!((min, max, said.len()), (4096, 4096, 1));
        assert!(said[0].starts_with("test.toml:3: ssh.dh_gex_max: is less than dh_gex_min"), "{said:?}");
        let (min, max, said) = sizes("[ssh]\ndh_gex_max = 9000\ndh_gex_min = 1024\n");
        assert_eq!((min, max, said.len()), (3072, 8192, 2), "{said:?}");
    }

    #[test]
    fn broken_toml_loses_the_wrong_lines_only() {
        let loaded = from_text("state_dir = \"/x\"\n[ssh]\nport = = 3\nshell = \"/bin/bash\"\n");
        assert_eq!((loaded.config.ssh.port, problems(&loaded).len()), (22, 1));
        assert_eq!(loaded.config.ssh.shell, Some(Program::Command(vec!["/bin/bash".into()])));
        let loaded = from_text("[ssh]\nauthorized_keys = [\"a\"\nport = 2222\n[firmware]\ntask = \"x\"\n");
        assert_eq!((loaded.config.ssh.port, loaded.config.firmware.task.as_str()), (2222, "x"));
        assert_eq!(problems(&loaded).len(), 1);
        let loaded = from_text("\u{1}\u{2}garbage\0[[[\n\u{7f}\n");
        assert_eq!(loaded.config, Config::default());
        assert!(!loaded.problems.is_empty());
    }

    #[test]
    fn files_merge_key_by_key_and_keys_are_united() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, state) = (folder.path().join("etc"), folder.path().join("state"));
        write(
            &etc.join("config.toml"),
            &format!(
                "state_dir = {state:?}\n[ssh]\nport = 1\nmax_sessions = 4\nauthorized_keys = [\"image\"]\n"
            ),
        );
        write(&etc.join("conf.d/20.toml"), "[ssh]\nport = 3\nauthorized_keys = \"second\\nthird\"\n");
        write(&etc.join("conf.d/10.toml"), "[ssh]\nport = 2\nexec = \"disabled\"\n");
        write(&etc.join("conf.d/30.txt"), "[ssh]\nport = 9\n");
        write(
            &state.join("config.toml"),
            "state_dir = \"/y\"\n[ssh]\nmax_sessions = 99\nauthorized_keys = [\"image\", \"own\"]\n",
        );
        let loaded = load_system(&etc);
        let ssh = &loaded.config.ssh;
        // The bad override leaves the image's value, not the default.
        assert_eq!((ssh.port, ssh.max_sessions, &ssh.exec), (3, 4, &Program::Disabled));
        assert_eq!(ssh.authorized_keys, ["image", "second", "third", "own"]);
        assert_eq!(
            loaded.authorized_keys_at[3].to_string(),
            format!("{}:4", state.join("config.toml").display())
        );
        assert_eq!(loaded.config.state_dir, state);
        assert_eq!(loaded.problems.len(), 2);
        assert_eq!(loaded.files.len(), 4);
    }

    #[test]
    fn missing_files_are_fine_unless_named() {
        let folder = tempfile::tempdir().unwrap();
        let loaded = load(&Source::File(folder.path().join("none.toml")));
        assert_eq!((loaded.config, loaded.problems.len()), (Config::default(), 1));
    }

    #[test]
    fn lost_public_keys_never_allow_unsigned_firmware() {
        for text in [
            "[firmware]\npublic_keys = = []\n",
            "[firmware]\nPublicKeys = 5\n",
            "[firmware]\npublic_keys = [\n\"abc\"\n\"def\"\n]\n",
            "public_keys = [\"abc\"]\n",
            "[firmware]\npublic_keys = [\"abc\n",
        ] {
            let loaded = from_text(text);
            assert_eq!(loaded.config.firmware.public_keys.len(), 1, "{text}");
            assert!(loaded.config.firmware.public_keys[0].contains("broken"), "{text}");
        }
        let good = from_text("[firmware]\npublic_keys = [\"abc\"]\n[ssh]\nport = = 1\n");
        assert_eq!(good.config.firmware.public_keys, ["abc"]);
        let empty = from_text("[firmware]\npublic_keys = []\n[ssh]\nport = = 1\n");
        assert!(empty.config.firmware.public_keys.is_empty());
        let none = from_text("[ssh]\nport = = 1 # public_keys\n");
        assert!(none.config.firmware.public_keys.is_empty());
    }

    #[test]
    fn loading_takes_no_time_worth_mentioning() {
        let text = "[ssh]\nport = 2222\nauthorized_keys = [\"ssh-ed25519 AAAA x\"]\n[firmware]\ndevpath = \"/dev/x\"\n";
        from_text(text);
        let start = Instant::now();
        for _ in 0..100 {
            from_text(text);
        }
        let each = start.elapsed() / 100;
        assert!(each.as_micros() < 1000, "{each:?}");
    }
}
