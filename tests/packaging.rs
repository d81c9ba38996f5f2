//! What packages and boards rely on: the Buildroot tree, the Yocto layer, the init script, /data, the
//! firmware files of the boards. Buildroot's and Yocto's own checks need their trees; these here do not.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const BLOCK: usize = 512;
/// What is compared at once.
const SEGMENT: usize = 128 << 10;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn package(name: &str) -> String {
    read(&format!("buildroot-package/package/myelin/{name}"))
}

fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// --- The trees -------------------------------------------------------------------------------------------

#[test]
fn the_buildroot_tree_keeps_buildroots_rules() {
    let lint = top().join("tests/packaging/lint.py");
    succeeds(Command::new("python3").arg(&lint).arg("--self-test"));
    succeeds(Command::new("python3").arg(&lint).arg(top().join("buildroot-package")));
}

#[test]
fn the_recipe_fetches_the_crates_of_the_lock_file() {
    succeeds(Command::new("python3").arg(top().join("scripts/yocto-crates.py")).arg("--check"));
}

#[test]
fn one_version_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(package("myelin.mk").contains(&format!("\nMYELIN_VERSION = {version}\n")));
    for recipe in ["recipes-connectivity/myelin/myelin", "recipes-core/myelin-board/myelin-board"] {
        let path = top().join(format!("meta-layer/{recipe}_{version}.bb"));
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn the_licence_is_the_one_that_the_packages_name() {
    let sum = succeeds(Command::new("sha256sum").arg(top().join("LICENSE")));
    let sum = sum.split_whitespace().next().unwrap();
    assert!(package("myelin.hash").contains(&format!("sha256  {sum}  LICENSE\n")));
    let sum = succeeds(Command::new("md5sum").arg(top().join("LICENSE")));
    let recipe =
        read(&format!("meta-layer/recipes-connectivity/myelin/myelin_{}.bb", env!("CARGO_PKG_VERSION")));
    assert!(recipe.contains(&format!("file://LICENSE;md5={}", sum.split_whitespace().next().unwrap())));
}

#[test]
fn files_that_the_recipe_takes_from_the_buildroot_package_are_there() {
    for name in ["S12myelin-data", "S50myelin", "myelin-data"] {
        package(name);
    }
    read("rootfs-overlay/etc/myelin/config.toml.example");
}

/// The units, by their names.
fn units() -> Vec<(String, String)> {
    let folder = top().join("buildroot-package/package/myelin");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_unit = |name: &String| [".service", ".socket", ".timer"].iter().any(|end| name.ends_with(end));
    names.filter(is_unit).map(|name| (name.clone(), package(&name))).collect()
}

#[test]
fn both_packages_install_all_units() {
    let recipe =
        read(&format!("meta-layer/recipes-connectivity/myelin/myelin_{}.bb", env!("CARGO_PKG_VERSION")));
    let makefile = package("myelin.mk");
    let lists = |text: &str, name: &str| text.split([' ', '\n', '\t', '"', '/']).any(|word| word == name);
    for (name, _) in units() {
        assert!(lists(&makefile, &name), "myelin.mk does not install {name}");
        assert!(lists(&recipe, &name), "the recipe does not know {name}");
    }
}

/// Without the supervisor the time limit is the timer's, and is to be the one that the configuration has.
#[test]
fn the_timer_knows_the_time_limit_of_a_trial() {
    let limit = "10m";
    let example = read("rootfs-overlay/etc/myelin/config.toml.example");
    assert!(example.contains(&format!("\n#time_limit = \"{limit}\"\n")));
    assert!(package("myelin-end-trial.timer").contains(&format!("\nOnActiveSec={limit}in\n")));
}

#[test]
fn units_are_understood_by_systemd() {
    let folder = TempDir::new().unwrap();
    for (name, text) in units() {
        let text = text
            .replace("/usr/bin/myelin", env!("CARGO_BIN_EXE_myelin"))
            .replace("/usr/sbin/myelin-data", "/bin/true");
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for entry in fs::read_dir(folder.path()).unwrap() {
        verify.arg(entry.unwrap().path());
    }
    match verify.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // Faults of the machine's own units are none of ours.
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("myelin")).collect();
            assert!(ours.is_empty(), "{ours:#?}");
        }
        Err(_) => eprintln!("systemd-analyze is not installed: units are not checked"),
    }
}

// --- The layout ------------------------------------------------------------------------------------------

fn layout(name: &str) -> u64 {
    let text = read("buildroot-package/board/common/layout.conf");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("define({name}, "))).expect(name);
    line.trim_end_matches(')').parse().unwrap()
}

#[test]
fn what_repeats_the_layout_says_the_same() {
    let env: Vec<String> = ["ENV_A", "ENV_B"]
        .iter()
        .map(|name| format!("/dev/rootdisk0 {:#x} {:#x}", layout(name) * 512, layout("ENV_COUNT") * 512))
        .collect();
    let config = read("buildroot-package/board/common/fw_env.config");
    assert_eq!(config.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), env);

    let boot = read("buildroot-package/board/qemu_aarch64/boot.cmd");
    for (name, address) in [("ENV_A", "0x41000000"), ("ENV_B", "0x41100000")] {
        let line = format!("\nvirtio read {address} {:#x} {:#x}\n", layout(name), layout("ENV_COUNT"));
        assert!(boot.contains(&line), "{line}");
        assert!(boot.contains(&format!("block={:#x}\n", layout(name))));
    }
    // The redundant format: four bytes of checksum, one of flags, then the data that the script imports.
    let size = layout("ENV_COUNT") * 512;
    assert!(boot.contains(&format!("env export -c -s {:#x} ", size - 1)));
    assert!(boot.contains(&format!("cp.b 0x41000005 0x41200004 {:#x}\n", size - 5)));
}

#[test]
fn autoboot_files_differ_in_two_digits_and_fit_a_sector() {
    let (a, b) = (
        read("buildroot-package/board/rpi/autoboot-a.txt"),
        read("buildroot-package/board/rpi/autoboot-b.txt"),
    );
    assert_eq!(a.len(), b.len());
    assert!(a.len() <= BLOCK);
    assert_eq!(a.bytes().zip(b.bytes()).filter(|(a, b)| a != b).count(), 2);
    for (slot, partition) in [('a', 5), ('b', 6)] {
        for board in ["rpi0", "rpi3", "rpi4", "rpi5"] {
            let line = read(&format!("buildroot-package/board/rpi/{board}/cmdline-{slot}.txt"));
            assert!(line.contains(&format!("root=/dev/mmcblk0p{partition} ")), "{line}");
            assert!(line.contains(&format!("myelin.slot={slot} ")) && line.contains(" panic=1 "), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}

// --- The firmware files of the boards --------------------------------------------------------------------

/// The board folder with stand-ins for what Buildroot makes.
struct Board {
    folder: TempDir,
    name: &'static str,
    /// What the firmware is for, where that is not the board.
    platform: Option<&'static str>,
}

impl Board {
    fn new(name: &'static str) -> Self {
        let folder = TempDir::new().unwrap();
        let images = folder.path().join("images");
        fs::create_dir_all(images.join("rpi-firmware/overlays")).unwrap();
        succeeds(Command::new("cp").arg("-r").arg(top().join("buildroot-package/board")).arg(folder.path()));
        let board = Self { folder, name, platform: None };
        // Every file that the board's resources name, each with a content of its own.
        let mut wanted: Vec<String> =
            ["${IMAGES}/boot.scr", "${IMAGES}/Image", "${IMAGES}/rootfs.squashfs"].map(String::from).to_vec();
        let resources = board.path("board").join(format!("rpi/{name}/resources.conf"));
        for line in fs::read_to_string(resources).unwrap_or_default().lines() {
            wanted.extend(line.split('"').nth(1).map(String::from));
        }
        wanted.push("${FIRMWARE}/config.txt".into());
        for path in wanted {
            let path = path.replace("${OVERLAYS}", "${FIRMWARE}/overlays");
            let path = path.replace("${FIRMWARE}", "${IMAGES}/rpi-firmware");
            let path = path.replace("${IMAGES}", images.to_str().unwrap());
            fs::write(&path, format!("{path}\n").repeat(40)).unwrap();
        }
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn is_pi(&self) -> bool {
        self.name.starts_with("rpi")
    }

    /// Which slot is `/` is the machine's affair; the tests say it by leaving the other slot's tasks out.
    fn runs(&self, slot: char) -> &Self {
        let name = if slot == 'a' { "ROOT_A" } else { "ROOT_B" };
        let folder = if self.is_pi() { "rpi" } else { self.name };
        for file in ["fwup.conf", "fwup-ops.conf"] {
            let text =
                fs::read_to_string(top().join("buildroot-package/board").join(folder).join(file)).unwrap();
            let text = text.replace(&format!("    require-path-at-offset(\"/\", ${{{name}}})\n"), "");
            fs::write(self.path("board").join(folder).join(file), text).unwrap();
        }
        self
    }

    fn fwup(&self, arguments: &[&str]) -> Output {
        let images = self.path("images");
        Command::new(env!("CARGO_BIN_EXE_myelin"))
            .arg("fwup")
            .args(arguments)
            .current_dir(self.folder.path())
            .env("BOARD", self.name)
            .env("IMAGES", &images)
            .env("FIRMWARE", images.join("rpi-firmware"))
            .env("ROOTFS", images.join("rootfs.squashfs"))
            .envs(self.platform.map(|platform| ("PLATFORM", platform)))
            .output()
            .unwrap()
    }

    fn create(&self, config: &str, result: &str) {
        let folder = if self.is_pi() { "rpi" } else { self.name };
        let output = self.fwup(&["-c", "-f", &format!("board/{folder}/{config}"), "-o", result]);
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    /// Applies and gives what was said, with the status in front.
    fn apply(&self, archive: &str, task: &str) -> String {
        let output = self.fwup(&[
            "-a",
            "-q",
            "--reboot-param-path",
            "reboot-param",
            "-d",
            "disk.img",
            "-i",
            archive,
            "-t",
            task,
        ]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        format!("{} {said}", output.status.code().unwrap())
    }

    /// A copy of the disk as it is now.
    fn snapshot(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        succeeds(Command::new("cp").arg("--sparse=always").arg(self.path("disk.img")).arg(&copy));
        copy
    }

    /// The numbers of the blocks that have changed since.
    fn changed_since(&self, before: &Path) -> Vec<u64> {
        let mut files = [File::open(before).unwrap(), File::open(self.path("disk.img")).unwrap()];
        let mut parts = [vec![0; SEGMENT], vec![0; SEGMENT]];
        let mut blocks = Vec::new();
        for first in (0..layout("DATA") + 256).step_by(SEGMENT / BLOCK) {
            for (file, part) in files.iter_mut().zip(&mut parts) {
                file.read_exact(part).unwrap();
            }
            if parts[0] != parts[1] {
                let both = parts[0].chunks(BLOCK).zip(parts[1].chunks(BLOCK)).zip(first..);
                blocks.extend(both.filter(|((one, other), _)| one != other).map(|(_, number)| number));
            }
        }
        blocks
    }

    /// The slots as `myelin firmware status` finds them on the disk.
    fn validated(&self) -> (Option<bool>, Option<bool>) {
        let disk = self.path("disk.img");
        let env: Vec<String> = ["ENV_A", "ENV_B"]
            .iter()
            .map(|name| {
                format!("{} {:#x} {:#x}\n", disk.display(), layout(name) * 512, layout("ENV_COUNT") * 512)
            })
            .collect();
        fs::write(self.path("fw_env.config"), env.concat()).unwrap();
        let config = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\n[firmware]\nenv_config = {:?}\n",
            self.path("state"),
            self.path("run"),
            self.path("fw_env.config")
        );
        fs::write(self.path("config.toml"), config).unwrap();
        let text = succeeds(
            Command::new(env!("CARGO_BIN_EXE_myelin"))
                .args(["firmware", "status", "--json", "--config"])
                .arg(self.path("config.toml")),
        );
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let of = |slot: &str| status["slots"][slot]["validated"].as_bool();
        (of("a"), of("b"))
    }
}

fn within(block: u64, start: &str, count: &str) -> bool {
    (layout(start)..layout(start) + layout(count)).contains(&block)
}

#[test]
fn every_board_installs_and_updates_the_other_slot_only() {
    for name in ["rpi0", "rpi3", "rpi4", "rpi5", "qemu_aarch64"] {
        let board = Board::new(name);
        board.create("fwup.conf", "board.fw");
        assert_eq!(board.apply("board.fw", "complete"), "0 ", "{name}");
        let new = board.snapshot("new.img");
        // `/` of this machine is no slot of the board.
        let refused = board.apply("board.fw", "upgrade");
        assert!(refused.starts_with("1 "), "{name}: {refused}");
        assert!(board.changed_since(&new).is_empty(), "{name}");
        assert_eq!(board.validated(), (Some(true), Some(false)), "{name}");

        board.runs('a').create("fwup.conf", "b.fw");
        assert_eq!(board.apply("b.fw", "upgrade"), "0 ", "{name}");
        let updated = board.snapshot("updated.img");
        for block in board.changed_since(&new) {
            let expected = within(block, "BOOT_B", "BOOT_COUNT")
                || within(block, "ROOT_B", "ROOT_COUNT")
                || within(block, "ENV_A", "ENV_COUNT")
                || within(block, "ENV_B", "ENV_COUNT");
            assert!(expected, "{name}: block {block}");
        }
        let param = fs::read_to_string(board.path("reboot-param")).unwrap_or_default();
        assert_eq!(param, if board.is_pi() { "0 tryboot" } else { "" }, "{name}");
        assert_eq!(board.validated().1, Some(false), "{name}");

        // It starts; until it is validated it may not be updated.
        board.runs('b').create("fwup.conf", "a.fw");
        let refused = board.apply("a.fw", "upgrade");
        assert!(refused.starts_with("1 ") && refused.contains("on trial"), "{name}: {refused}");
        assert!(board.changed_since(&updated).is_empty(), "{name}");
        board.create("fwup-ops.conf", "ops.fw");
        assert_eq!(board.apply("ops.fw", "validate"), "0 ", "{name}");
        assert_eq!(board.validated(), (Some(true), Some(true)), "{name}");
        let blocks = board.changed_since(&updated);
        let in_common = blocks.iter().filter(|&&block| within(block, "COMMON", "COMMON_COUNT")).count();
        // The choice of a Pi is one sector, written in place.
        assert_eq!(in_common, usize::from(board.is_pi()), "{name}: {blocks:?}");
        assert_eq!(board.apply("a.fw", "upgrade"), "0 ", "{name}");
        assert_eq!(board.validated(), (Some(false), Some(true)), "{name}");
    }
}

#[test]
fn a_board_refuses_the_firmware_of_another() {
    for name in ["rpi4", "qemu_aarch64"] {
        let board = Board::new(name);
        board.create("fwup.conf", "board.fw");
        assert_eq!(board.apply("board.fw", "complete"), "0 ");
        let before = board.snapshot("before.img");
        let stranger = Board { platform: Some("toaster"), ..Board::new(name) };
        stranger.runs('a').create("fwup.conf", "stranger.fw");
        let refused = board.apply(stranger.path("stranger.fw").to_str().unwrap(), "upgrade");
        assert!(refused.starts_with("1 ") && refused.contains("for toaster"), "{name}: {refused}");
        assert!(board.changed_since(&before).is_empty(), "{name}");
    }
}

#[test]
fn operations_go_back_stay_and_start_over() {
    for name in ["rpi4", "qemu_aarch64"] {
        let board = Board::new(name);
        board.create("fwup.conf", "board.fw");
        assert_eq!(board.apply("board.fw", "complete"), "0 ");
        board.runs('a').create("fwup-ops.conf", "ops-a.fw");
        let nothing = board.apply("ops-a.fw", "revert");
        assert!(nothing.starts_with("1 ") && nothing.contains("no validated firmware"), "{name}: {nothing}");
        assert!(board.apply("ops-a.fw", "status").ends_with("a\n"), "{name}");

        board.create("fwup.conf", "b.fw");
        assert_eq!(board.apply("b.fw", "upgrade"), "0 ");
        board.runs('b').create("fwup-ops.conf", "ops-b.fw");
        let on_trial = board.apply("ops-b.fw", "prevent-revert");
        assert!(on_trial.starts_with("1 ") && on_trial.contains("on trial"), "{name}: {on_trial}");
        assert_eq!(board.apply("ops-b.fw", "validate"), "0 ", "{name}");
        assert!(board.apply("ops-b.fw", "status").ends_with("b\n"), "{name}");
        assert_eq!(board.apply("ops-b.fw", "revert"), "0 ", "{name}");
        assert!(board.apply("ops-b.fw", "status").ends_with("b->a\n"), "{name}");
        assert_eq!(board.apply("ops-a.fw", "revert"), "0 ", "{name}");
        assert_eq!(board.apply("ops-b.fw", "prevent-revert"), "0 ", "{name}");
        assert_eq!(board.validated(), (Some(false), Some(true)), "{name}");
        assert!(board.apply("ops-b.fw", "revert").starts_with("1 "), "{name}");

        let before = board.snapshot("before.img");
        assert_eq!(board.apply("ops-b.fw", "factory-reset"), "0 ", "{name}");
        assert!(
            board.changed_since(&before).iter().all(|&block| within(block, "DATA", "DATA_COUNT")),
            "{name}"
        );
        let mut disk = File::open(board.path("disk.img")).unwrap();
        let mut data = vec![0; 256 * BLOCK];
        disk.seek(SeekFrom::Start(layout("DATA") * 512)).unwrap();
        disk.read_exact(&mut data).unwrap();
        assert!(data.iter().all(|&byte| byte == 0xff), "{name}");
    }
}

#[test]
fn post_scripts_make_the_image_of_a_board() {
    for (folder, name) in [("rpi", "rpi4"), ("qemu_aarch64", "qemu_aarch64")] {
        let board = Board::new(name);
        let (target, host) = (board.path("target"), board.path("host/bin"));
        fs::create_dir_all(target.join("etc/myelin/conf.d")).unwrap();
        fs::create_dir_all(&host).unwrap();
        symlink(env!("CARGO_BIN_EXE_myelin"), host.join("myelin")).unwrap();
        script(&host, "mkimage", "#!/bin/sh\nfor last; do :; done\necho script > \"$last\"\n");
        let run = |script: &str, first: &Path| {
            succeeds(
                Command::new(top().join("buildroot-package/board/common").join(script))
                    .arg(first)
                    .args([folder, name])
                    .env("HOST_DIR", board.path("host"))
                    .env("FW_VERSION", "4.5.6"),
            )
        };
        // Twice: Buildroot runs them again on the same folder.
        for _ in 0..2 {
            assert!(run("post-build.sh", &target).contains("nobody can log in"), "{name}");
        }
        assert!(target.join("etc/fw_env.config").exists() && target.join("usr/share/fwup/ops.fw").exists());
        for _ in 0..2 {
            run("post-image.sh", &board.path("images"));
        }
        let meta = board.fwup(&["-m", "-i", &format!("images/{name}.fw")]);
        assert!(String::from_utf8_lossy(&meta.stdout).contains("meta-version=4.5.6"), "{name}");
        fs::rename(board.path("images/sdcard.img"), board.path("disk.img")).unwrap();
        assert_eq!(board.validated(), (Some(true), Some(false)), "{name}");
    }
}

// --- The init script -------------------------------------------------------------------------------------

/// The init script with its folders elsewhere, BusyBox's start-stop-daemon, and a program in place of the daemon.
struct Init {
    folder: TempDir,
}

impl Init {
    fn new(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        let text = package("S50myelin")
            .replace("/usr/bin/", &format!("{}/", path.display()))
            .replace("/var/run/", &format!("{}/run/", path.display()))
            .replace("/etc/default/", &format!("{}/default/", path.display()))
            .replace("/dev/kmsg", &format!("{}/log", path.display()));
        script(path, "S50myelin", &text);
        fs::create_dir(path.join("run")).unwrap();
        fs::create_dir(path.join("bin")).unwrap();
        fs::write(path.join("log"), "").unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        symlink(busybox.expect("busybox is installed"), path.join("bin/start-stop-daemon")).unwrap();
        // A copy: start-stop-daemon looks at the program that runs.
        fs::copy(env!("CARGO_BIN_EXE_myelin"), path.join("myelin")).unwrap();
        fs::write(path.join("config.toml"), config).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn call(&self, word: &str) -> String {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(self.path("S50myelin"))
            .arg(word)
            .env("PATH", path)
            .env("MYELIN_CONFIG", self.path("config.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        format!("{} {said}", output.status.code().unwrap())
    }

    fn pid(&self, file: &str) -> Option<u32> {
        let pid = fs::read_to_string(self.path("run").join(file)).ok()?.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn daemon(&self) -> Option<u32> {
        let pid = self.pid("myelin.pid")?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (program == self.path("myelin")).then_some(pid)
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.call("stop");
    }
}

#[test]
fn the_init_script_keeps_the_daemon_running() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display();
    let config = format!(
        "state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[ssh]\nport = 0\nlisten_address = [\"127.0.0.1\"]\n"
    );
    let init = Init::new(&config);
    assert_eq!(init.call("start"), "0 Starting myelin: OK\n");
    wait_until("the daemon runs", || init.daemon().is_some());
    let listened = || init.log().matches("ssh.listen").count();
    wait_until("it listens", || listened() >= 1);
    let first = init.daemon().unwrap();
    assert_eq!(init.call("start"), "0 Starting myelin: OK\n");
    assert_eq!(init.daemon(), Some(first), "a second start changes nothing");

    // Killed, it comes back.
    succeeds(Command::new("kill").args(["-KILL", &first.to_string()]));
    wait_until("another daemon runs", || init.daemon().is_some_and(|pid| pid != first));
    let second = init.daemon().unwrap();
    wait_until("it listens again", || listened() >= 2);

    // `restart` from a login ends with the daemon; the next one starts all the same.
    assert_eq!(init.call("restart"), "0 Restarting myelin: OK\n");
    wait_until("a third daemon runs", || init.daemon().is_some_and(|pid| pid != second));
    wait_until("it can be told to read its files", || init.call("reload") == "0 Reloading myelin: OK\n");

    let keeper = init.pid("myelin-keeper.pid").unwrap();
    assert_eq!(init.call("stop"), "0 Stopping myelin: OK\n");
    assert_eq!(init.daemon(), None);
    wait_until("the keeper ends", || !Path::new(&format!("/proc/{keeper}")).exists());
    assert!(init.call("status").starts_with("1 Usage"));
}

// --- /data -----------------------------------------------------------------------------------------------

/// The script that mounts /data, on a file, with stand-ins for the programs that need root.
struct Data {
    folder: TempDir,
}

impl Data {
    fn new(device: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        fs::write(path.join("device"), device).unwrap();
        let text = package("myelin-data")
            .replace("DEVICE=/dev/rootdisk0p7", &format!("DEVICE={}/device", path.display()))
            .replace("ALARM=/run/alarms/data", &format!("ALARM={}/alarms/data", path.display()))
            .replace("/run/motd", &format!("{}/motd", path.display()))
            .replace("/etc/default/myelin-data", &format!("{}/default", path.display()))
            .replace("/dev/kmsg", &format!("{}/log", path.display()))
            .replace("/dev/rootdisk0", &format!("{}/dev/rootdisk0", path.display()))
            .replace("/sys/", &format!("{}/sys/", path.display()))
            .replace("/proc/cmdline", &format!("{}/cmdline", path.display()))
            .replace("[ -b \"$DEVICE\" ]", "[ -e \"$DEVICE\" ]");
        script(path, "myelin-data", &text);
        fs::create_dir(path.join("bin")).unwrap();
        let note = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> {}/calls\n", path.display());
        script(&path.join("bin"), "mountpoint", "#!/bin/sh\nfalse\n");
        for name in ["mount", "e2fsck", "mke2fs"] {
            script(&path.join("bin"), name, &format!("{note}[ ! -e {}/fails-$1 ]\n", path.display()));
        }
        // mount fails as long as the file says how often.
        let mount = format!(
            "{note}[ \"$2\" = tmpfs ] && exit\nn=$(cat {0}/failures 2>/dev/null) || exit 0\n[ \"$n\" -gt 0 ] || exit 0\n\
             echo $((n - 1)) > {0}/failures\nexit 1\n",
            path.display()
        );
        script(&path.join("bin"), "mount", &mount);
        Self { folder }
    }

    /// A disk in a sysfs of its own: `/` is the second of three partitions, or something that is none.
    fn with_disk(self, root: &str, command_line: &str) -> Self {
        let path = self.folder.path();
        let disk = path.join("sys/devices/mmcblk0");
        for number in [5, 6, 7] {
            let partition = disk.join(format!("mmcblk0p{number}"));
            fs::create_dir_all(&partition).unwrap();
            fs::write(partition.join("partition"), format!("{number}\n")).unwrap();
        }
        for (name, target) in [("dev/block/179:6", "mmcblk0p6"), ("class/block/mmcblk0p6", "mmcblk0p6")] {
            let link = path.join("sys").join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(disk.join(target), link).unwrap();
        }
        fs::create_dir(path.join("dev")).unwrap();
        fs::write(path.join("cmdline"), command_line).unwrap();
        let mountpoint = format!("#!/bin/sh\n[ \"$1\" = -d ] && echo {root}\n");
        script(&path.join("bin"), "mountpoint", &mountpoint);
        self
    }

    fn fails(self, times: u32) -> Self {
        fs::write(self.folder.path().join("failures"), times.to_string()).unwrap();
        self
    }

    /// The programs it called, with their first argument.
    fn run(&self) -> Vec<String> {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        succeeds(Command::new(self.folder.path().join("myelin-data")).env("PATH", path));
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let words = |line: &str| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        calls.lines().map(words).collect()
    }

    fn alarm(&self) -> String {
        fs::read_to_string(self.folder.path().join("alarms/data")).unwrap_or_default()
    }
}

const MEBIBYTE: usize = 1 << 20;

/// Time and number of mounts, and the magic number.
fn ext4_like() -> Vec<u8> {
    let mut disk = vec![0; MEBIBYTE];
    disk[1024 + 44..][..4].copy_from_slice(&[1, 2, 3, 4]);
    disk[1024 + 52] = 1;
    disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
    disk
}

#[test]
fn a_good_file_system_is_only_mounted() {
    let data = Data::new(&ext4_like());
    assert_eq!(data.run(), ["mount -t ext4"]);
    assert_eq!(data.alarm(), "");
}

#[test]
fn a_new_disk_gets_a_file_system() {
    let mut wiped = ext4_like();
    wiped[..128 << 10].fill(0xff);
    // What a power cut leaves of mke2fs, which writes the superblock last.
    let mut begun = wiped.clone();
    begun[1024..4096].fill(0);
    begun[8192..16384].fill(0x5a);
    for disk in [wiped, begun, vec![0; MEBIBYTE]] {
        assert_eq!(Data::new(&disk).run(), ["mke2fs -F -q", "mount -t ext4"]);
    }
}

#[test]
fn a_file_system_that_was_never_mounted_is_made_again_when_it_cannot_be() {
    let mut begun = ext4_like();
    begun[1024 + 44..][..10].fill(0);
    assert_eq!(Data::new(&begun).run(), ["mount -t ext4"]);
    assert_eq!(Data::new(&begun).fails(1).run(), ["mount -t ext4", "mke2fs -F -q", "mount -t ext4"]);
}

#[test]
fn a_damaged_file_system_is_repaired_and_never_made_anew() {
    // The start is gone, a backup of the superblock is there: 8193 blocks of 1 KiB in.
    let mut headless = vec![0; 10 * MEBIBYTE];
    headless[8193 * 1024 + 56..][..2].copy_from_slice(&[0x53, 0xef]);
    let mut garbage = headless.clone();
    garbage[..4096].fill(0x5a);
    for disk in [ext4_like(), garbage, headless] {
        let data = Data::new(&disk).fails(1);
        let calls = data.run();
        assert_eq!(calls.len(), 3, "{calls:?}");
        assert!(calls[1].starts_with("e2fsck -p "), "{calls:?}");
        let data = Data::new(&disk).fails(2);
        let calls = data.run();
        assert!(calls[3].starts_with("e2fsck -y ") && calls.len() == 5, "{calls:?}");
        assert_eq!(data.alarm(), "");
    }
}

#[test]
fn when_nothing_helps_a_tmpfs_stands_in_and_an_alarm_says_so() {
    let data = Data::new(&ext4_like()).fails(9);
    let calls = data.run();
    assert_eq!(calls.last().map(String::as_str), Some("mount -t tmpfs"));
    assert!(!calls.iter().any(|call| call.starts_with("mke2fs")), "{calls:?}");
    assert!(data.alarm().contains("last until the reboot"), "{}", data.alarm());
}

#[test]
fn the_root_disk_gets_the_same_names_on_every_board() {
    for (root, command_line) in [("179:6", ""), ("0:25", "console=x root=/dev/mmcblk0p6 ro\n")] {
        let data = Data::new(&ext4_like()).with_disk(root, command_line);
        data.run();
        let target = |name: &str| fs::read_link(data.folder.path().join("dev").join(name)).unwrap();
        assert_eq!(target("rootdisk0"), Path::new("mmcblk0"));
        assert_eq!(target("rootdisk0p5"), Path::new("mmcblk0p5"));
        assert_eq!(target("rootdisk0p7"), Path::new("mmcblk0p7"));
    }
}
