//! diffie-hellman-group-exchange-sha256, where it is switched on: which group a client gets, which clients get none, and
//! that a crowd of strangers who want one does not keep others out.

#![allow(clippy::disallowed_methods, reason = "tests may write files as they like")]

mod common;

use std::fs;
use std::process::Stdio;

use common::transfer::{python, succeeded};
use common::{Device, text};

/// The only key exchange, so that nothing else can be what works.
const ONLY: &str = "kex_algorithms = \"diffie-hellman-group-exchange-sha256\"";
/// ssh wants groups of 3072 bits for the first, and the largest there are for the second.
const CIPHERS: [&str; 2] = ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

/// What ssh asked for, and the size of the group that it got.
#[track_caller]
fn group(device: &Device, cipher: &str) -> (String, String) {
    let cipher = format!("Ciphers={cipher}");
    let kex = "KexAlgorithms=diffie-hellman-group-exchange-sha256";
    let mut ssh = device.ssh_with(&["-o", "LogLevel=DEBUG3", "-o", kex, "-o", &cipher]);
    let output = ssh.arg("echo in").stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), "in\n", "{said}\n{}", device.log());
    let after = |start: &str| {
        let (_, rest) = said.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {said}"));
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let bits = after("bits set: ");
    (after("SSH2_MSG_KEX_DH_GEX_REQUEST"), bits.split_once('/').unwrap().1.to_owned())
}

#[test]
fn a_client_gets_the_next_larger_group_within_the_limits() {
    let [small, large] = CIPHERS;
    for (limits, cipher, bits) in [
        ("", small, "3072"),
        ("dh_gex_min = 4096", small, "4096"),
        ("dh_gex_max = 4096", large, "4096"),
        ("dh_gex_min = 2048\ndh_gex_max = 2048", large, "2048"),
    ] {
        let device = Device::start(&format!("{ONLY}\n{limits}"), "");
        let wanted = if cipher == small { "(2048<3072<8192)" } else { "(2048<8192<8192)" };
        assert_eq!(group(&device, cipher), (wanted.into(), bits.into()), "{limits}");
    }
    let sshd = Device::start_sshd("KexAlgorithms diffie-hellman-group-exchange-sha256");
    assert_eq!(group(&sshd, small).1, "3072");
}

#[test]
fn the_groups_are_those_of_the_file() {
    let Ok(all) = fs::read_to_string("/etc/ssh/moduli") else {
        eprintln!("SKIPPED: there are no groups to read, /etc/ssh/moduli is OpenSSH's");
        return;
    };
    let one = all.lines().find(|line| line.contains(" 4095 2 ")).expect("OpenSSH has groups of 4096 bits");
    let (folder, public) = common::new_folder();
    let file = folder.path().join("moduli");
    fs::write(&file, format!("# Ours\nthis is none\n{one}\n")).unwrap();
    let setting = format!("{ONLY}\nmoduli_file = \"{}\"", file.display());
    let device = Device::start_in(folder, &public, &setting, "");
    // Without the file it would be 3072.
    assert_eq!(group(&device, CIPHERS[0]).1, "4096");
    assert!(device.log().contains("1 lines are no groups"), "{}", device.log());
    let sshd = Device::start_sshd(&format!(
        "KexAlgorithms diffie-hellman-group-exchange-sha256\nModuliFile {}",
        file.display()
    ));
    assert_eq!(group(&sshd, CIPHERS[0]).1, "4096");
    // It is read for each exchange, and one that is not there keeps nobody out.
    fs::remove_file(&file).unwrap();
    assert_eq!(group(&device, CIPHERS[0]).1, "3072");
}

/// A client with sizes of its own, from an address of its own; `stops` where the group has come.
const CLIENT: &str = r#"
import logging, paramiko, socket, sys, threading, time
from paramiko.kex_gex import KexGexSHA256
logging.getLogger("paramiko").setLevel(logging.CRITICAL)
threading.excepthook = lambda *_: None
port, key = int(sys.argv[1]), paramiko.Ed25519Key.from_private_key_file(sys.argv[2])
name = "diffie-hellman-group-exchange-sha256"
groups = []

def client(sizes, address="127.0.0.1", stops=False):
    class Kex(KexGexSHA256):
        min_bits, preferred_bits, max_bits = sizes
        def _parse_kexdh_gex_group(self, message):
            groups.append(time.time())
            if not stops:
                super()._parse_kexdh_gex_group(message)
    stream = socket.socket()
    stream.bind((address, 0))
    stream.connect(("127.0.0.1", port))
    transport = paramiko.Transport(stream)
    transport.daemon = True
    transport._kex_info = {name: Kex}
    transport._preferred_kex = (name,)
    return transport

def gets_a_group(sizes):
    transport = client(sizes)
    try:
        transport.start_client(timeout=60)
        transport.auth_publickey("root", key)
        return transport.is_authenticated()
    except (paramiko.SSHException, EOFError, OSError):
        return False
    finally:
        transport.close()
"#;

#[test]
fn who_wants_no_size_that_is_allowed_is_sent_away() {
    let device = Device::start(&format!("{ONLY}\ndh_gex_max = 3072"), "");
    let program = r#"
huge = 2**32 - 1
for sizes in [(1024, 2048, 2048), (4096, 4096, 8192), (0, 0, 0), (8192, 3072, 2048), (huge, huge, huge), (3072, 0, 3072),
              (0, huge, 3072), (huge, 3072, 0)]:
    assert not gets_a_group(sizes), sizes
for sizes in [(2048, 2048, 8192), (0, 0, huge), (0, huge, huge), (3072, 3072, 3072)]:
    assert gets_a_group(sizes), sizes
"#;
    succeeded(&python(&device, "paramiko", &format!("{CLIENT}{program}")), "paramiko");
    assert!(!device.log().contains(" WARN ") && !device.log().contains(" ERROR "), "{}", device.log());
}

#[test]
fn a_crowd_that_wants_groups_does_not_keep_another_address_out() {
    let device = Device::start(&format!("{ONLY}\ndh_gex_max = 3072"), "");
    let program = r#"
sizes = (3072, 3072, 3072)
began = time.time()
crowd = [client(sizes, "127.0.0.2", stops=True) for _ in range(20)]
for transport in crowd:
    transport.start_client(event=threading.Event())
while time.time() - began < 3:
    assert len(groups) <= time.time() - began + 1, "one a second"
    time.sleep(0.05)
assert groups, "they wait, and are served"
owner = client(sizes, "127.0.0.3")
owner.start_client(timeout=60)
owner.auth_publickey("root", key)
# The turns of those who say nothing end; behind all of the crowd it would have waited for each of them.
assert len(groups) < 10, groups
assert not all(transport.is_active() for transport in crowd), "who is silent gives way"
owner.close()
"#;
    succeeded(&python(&device, "paramiko", &format!("{CLIENT}{program}")), "paramiko");
    device.assert_reachable();
}
