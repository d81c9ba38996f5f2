//! A device that has 16 MiB left: everything that makes the daemon hold bytes for somebody, in a cgroup with that limit.
//! Files that are written are in the kernel's cache, which counts there too, and has to give way.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::strangers::half_sent_packets;
use common::transfer::{client, succeeded};
use common::{Device, descendants, new_folder, pipe_into, random_bytes, text, wait_until};

/// What the daemon and all that it starts may have besides what it has when nobody is there.
const LEFT: u64 = 16 << 20;

/// A memory cgroup of the test's own, of version 1 or 2.
struct Group {
    path: PathBuf,
    is_v2: bool,
}

impl Group {
    /// `None` where none can be made, which is said loudly.
    fn new() -> Option<Self> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = Path::new(if is_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" });
        if is_v2 {
            // It may be there already, or not ours to add; the file of the limit tells.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let group = Self { path: root.join(format!("myelin-test-{}", std::process::id())), is_v2 };
        if fs::create_dir(&group.path).is_err() || !group.path.join(group.limit_file()).exists() {
            eprintln!("SKIPPED: no memory cgroup can be made here; a device without memory is not tested");
            return None;
        }
        Some(group)
    }

    fn limit_file(&self) -> &'static str {
        if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" }
    }

    /// A command that puts itself into the group and becomes another one.
    fn wrapper(&self) -> [String; 4] {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    fn used(&self) -> u64 {
        // What the cache can do without does not count. An old kernel cannot be told to drop it.
        let (file, word) = if self.is_v2 { ("memory.reclaim", "1G") } else { ("memory.force_empty", "0") };
        let _ = fs::write(self.path.join(file), word);
        let used = if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
        fs::read_to_string(self.path.join(used)).unwrap().trim().parse().unwrap()
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.path.join(self.limit_file()), bytes.to_string()).unwrap();
        // Without room on a swap device either, where there is one.
        let (swap, bytes) =
            if self.is_v2 { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", bytes) };
        let _ = fs::write(self.path.join(swap), bytes.to_string());
    }

    /// How many processes the kernel has killed in it for want of memory.
    fn killed(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let counts = fs::read_to_string(self.path.join(file)).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let began = Instant::now();
        // The last process may not be gone yet.
        while fs::remove_dir(&self.path).is_err() && began.elapsed() < common::PATIENCE {
            sleep(Duration::from_millis(50));
        }
    }
}

/// Runs a line of shell, which a dead-lock must not hold for ever.
fn shell(line: &str) -> Output {
    Command::new("timeout").args(["90", "sh", "-c", line]).stdin(Stdio::null()).output().unwrap()
}

/// What makes the daemon hold bytes; named by the rows of docs/conformance.md.
type Load = fn(&Device);

/// B24: strangers who send the most of a packet.
fn strangers(device: &Device) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (announced, _held) = half_sent_packets(device.port, 200).await;
        assert!(announced > 100, "only {announced} got as far");
        device.assert_reachable();
    });
}

/// C5: output that is read late.
fn late_reader(device: &Device) {
    let big = random_bytes(48 << 20, 3);
    let file = device.path("big");
    fs::write(&file, &big).unwrap();
    let output = shell(&format!("{} cat <{} | (sleep 2; cksum)", device.ssh_line(&[]), file.display()));
    assert_eq!(text(&output.stdout), text(&pipe_into(&mut Command::new("cksum"), &big).stdout), "{output:?}");
}

/// C19: a channel whose program reads nothing, and its sibling.
fn stalled_channel(device: &Device) {
    let quiet = |command: &mut Command| -> Child {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let socket = device.path("master");
    let control = format!("ControlPath={}", socket.display());
    let mut master = quiet(&mut device.ssh_with(&["-M", "-N", "-o", &control]));
    wait_until("the master is there", || socket.exists());
    let line = format!("head -c 40M /dev/zero | {} 'sleep 12'", device.ssh_line(&["-o", &control]));
    let mut stalled = quiet(Command::new("sh").args(["-c", &line]));
    let worker = device.worker();
    wait_until("it runs", || descendants(worker).iter().any(|(_, line)| line.ends_with("sleep 12")));
    sleep(Duration::from_secs(2));
    let answer = device.ssh_with(&["-o", &control]).arg("echo here").output().unwrap();
    assert_eq!(text(&answer.stdout), "here\n");
    assert!(stalled.try_wait().unwrap().is_none(), "the other is still at it");
    master.kill().unwrap();
    master.wait().unwrap();
    stalled.wait().unwrap();
}

/// F14: a firmware for a card that takes a megabyte a second.
fn slow_card(device: &Device) {
    let script = "#!/bin/sh\nfor n in $(seq 64); do head -c 262144 >/dev/null; sleep 0.2; done\ncat >/dev/null\n\
                  printf '\\032\\000'\n";
    fs::write(device.path("fwup"), script).unwrap();
    fs::set_permissions(device.path("fwup"), fs::Permissions::from_mode(0o755)).unwrap();
    let alive = ["-o", "ServerAliveInterval=5", "-s"];
    let output = pipe_into(device.ssh_with(&alive).arg("fwup"), &vec![7; 24 << 20]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// D6: many requests at once.
fn many_requests(device: &Device) {
    let big = random_bytes(96 << 20, 4);
    let (local, remote) = (device.path("local"), device.path("remote"));
    fs::write(&local, &big).unwrap();
    let batch = format!("put {0} {1}\nget {1} {0}.back\n", local.display(), remote.display());
    let options = ["-b", "-", "-R", "512", "-B", "32768"];
    succeeded(&pipe_into(client(device, "sftp", &options).arg("root@127.0.0.1"), batch.as_bytes()), "sftp");
    assert!(fs::read(&remote).unwrap() == big && fs::read(device.path("local.back")).unwrap() == big);
}

#[test]
fn sixteen_megabytes_are_enough_for_everything() {
    let Some(group) = Group::new() else { return };
    let (folder, public) = new_folder();
    let here = folder.path().display();
    let firmware = format!(
        "[firmware]\nfwup = \"{here}/fwup\"\ndevpath = \"/dev/null\"\nenv_file = \"{here}/env\"\n\
         success_action = \"none\"\n"
    );
    let wrapper = group.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let device = Device::start_wrapped(folder, &wrapper, &public, "login_grace_time = 5", &firmware);
    device.wait_until_it_answers();
    device.assert_reachable();
    let worker = device.worker();
    wait_until("nobody is there", || descendants(worker).is_empty());
    let idle = group.used();
    group.limit(idle + LEFT);
    let loads: [Load; 5] = [strangers, late_reader, stalled_channel, slow_card, many_requests];
    for (row, load) in ["B24", "C5", "C19", "F14", "D6"].into_iter().zip(loads) {
        let began = Instant::now();
        load(&device);
        eprintln!("{row}: {:?}; idle it was {} KiB", began.elapsed(), idle >> 10);
        assert_eq!(group.killed(), 0, "{row}: the kernel killed a process for want of memory");
        assert_eq!(device.worker(), worker, "{row}\n{}", device.log());
        device.assert_reachable();
    }
    drop(device);
    // The limit holds: whoever takes more is killed.
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    let taken = Command::new(wrapper[0]).args(&wrapper[1..]).args(hog).output().unwrap();
    assert!(!taken.status.success() && group.killed() > 0, "{taken:?}");
}
