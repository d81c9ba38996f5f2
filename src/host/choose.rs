//! Which firmware file, when the command line names none: the newest `*.fw` where builds put it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

#[derive(Debug, PartialEq, Eq, Error)]
pub enum ChooseError {
    #[error("{0}: there is no such file")]
    Missing(String),
    #[error("no *.fw file was found in: {0}; name one: myelin upload HOST FILE")]
    Nothing(String),
    #[error("several files are equally new, name one of them: {0}")]
    Several(String),
}

/// The variables that say where a build puts its files.
#[derive(Debug, Default)]
pub struct Hints {
    /// `MYELIN_FW`: a file or a folder.
    pub firmware: Option<PathBuf>,
    pub mix_target: Option<String>,
    pub mix_env: Option<String>,
}

impl Hints {
    pub fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            firmware: text("MYELIN_FW").map(PathBuf::from),
            mix_target: text("MIX_TARGET"),
            mix_env: text("MIX_ENV"),
        }
    }

    fn folders(&self, here: &Path) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        folders.extend(self.firmware.as_ref().map(|path| here.join(path)));
        if let (Some(target), Some(env)) = (&self.mix_target, &self.mix_env) {
            folders.push(here.join(format!("_build/{target}_{env}/nerves/images")));
        }
        folders.push(here.join("output/images"));
        folders.push(here.join("images"));
        let mut machines: Vec<PathBuf> = entries(&here.join("build/tmp/deploy/images")).collect();
        machines.sort_unstable();
        folders.extend(machines);
        folders.push(here.to_owned());
        folders
    }
}

/// The file to send: the one that is named, else the newest of the first folder that has any.
pub fn choose(named: Option<&Path>, hints: &Hints, here: &Path) -> Result<PathBuf, ChooseError> {
    if let Some(path) = named {
        let path_is_file = path.is_file();
        return if path_is_file { Ok(path.into()) } else { Err(ChooseError::Missing(show(path))) };
    }
    if let Some(path) = hints.firmware.as_ref().map(|path| here.join(path)) {
        if path.is_file() {
            return Ok(path);
        }
        if !path.is_dir() {
            return Err(ChooseError::Missing(format!("{} (MYELIN_FW)", show(&path))));
        }
    }
    let folders = hints.folders(here);
    for folder in &folders {
        if let Some(newest) = newest_in(folder) {
            return newest;
        }
    }
    Err(ChooseError::Nothing(folders.iter().map(|path| show(path)).collect::<Vec<_>>().join(", ")))
}

fn newest_in(folder: &Path) -> Option<Result<PathBuf, ChooseError>> {
    let firmware = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "fw") && path.is_file();
    let mut files: Vec<(SystemTime, PathBuf)> = entries(folder)
        .filter(firmware)
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    files.sort_unstable();
    let (age, newest) = files.last()?.clone();
    let equal: Vec<String> =
        files.iter().filter(|(other, _)| *other == age).map(|(_, path)| show(path)).collect();
    Some(if equal.len() == 1 { Ok(newest) } else { Err(ChooseError::Several(equal.join(", "))) })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;

    fn put(folder: &Path, name: &str, age: u64) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age)).unwrap();
        path
    }

    #[test]
    fn the_newest_of_the_first_folder_with_any_is_taken() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        let none = Hints::default();
        assert!(matches!(choose(None, &none, here), Err(ChooseError::Nothing(_))));
        let loose = put(here, "app.fw", 0);
        assert_eq!(choose(None, &none, here), Ok(loose));
        let yocto = put(here, "build/tmp/deploy/images/rpi/app.fw", 50);
        assert_eq!(choose(None, &none, here), Ok(yocto));
        put(here, "output/images/old.fw", 9);
        put(here, "output/images/newest.txt", 0);
        let buildroot = put(here, "output/images/new.fw", 5);
        assert_eq!(choose(None, &none, here), Ok(buildroot));
        let nerves = put(here, "_build/rpi0_dev/nerves/images/app.fw", 99);
        let mix =
            Hints { mix_target: Some("rpi0".into()), mix_env: Some("dev".into()), ..Default::default() };
        assert_eq!(choose(None, &mix, here), Ok(nerves));
    }

    #[test]
    fn two_files_of_one_age_are_listed_and_none_is_sent() {
        let here = tempfile::tempdir().unwrap();
        put(here.path(), "a.fw", 3);
        put(here.path(), "b.fw", 3);
        let Err(ChooseError::Several(list)) = choose(None, &Hints::default(), here.path()) else { panic!() };
        assert!(list.contains("a.fw") && list.contains("b.fw"));
    }

    #[test]
    fn what_is_named_must_be_there() {
        let here = tempfile::tempdir().unwrap();
        let missing = here.path().join("no.fw");
        assert!(matches!(
            choose(Some(&missing), &Hints::default(), here.path()),
            Err(ChooseError::Missing(_))
        ));
        let hints = Hints { firmware: Some(missing), ..Default::default() };
        assert!(matches!(choose(None, &hints, here.path()), Err(ChooseError::Missing(_))));
        let file = put(here.path(), "sub/yes.fw", 0);
        let hints = Hints { firmware: Some("sub".into()), ..Default::default() };
        assert_eq!(choose(None, &hints, here.path()), Ok(file));
    }
}
