//! Bytes in, bytes out: packets are cut out of standard input, answers go to standard output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use super::packet::MAX_PACKET;
use super::requests::Server;
use crate::sys;

/// Room for what is read at once; a longer packet makes it larger.
const ROOM: usize = 64 << 10;
/// Answers that wait for others to be written with them.
const FLUSH_AT: usize = 64 << 10;
/// Room in the pipe to the ssh worker, so that the next file block is read while it is busy.
const PIPE_SIZE: libc::c_int = 256 << 10;

/// Serves one client until it closes its side, and then until it has everything.
pub fn serve(mut server: Server) -> io::Result<()> {
    // Not through the buffers of std, which would copy everything once more.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    sys::set_pipe_size(output.as_fd(), PIPE_SIZE);
    let (mut buffer, mut filled) = (vec![0; ROOM], 0);
    loop {
        let count = match input.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut taken = 0;
        let missing = loop {
            let rest = buffer.get(taken..filled).unwrap_or_default();
            let Some((length, body)) = rest.split_first_chunk::<4>() else { break 0 };
            let length = u32::from_be_bytes(*length) as usize;
            if length == 0 || length > MAX_PACKET {
                // Where the next one begins cannot be known.
                output.write_all(&server.answers.bytes)?;
                return Err(io::Error::other(format!(
                    "a packet of {length} bytes: 1 to {MAX_PACKET} are allowed"
                )));
            }
            let Some(packet) = body.get(..length) else { break 4 + length };
            if let Err(broken) = server.answer(packet) {
                output.write_all(&server.answers.bytes)?;
                return Err(io::Error::other(broken));
            }
            taken += 4 + length;
            if server.answers.bytes.len() >= FLUSH_AT {
                flush(&mut server, &mut output)?;
            }
        };
        flush(&mut server, &mut output)?;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        if missing > buffer.len() {
            buffer.resize(missing, 0);
        }
    }
}

fn flush(server: &mut Server, output: &mut File) -> io::Result<()> {
    let answers = &mut server.answers.bytes;
    output.write_all(answers)?;
    answers.clear();
    Ok(())
}
