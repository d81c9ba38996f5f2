//! Clients that send what no client sends, behind the encryption: before the login, and after it. The connection may
//! end; the worker, its memory and the next login must not notice.

mod common;

use common::transfer::{python, succeeded};
use common::{Device, status_kib, text, wait_until};

/// What the programs have in common: `raw(transport, bytes)` sends a message as it is, `connect()` exchanges keys, and
/// `log_in()` gives a transport behind a login.
const CLIENT: &str = r#"
import logging, os, paramiko, random, socket, struct, sys, threading, time
logging.getLogger("paramiko").setLevel(logging.CRITICAL)
threading.excepthook = lambda *_: None
port, random = int(sys.argv[1]), random.Random(7)
key = paramiko.Ed25519Key.from_private_key_file(sys.argv[2])

class Raw:
    def __init__(self, data): self.data = data
    def asbytes(self): return self.data
    __bytes__ = asbytes

def raw(transport, data):
    try:
        transport._send_message(Raw(data))
        return True
    except Exception:
        return False

def connect():
    for _ in range(5):
        transport = paramiko.Transport(("127.0.0.1", port))
        transport.daemon = True
        try:
            transport.start_client(timeout=30)
            return transport
        except Exception:
            transport.close()
            time.sleep(0.2)
    raise SystemExit("no key exchange")

def log_in():
    transport = connect()
    transport.auth_publickey("root", key)
    return transport

def text(data): return struct.pack(">I", len(data)) + data
# Lengths of 2^31 and 2^32 - 1, nothing at all, zeros, noise, and texts that are long.
def bodies():
    return [b"", bytes(8), struct.pack(">I", 1 << 31) + b"x", struct.pack(">I", 0xFFFFFFFF) * 4,
            random.randbytes(300), text(b"a" * 20000) + text(b"b" * 10000)]
"#;

/// Runs the program against a new device and sees that nothing of it has changed: the same worker, which has not grown by
/// much, and another login.
#[track_caller]
fn survives(program: &str) -> Device {
    let device = Device::start("login_grace_time = 20", "");
    device.assert_reachable();
    let worker = device.worker();
    let memory = status_kib(worker, "VmRSS");
    let output = python(&device, "paramiko", &format!("{CLIENT}\n{program}"));
    succeeded(&output, "the program");
    assert_eq!(text(&output.stdout), "done\n");
    assert_eq!(device.log().matches("panicked").count(), 0, "{}", device.log());
    device.assert_reachable();
    assert_eq!(device.worker(), worker, "{}", device.log());
    wait_until("its memory is given back", || status_kib(worker, "VmRSS") < memory + (24 << 10));
    device
}

#[test]
fn any_message_before_the_login_is_survived() {
    survives(
        r#"
for number in range(256):
    transport = connect()
    for body in bodies():
        if not raw(transport, bytes([number]) + body): break
    time.sleep(0.01)
    transport.close()
print("done")
"#,
    );
}

#[test]
fn any_message_after_the_login_is_survived() {
    survives(
        r#"
for number in range(256):
    transport = log_in()
    channel = transport.open_session(timeout=30)
    for body in bodies():
        # For the channel that is there, and for none.
        for place in (struct.pack(">I", channel.remote_chanid), struct.pack(">I", 4711), b""):
            raw(transport, bytes([number]) + place + body)
    time.sleep(0.01)
    transport.close()
print("done")
"#,
    );
}

#[test]
fn keys_and_certificates_that_are_none_prove_nothing() {
    let device = survives(
        r#"
def request(algorithm, blob, signature):
    body = text(b"root") + text(b"ssh-connection") + text(b"publickey") + bytes([signature is not None])
    body += text(algorithm) + text(blob)
    return b"\x32" + body + (text(signature) if signature is not None else b"")
good = key.asbytes()
kinds = [b"ssh-ed25519", b"rsa-sha2-512", b"ecdsa-sha2-nistp521", b"sk-ssh-ed25519@openssh.com", b"ssh-dss", b"",
         b"ssh-ed25519-cert-v01@openssh.com", b"rsa-sha2-256-cert-v01@openssh.com", b"x" * 5000]
blobs = [b"", good[:20], good + b"more", text(b"ssh-ed25519") + text(b""), text(b"ssh-rsa") + text(b"\x01") + text(b""),
         text(b"ssh-rsa") + text(b"\x00") + text(b"\xff" * 8000), text(b"ecdsa-sha2-nistp256") + text(b"nistp256") + text(b"\x04"),
         text(b"ssh-ed25519-cert-v01@openssh.com") + text(b"n" * 32) + text(good[-32:]) + bytes(8) + b"\0\0\0\1" + text(b"id"),
         struct.pack(">I", 1 << 31), random.randbytes(2000)]
signatures = [None, b"", text(b"ssh-ed25519") + text(bytes(64)), text(b"ssh-rsa") + text(b"\xff" * 4096), random.randbytes(500)]
sent = 0
for kind in kinds:
    for blob in blobs:
        transport = connect()
        raw(transport, b"\x05" + text(b"ssh-userauth"))
        for signature in signatures:
            sent += raw(transport, request(kind, blob, signature))
        time.sleep(0.02)
        if transport.is_authenticated(): raise SystemExit("logged in")
        # Nothing but a login opens a channel.
        raw(transport, b"\x5a" + text(b"session") + struct.pack(">III", 0, 1 << 20, 1 << 15))
        transport.close()
if sent < 200: raise SystemExit(f"only {sent} were sent")
print("done")
"#,
    );
    // Two logins: those of the test itself.
    assert_eq!(device.log().matches("ssh.auth.ok").count(), 2, "{}", device.log());
}

#[test]
fn numbers_at_the_end_of_their_range_cost_nothing() {
    survives(
        r#"
def request(channel, kind, rest): return b"\x62" + struct.pack(">I", channel) + text(kind) + b"\x01" + rest
for size in (0, 1, 1 << 31, 0xFFFFFFFF):
    numbers = struct.pack(">IIII", size, size, size, size)
    transport = log_in()
    channel = transport.open_session(timeout=30)
    other = channel.remote_chanid
    raw(transport, request(other, b"pty-req", text(b"xterm") + numbers + text(b"\x01" + struct.pack(">I", size) + b"\x00")))
    raw(transport, request(other, b"env", text(b"LC_" + b"A" * 30000) + text(b"v" * 1000)))
    for n in range(2000): raw(transport, request(other, b"env", text(b"LC_%d" % n) + text(b"v" * 200)))
    raw(transport, request(other, b"exec", text(b"sleep 3")))
    for _ in range(50): raw(transport, request(other, b"window-change", numbers))
    for _ in range(50): raw(transport, b"\x5d" + struct.pack(">II", other, size))
    raw(transport, request(other, b"signal", text(b"S" * 3000)))
    # Windows and packets of no size, and channels of kinds that are none.
    for window, packet in ((0, 0), (size, 0), (0, size), (size, size)):
        raw(transport, b"\x5a" + text(b"session") + struct.pack(">III", 77, window, packet))
        raw(transport, b"\x5a" + text(b"k" * 3000) + struct.pack(">III", 77, window, packet))
        raw(transport, b"\x5a" + text(b"direct-tcpip") + struct.pack(">III", 77, window, packet) + text(b"127.0.0.1")
            + struct.pack(">I", size) + text(b"::1") + struct.pack(">I", size))
        raw(transport, b"\x50" + text(b"tcpip-forward") + b"\x01" + text(b"") + struct.pack(">I", size))
    # Data, windows and ends for channels that nobody has opened.
    for number in (3, 4711, 1 << 31, 0xFFFFFFFF):
        place = struct.pack(">I", number)
        for message in (b"\x5e" + place + text(b"data"), b"\x5f" + place + b"\0\0\0\1" + text(b"data"), b"\x60" + place, b"\x61" + place,
                        b"\x5d" + place + b"\xff" * 4, b"\x5b" + place + bytes(12), b"\x5c" + place + bytes(12), b"\x63" + place):
            raw(transport, message)
    time.sleep(0.5)
    transport.close()
print("done")
"#,
    );
}

#[test]
fn ten_thousand_channels_and_a_storm_of_key_exchanges_end_nothing_else() {
    survives(
        r#"
transport = log_in()
for number in range(10000):
    if not raw(transport, b"\x5a" + text(b"session") + struct.pack(">III", number, 1 << 20, 1 << 15)): break
time.sleep(1)
transport.close()
transport = log_in()
for _ in range(40):
    try: transport.renegotiate_keys()
    except Exception: break
for _ in range(1000):
    if not raw(transport, b"\x14" + bytes(16) + text(b"curve25519-sha256") * 10 + bytes(5)): break
time.sleep(1)
transport.close()
print("done")
"#,
    );
}
