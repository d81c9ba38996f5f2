//! An ssh-agent that signs as a test wants.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// ssh-agent's messages (draft-ietf-sshm-ssh-agent, section 6.1).
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The signature of a key (its blob) of some data.
pub type Sign = dyn Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync;

/// A `string` of the protocol (RFC 4251 section 5).
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Listens at `path` with these keys.
pub fn start(path: &Path, keys: Vec<Vec<u8>>, sign: Arc<Sign>) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &keys, &*sign);
        }
    });
}

fn answer(mut stream: UnixStream, keys: &[Vec<u8>], sign: &Sign) -> std::io::Result<()> {
    loop {
        let request = read_string(&mut stream)?;
        let reply = match request[0] {
            REQUEST_IDENTITIES => {
                let mut reply = vec![IDENTITIES_ANSWER];
                reply.extend(u32::try_from(keys.len()).unwrap().to_be_bytes());
                for key in keys {
                    reply.extend(string(key));
                    reply.extend(string(b"a key"));
                }
                reply
            }
            SIGN_REQUEST => {
                let mut rest = &request[1..];
                let (key, data) = (read_string(&mut rest)?, read_string(&mut rest)?);
                [vec![SIGN_RESPONSE], string(&sign(&key, &data))].concat()
            }
            _ => vec![FAILURE],
        };
        stream.write_all(&string(&reply))?;
    }
}

fn read_string(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
