//! Devices that announce themselves, on a network that the test makes: a bridge, and a network namespace for each
//! device and for the workstation. The clients are dig, Python's zeroconf, avahi, and our own commands.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{PATIENCE, text, wait_at_most, wait_until};

/// A switch in a namespace of its own, and those that are plugged in.
struct Network {
    prefix: String,
    namespaces: Vec<String>,
}

fn ip(words: &[&str]) -> bool {
    let output = Command::new("ip").args(words).output().expect("ip is installed (apt install iproute2)");
    let done = output.status.success();
    if !done {
        eprintln!("ip {}: {}", words.join(" "), text(&output.stderr).trim());
    }
    done
}

impl Network {
    /// `None` where this machine cannot make one, which is said loudly.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("my{}-{number}", std::process::id());
        let mut network = Self { prefix, namespaces: Vec::new() };
        let hub = network.namespace("hub")?;
        let made = ip(&["-n", &hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
            && ip(&["-n", &hub, "link", "set", "dev", "br0", "up"]);
        if !made {
            eprintln!("SKIPPED: this kernel has no bridges; nothing of multicast DNS was tested");
            return None;
        }
        Some(network)
    }

    fn namespace(&mut self, name: &str) -> Option<String> {
        let name = format!("{}-{name}", self.prefix);
        if !ip(&["netns", "add", &name]) {
            eprintln!(
                "SKIPPED: network namespaces cannot be made (not root?); nothing of multicast DNS was tested"
            );
            return None;
        }
        self.namespaces.push(name.clone());
        // A link-local address is there at once, without a search for others that have it.
        let quick = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up";
        let made = Command::new("ip").args(["netns", "exec", &name, "sh", "-c", quick]).status();
        assert!(made.unwrap().success());
        Some(name)
    }

    /// Plugs in somebody new.
    fn join(&mut self, name: &str, address: &str) -> Place {
        let namespace = self.namespace(name).expect("the first one could be made");
        let hub = self.namespaces[0].clone();
        let plug = format!("plug-{name}");
        let pair = ["type", "veth", "peer", "name", &plug, "netns", &hub];
        assert!(ip(&[&["link", "add", "eth0", "netns", &namespace][..], &pair].concat()));
        assert!(ip(&["-n", &hub, "link", "set", "dev", &plug, "master", "br0", "up"]));
        assert!(ip(&["-n", &namespace, "addr", "add", address, "dev", "eth0"]));
        assert!(ip(&["-n", &namespace, "link", "set", "dev", "eth0", "up"]));
        Place { namespace }
    }

    /// The same for a workstation, whose plain resolvers need a route; a device must do without.
    fn desk(&mut self, address: &str) -> Place {
        let place = self.join("desk", address);
        assert!(ip(&["-n", &place.namespace, "route", "add", "224.0.0.0/4", "dev", "eth0"]));
        place
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            ip(&["netns", "del", namespace]);
        }
    }
}

/// Where somebody is plugged in.
struct Place {
    namespace: String,
}

impl Place {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).stdin(Stdio::null());
        command
    }

    fn myelin(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_myelin"));
        command.args(words).env_remove("MYELIN_HOST");
        command
    }

    /// The answers of dig, which asks a device directly: it hears no others than whom it asks.
    fn dig(&self, server: &str, name: &str, kind: &str) -> String {
        let server = format!("@{server}");
        let words = ["+short", "+tries=1", "+time=2", "-p", "5353", &server, name, kind];
        let output =
            self.command("dig").args(words).output().expect("dig is installed (apt install dnsutils)");
        let answers = text(&output.stdout);
        answers.lines().filter(|line| !line.starts_with(";;")).map(|line| format!("{line}\n")).collect()
    }

    /// The addresses of a name, as a plain resolver finds them that asks everybody.
    fn addresses(&self, name: &str) -> Vec<String> {
        let python = ["-W", "ignore", "-c", RESOLVER, name];
        let output = self.command("/usr/bin/python3").args(python).output().unwrap();
        assert!(output.status.success(), "{} (apt install python3-zeroconf)", text(&output.stderr));
        text(&output.stdout).split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until a name has this address and no other.
    fn wait_for_address(&self, name: &str, address: &str) {
        wait_at_most(LONG, &format!("{name} is {address}"), &mut || self.addresses(name) == [address]);
    }
}

const RESOLVER: &str = r#"
import socket, sys, time, zeroconf as z
name, kind = sys.argv[1] + ".", 1
out = z.DNSOutgoing(0, False)
out.add_question(z.DNSQuestion(name, kind, 1))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(out.packets()[0], ("224.0.0.251", 5353))
end, found = time.monotonic() + 1.5, set()
while (left := end - time.monotonic()) > 0:
    s.settimeout(left)
    try:
        message = z.DNSIncoming(s.recv(9000))
    except TimeoutError:
        break
    answers = message.answers() if callable(message.answers) else message.answers
    found |= {socket.inet_ntoa(a.address) for a in answers if a.type == kind and a.name.lower() == name}
print(*sorted(found), sep="\n")
"#;

/// Names take two seconds to be had; this machine may be busy.
const LONG: Duration = PATIENCE.saturating_mul(3);

/// A device in its place.
struct Device {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Device {
    /// `serial` and `ssh` go into its store and its configuration.
    fn start(place: &Place, serial: &str, mdns: &str, ssh: &str) -> Self {
        let (folder, public) = common::new_folder();
        let here = folder.path().display();
        fs::write(folder.path().join("env"), store(serial)).unwrap();
        fs::write(folder.path().join("disk.img"), "").unwrap();
        script(
            &folder.path().join("fwup"),
            &format!("cat >{here}/got\nprintf 'Success!\\n\\032\\000'\ncat >/dev/null"),
        );
        let config = format!(
            "state_dir = \"{here}/state\"\nruntime_dir = \"{here}/run\"\n[mdns]\nannounce = true\n{mdns}\n\
             [firmware]\nenv_file = \"{here}/env\"\nfwup = \"{here}/fwup\"\ndevpath = \"{here}/disk.img\"\n\
             success_action = \"none\"\n[ssh]\nauthorized_keys = [{public:?}]\n{ssh}\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let config = folder.path().join("config.toml").display().to_string();
        let mut daemon = place.myelin(&["daemon", "--config", &config]);
        daemon.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
        let daemon = daemon.stderr(log).spawn().unwrap();
        Self { folder, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn wait_for_log(&self, words: &str) {
        wait_at_most(LONG, &format!("the log says {words:?}"), &mut || self.log().contains(words));
    }

    /// The pid of one of its workers. `ip netns exec` became the daemon.
    fn worker(&self, title: &str) -> Option<u32> {
        let all = common::descendants(self.daemon.id());
        all.into_iter().find(|(_, line)| line.starts_with(title)).map(|(pid, _)| pid)
    }

    fn stop(&mut self) {
        common::signal(self.daemon.id(), "TERM");
        wait_until("the daemon has ended", || self.daemon.try_wait().unwrap().is_some());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        end(&mut self.daemon);
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

/// Ends a program that may have ended.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        common::signal(child.id(), "TERM");
        let _ = child.wait();
    }
}

/// avahi with this host name, until it is dropped.
struct Avahi {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Avahi {
    fn start(place: &Place, name: &str) -> Self {
        let folder = common::new_folder().0;
        let config = folder.path().join("avahi.conf");
        fs::write(&config, format!("[server]\nhost-name={name}\nuse-ipv6=yes\nenable-dbus=no\n")).unwrap();
        // Its pid file has a fixed place.
        let run = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && \
                   exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f \"$0\"";
        let mut avahi = place.command("unshare");
        avahi.args(["--mount", "sh", "-c", run]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: avahi.spawn().unwrap(), _folder: folder }
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn store(serial: &str) -> String {
    format!(
        "nerves_fw_active=a\nnerves_serial_number={serial}\na.nerves_fw_product=box\na.nerves_fw_version=1.2\n\
         a.nerves_fw_platform=board-x\na.nerves_fw_uuid=u\nb.nerves_fw_uuid=none\n"
    )
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Makes new.fw in the folder.
fn firmware(folder: &Path) -> PathBuf {
    fs::write(folder.join("noise"), common::random_bytes(300_000, 7)).unwrap();
    let config = "meta-product = \"box\"\nmeta-version = \"2.0\"\nmeta-platform = \"board-x\"\n\
         file-resource noise { host-path = \"noise\" }\ntask upgrade { on-resource noise { raw_write(0) } }\n";
    fs::write(folder.join("fwup.conf"), config).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_myelin"))
        .args(["fwup", "-c", "-f", "fwup.conf", "-o", "new.fw"])
        .current_dir(folder)
        .status();
    assert!(made.unwrap().success());
    folder.join("new.fw")
}

fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a Python program with Debian's interpreter, which has Debian's packages.
fn zeroconf(place: &Place, program: &str) -> Child {
    place
        .command("timeout")
        .args(["120", "/usr/bin/python3", "-u", "-W", "ignore", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A browser that prints what comes and goes, until its stdin ends.
const BROWSER: &str = r#"
import sys, zeroconf as z
class Listener(z.ServiceListener):
    def add_service(self, zc, type_, name):
        info = zc.get_service_info(type_, name, 10000)
        facts = ",".join(f"{k.decode()}={v.decode()}" for k, v in sorted(info.properties.items()))
        print("added", name, info.server, info.port, ",".join(sorted(info.parsed_addresses(z.IPVersion.V4Only))), facts)
    def update_service(self, zc, type_, name):
        pass
    def remove_service(self, zc, type_, name):
        print("removed", name)
zc = z.Zeroconf()
print("types", *z.ZeroconfServiceTypes.find(zc=zc, timeout=3))
z.ServiceBrowser(zc, "_ssh._tcp.local.", Listener())
sys.stdin.read()
"#;

/// Lines of a program as they come.
struct Lines {
    child: Child,
    seen: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Lines {
    fn of(mut child: Child) -> Self {
        use std::io::BufRead;
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (stdout, into) = (child.stdout.take().unwrap(), seen.clone());
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        Self { child, seen }
    }

    fn wait_for(&self, line: &str) {
        let seen = || self.seen.lock().unwrap().iter().any(|seen| seen == line);
        wait_at_most(LONG, &format!("{line:?} is said; so far: {:?}", self.seen.lock().unwrap()), &mut {
            seen
        });
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- lines ---\n{}", self.seen.lock().unwrap().join("\n"));
        }
    }
}

#[test]
fn a_device_is_found_by_name_and_by_service_and_says_goodbye() {
    let Some(mut network) = Network::new() else { return };
    let (place, desk) = (network.join("dev", "10.77.0.2/24"), network.desk("10.77.0.9/24"));
    let mut device = Device::start(&place, "SN_0042", "", "port = 2222");
    desk.wait_for_address("myelin-sn-0042.local", "10.77.0.2");
    assert_eq!(desk.dig("10.77.0.2", "_ssh._tcp.local", "PTR"), "myelin-sn-0042._ssh._tcp.local.\n");
    assert_eq!(desk.dig("10.77.0.2", "_services._dns-sd._udp.local", "PTR"), "_ssh._tcp.local.\n");
    assert_eq!(
        desk.dig("10.77.0.2", "myelin-sn-0042._ssh._tcp.local", "SRV"),
        "0 0 2222 myelin-sn-0042.local.\n"
    );
    let facts = desk.dig("10.77.0.2", "myelin-sn-0042._ssh._tcp.local", "TXT");
    let expected = format!(
        "\"myelin={}\" \"product=box\" \"version=1.2\" \"platform=board-x\" \"serial=SN_0042\"\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(facts, expected);
    assert!(desk.dig("10.77.0.2", "myelin-sn-0042.local", "AAAA").starts_with("fe80:"));
    assert_eq!(desk.dig("10.77.0.2", "other.local", "A"), "");
    // It has the rights of nobody, and is the first to die for memory.
    let worker = device.worker("myelin: mdns").expect("the worker runs");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(
        status.contains("Uid:\t65534\t65534\t65534\t65534\n")
            && status.contains("CapEff:\t0000000000000000\n")
    );
    assert_eq!(fs::read_to_string(format!("/proc/{worker}/oom_score_adj")).unwrap(), "0\n");

    let browser = Lines::of(zeroconf(&desk, BROWSER));
    browser.wait_for("types _ssh._tcp.local.");
    let name = "myelin-sn-0042._ssh._tcp.local.";
    let facts = expected.trim().replace("\" \"", "\n").replace('"', "");
    let mut facts: Vec<&str> = facts.lines().collect();
    facts.sort_unstable();
    browser.wait_for(&format!("added {name} myelin-sn-0042.local. 2222 10.77.0.2 {}", facts.join(",")));
    device.stop();
    browser.wait_for(&format!("removed {name}"));
    assert!(!device.log().contains("panicked"), "{}", device.log());
}

#[test]
fn a_worker_that_dies_is_replaced_and_ssh_does_not_notice() {
    let Some(mut network) = Network::new() else { return };
    let (place, desk) = (network.join("dev", "10.77.1.2/24"), network.desk("10.77.1.9/24"));
    let device = Device::start(&place, "1", "host_name = \"box\"", "port = 2222");
    desk.wait_for_address("box.local", "10.77.1.2");
    let (ssh, worker) = (device.worker("myelin: ssh"), device.worker("myelin: mdns").unwrap());
    common::signal(worker, "KILL");
    wait_at_most(LONG, "another worker runs", &mut || {
        device.worker("myelin: mdns").is_some_and(|pid| pid != worker)
    });
    desk.wait_for_address("box.local", "10.77.1.2");
    assert_eq!(device.worker("myelin: ssh"), ssh);
    // A new address is known without a restart, and the old one is not any more.
    assert!(ip(&["-n", &place.namespace, "addr", "add", "10.77.1.3/24", "dev", "eth0"]));
    wait_at_most(LONG, "the second address is known", &mut || {
        desk.addresses("box.local") == ["10.77.1.2", "10.77.1.3"]
    });
    assert!(ip(&["-n", &place.namespace, "addr", "flush", "dev", "eth0", "scope", "global"]));
    assert!(ip(&["-n", &place.namespace, "addr", "add", "10.77.1.4/24", "dev", "eth0"]));
    desk.wait_for_address("box.local", "10.77.1.4");
    // And a network that came later.
    assert!(ip(&["-n", &place.namespace, "link", "set", "dev", "eth0", "down"]));
    wait_at_most(LONG, "nobody answers", &mut || desk.addresses("box.local").is_empty());
    assert!(ip(&["-n", &place.namespace, "link", "set", "dev", "eth0", "up"]));
    desk.wait_for_address("box.local", "10.77.1.4");
}

#[test]
fn two_devices_of_one_name_get_two() {
    let Some(mut network) = Network::new() else { return };
    let (one, two) = (network.join("one", "10.77.2.2/24"), network.join("two", "10.77.2.3/24"));
    let desk = network.desk("10.77.2.9/24");
    let first = Device::start(&one, "", "host_name = \"box\"", "");
    desk.wait_for_address("box.local", "10.77.2.2");
    let second = Device::start(&two, "", "host_name = \"box\"", "");
    desk.wait_for_address("box-2.local", "10.77.2.3");
    assert_eq!(desk.addresses("box.local"), ["10.77.2.2"]);
    first.wait_for_log("host=\"box.local\"");
    assert!(!first.log().contains("box-2"), "{}", first.log());
    second.wait_for_log("host=\"box-2.local\"");
    // Both are found, and neither is taken for an upload.
    let listed = desk.myelin(&["discover", "--json"]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let names: Vec<&str> =
        listed["devices"].as_array().unwrap().iter().filter_map(|device| device["name"].as_str()).collect();
    assert_eq!(names, ["box-2.local", "box.local"]);
    assert_eq!(listed["devices"][1]["address"], "10.77.2.2");
    let new = firmware(first.folder.path());
    let output = desk.myelin(&["upload"]).current_dir(new.parent().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", all(&output));
    let said = all(&output);
    assert!(said.contains("several devices are there"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("box-2.local  10.77.2.3  box  1.2")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("box.local") && line.contains("10.77.2.2")), "{said}");
}

#[test]
fn an_upload_without_a_host_finds_the_device() {
    let Some(mut network) = Network::new() else { return };
    let (place, desk) = (network.join("dev", "10.77.3.2/24"), network.desk("10.77.3.9/24"));
    let (folder, _) = common::new_folder();
    let new = firmware(folder.path());
    let upload = |key: &Path, more: &[&str]| {
        let known = format!("UserKnownHostsFile={}/known", folder.path().display());
        let mut command = desk.myelin(&["upload", "--no-wait"]);
        command.args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "BatchMode=yes",
            "-l",
            "root",
        ]);
        command.args(["-o", &known, "-o", "IdentitiesOnly=yes", "-i"]).arg(key).args(more);
        command.current_dir(folder.path()).output().unwrap()
    };
    // Nobody is there: the old name, which nobody has either.
    let output = upload(Path::new("none"), &[]);
    assert_eq!(output.status.code(), Some(4), "{}", all(&output));
    assert!(all(&output).contains("nerves.local"), "{}", all(&output));
    let output = desk.myelin(&["discover", "--wait", "1"]).output().unwrap();
    assert!(
        output.status.code() == Some(1) && all(&output).contains("no device answered"),
        "{}",
        all(&output)
    );

    let device = Device::start(&place, "7", "", "port = 2222");
    desk.wait_for_address("myelin-7.local", "10.77.3.2");
    let output = upload(&device.path("key"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", all(&output), device.log());
    let found = "Found:     myelin-7.local  10.77.3.2 port 2222  box  1.2  board-x  7\n";
    assert!(all(&output).contains(found), "{}", all(&output));
    assert_eq!(fs::read(device.path("got")).unwrap(), fs::read(new).unwrap());
    // Its key is known by the name, whatever address it has tomorrow.
    let known = fs::read_to_string(folder.path().join("known")).unwrap();
    assert!(known.starts_with("myelin-7.local ssh-ed25519 "), "{known}");
    let output = upload(&device.path("key"), &["--dry-run"]);
    assert!(all(&output).contains("HostName=10.77.3.2"), "{}", all(&output));
    let listed = text(&desk.myelin(&["discover"]).output().unwrap().stdout);
    assert_eq!(listed, "myelin-7.local  10.77.3.2 port 2222  box  1.2  board-x  7\n");
}

#[test]
fn avahi_on_the_same_device_keeps_working() {
    let Some(mut network) = Network::new() else { return };
    let (place, desk) = (network.join("dev", "10.77.4.2/24"), network.desk("10.77.4.9/24"));
    let _avahi = Avahi::start(&place, "other");
    desk.wait_for_address("other.local", "10.77.4.2");
    let mut device = Device::start(&place, "1", "host_name = \"box\"", "");
    desk.wait_for_address("box.local", "10.77.4.2");
    desk.wait_for_address("other.local", "10.77.4.2");
    device.stop();
    assert_eq!(desk.addresses("box.local"), [""; 0]);
    desk.wait_for_address("other.local", "10.77.4.2");
}

#[test]
fn avahi_elsewhere_and_we_give_way_to_each_other() {
    let Some(mut network) = Network::new() else { return };
    let (one, two) = (network.join("one", "10.77.5.2/24"), network.join("two", "10.77.5.3/24"));
    let desk = network.desk("10.77.5.9/24");
    let avahi = Avahi::start(&one, "box");
    desk.wait_for_address("box.local", "10.77.5.2");
    let device = Device::start(&two, "1", "host_name = \"box\"", "");
    desk.wait_for_address("box-2.local", "10.77.5.3");
    desk.wait_for_address("box.local", "10.77.5.2");
    // The other way round; it is gone with a goodbye, so that its name is free.
    drop(avahi);
    drop(device);
    let _device = Device::start(&two, "1", "host_name = \"box\"", "");
    desk.wait_for_address("box.local", "10.77.5.3");
    let _avahi = Avahi::start(&one, "box");
    desk.wait_for_address("box-2.local", "10.77.5.2");
    desk.wait_for_address("box.local", "10.77.5.3");
}

#[test]
fn nothing_is_announced_unless_it_is_asked_for() {
    let device = common::Device::start("", "");
    assert_eq!(
        common::descendants(device.daemon.id())
            .iter()
            .filter(|(_, line)| line.starts_with("myelin: mdns"))
            .count(),
        0
    );
    // And where there is nothing but the loopback, the worker waits for more.
    let Some(mut network) = Network::new() else { return };
    let place = Place { namespace: network.namespace("alone").unwrap() };
    let device = Device::start(&place, "1", "", "port = 2222");
    wait_at_most(LONG, "the worker runs", &mut || device.worker("myelin: mdns").is_some());
    assert!(!device.log().contains("ERROR"), "{}", device.log());
}
