//! A whole connection, as a client may send it: to the identification, to the key exchange, to the login, and to channels.
//!
//! Keys are exchanged for the cipher `none`, which only this target offers, so that what follows is in clear text and
//! can be anything. Mostly by the method `none`, because arithmetic teaches a fuzzer nothing and takes its time. Who logs
//! in here may open channels and ask for everything, and no program is started for him.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use russh::{cipher, kex, mac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::super::connection::{Service, serve};
use super::super::host_keys;
use super::super::server::{Server, Settings};
use crate::config::{self, Source};

/// Everything that can be had without starting a program.
const CONFIG: &str = r#"
[ssh]
permit_empty_passwords = true
shell = "disabled"
exec = "disabled"
no_shell_message = "only for fuzzing"
sftp = false
kex_algorithms = "curve25519-sha256"
allow_tcp_forwarding = "local"
permit_open = ["127.0.0.1:1"]
print_motd = false
[ssh.users]
guest = { password = "" }
[firmware]
fwup = "/nonexistent"
success_action = "none"
"#;

/// A connection whose client has gone ends by then, or it would be held for ever.
const LIMIT: Duration = Duration::from_secs(15);

/// From which first byte on the daemon is the thorough one.
const THOROUGH: u8 = 0xfa;

/// What a friendly client sends first. It never looks at the answers: with the cipher `none` it needs no key.
const FRIENDLY: [&[u8]; 5] = [
    b"SSH-2.0-fuzz\r\n",
    b"",
    b"\x05\0\0\0\x0cssh-userauth",
    b"\x32\0\0\0\x05guest\0\0\0\x0essh-connection\0\0\0\x04none",
    b"\x5a\0\0\0\x07session\0\0\0\0\0\x01\0\0\0\0\x80\0",
];

struct Daemon {
    runtime: Runtime,
    /// With the usual key exchange.
    thorough: Arc<Server>,
    quick: Arc<Server>,
}

thread_local! {
    static DAEMON: LazyLock<Daemon> = const { LazyLock::new(Daemon::new) };
    /// Each client comes from elsewhere: a source that connects often has to wait.
    static CLIENTS: Cell<u32> = const { Cell::new(0) };
}

impl Daemon {
    fn new() -> Self {
        let folder: PathBuf = std::env::temp_dir().join(format!("myelin-connection-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let place = folder.display();
        let text = format!("state_dir = \"{place}\"\nruntime_dir = \"{place}\"\n{CONFIG}");
        let source = Source::File(folder.join("config.toml"));
        crate::files::write_atomic(&folder.join("config.toml"), text.as_bytes(), 0o600)
            .expect("it can be written");
        let server = |is_quick: bool| {
            let config = config::load(&source).config;
            let keys = host_keys::load(&config);
            let mut settings = Settings::new(&source, config, keys);
            let shared = Arc::get_mut(&mut settings).expect("nobody else has it yet");
            let russh = Arc::get_mut(&mut shared.russh).expect("nobody else has it yet");
            russh.preferred.cipher = vec![cipher::NONE].into();
            russh.preferred.mac = vec![mac::NONE].into();
            if is_quick {
                russh.preferred.kex = vec![kex::NONE].into();
            }
            Server::new(settings)
        };
        let (thorough, quick) = (server(false), server(true));
        fs::remove_dir_all(&folder).expect("it is ours");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("the system has an event loop"), thorough, quick }
    }
}

/// The first byte says how much a friendly client sends first, and to which daemon. Then raw bytes, or, behind the key
/// exchange, messages each behind its length in one byte.
pub fn connection(data: &[u8]) {
    // Debug builds have faults on request (`provoke`).
    if data.windows(7).any(|word| word == b"myelin-") {
        return;
    }
    let Some((&friendly, data)) = data.split_first() else { return };
    let steps = usize::from(friendly) % (FRIENDLY.len() + 1);
    let is_quick = steps > 1 && friendly < THOROUGH;
    let mut stream = Vec::new();
    for (step, message) in FRIENDLY.iter().take(steps).enumerate() {
        match step {
            0 => stream.extend_from_slice(message),
            1 => stream.extend(key_exchange(is_quick)),
            _ => stream.extend(packet(message)),
        }
    }
    if steps < 2 {
        stream.extend_from_slice(data);
    } else {
        let mut rest = data;
        while let Some((&length, after)) = rest.split_first() {
            let (message, after) = after.split_at(after.len().min(length.into()));
            stream.extend(packet(message));
            rest = after;
        }
    }
    let number = CLIENTS.replace(CLIENTS.get().wrapping_add(1));
    let peer = SocketAddr::new(Ipv4Addr::from(0x7f00_0001 + (number & 0xff_ffff)).into(), 1024);
    DAEMON.with(|daemon| {
        let server = if is_quick { &daemon.quick } else { &daemon.thorough };
        daemon.runtime.block_on(connect(Arc::clone(server), peer, &stream));
    });
}

/// What the server answers to all that a client sends.
async fn connect(server: Arc<Server>, peer: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let (ours, client) = StdUnixStream::pair().expect("there are descriptors left");
    for end in [&ours, &client] {
        end.set_nonblocking(true).expect("sockets can be so");
    }
    // A pair of sockets does what a connection of TCP does, and leaves nothing behind.
    let ours = TcpStream::from_std(OwnedFd::from(ours).into()).expect("it is a socket");
    let mut client = UnixStream::from_std(client).expect("it is a socket");
    let client = async {
        let (mut reading, mut writing) = client.split();
        let send = async {
            // A server that has heard enough hangs up.
            let _ = writing.write_all(sent).await;
            let _ = writing.shutdown().await;
        };
        let mut answers = Vec::new();
        let _ = tokio::join!(send, reading.read_to_end(&mut answers));
        answers
    };
    let served = async { tokio::join!(serve(server, ours, peer, Service::Ssh), client) };
    timeout(LIMIT, served).await.expect("a connection without a client ends").1
}

/// RFC 4253 section 6: length, length of the padding, message, padding to a multiple of eight.
fn packet(message: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (message.len() + 9) % 8) % 8;
    let length = u32::try_from(1 + message.len() + padding).expect("messages are short");
    let padding_length = u8::try_from(padding).expect("it is less than 12");
    [&length.to_be_bytes()[..], &[padding_length], message, &vec![0; padding]].concat()
}

/// `SSH_MSG_KEXINIT`; with a method that has more, `SSH_MSG_KEX_ECDH_INIT` with a point that is good, and
/// `SSH_MSG_NEWKEYS`.
fn key_exchange(is_quick: bool) -> Vec<u8> {
    let mut init = vec![20];
    init.extend([0; 16]);
    let method = if is_quick { "none" } else { "curve25519-sha256" };
    for names in [method, "ssh-ed25519", "none", "none", "none", "none", "none", "none", "", ""] {
        string(&mut init, names.as_bytes());
    }
    init.extend([0; 5]);
    if is_quick {
        return packet(&init);
    }
    let mut point = [0; 32];
    point[0] = 9;
    let mut exchange = vec![30];
    string(&mut exchange, &point);
    [packet(&init), packet(&exchange), packet(&[21])].concat()
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).expect("it is short").to_be_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the target would look at nothing behind the key exchange.
    #[test]
    fn the_friendly_client_gets_as_far_as_a_channel() {
        let daemon = Daemon::new();
        for (is_quick, server) in [(true, &daemon.quick), (false, &daemon.thorough)] {
            let mut sent = [FRIENDLY[0].to_vec(), key_exchange(is_quick)].concat();
            FRIENDLY[2..].iter().for_each(|message| sent.extend(packet(message)));
            let answers =
                daemon.runtime.block_on(connect(Arc::clone(server), ([127, 0, 0, 1], 1).into(), &sent));
            // SSH_MSG_CHANNEL_OPEN_CONFIRMATION for channel 0.
            assert!(answers.windows(5).any(|bytes| bytes == [91, 0, 0, 0, 0]), "{answers:?}");
        }
    }
}
