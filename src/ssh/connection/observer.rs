//! What can be seen of a connection before it is encrypted: how far it has come, and packets that are too long.
//!
//! russh makes room for a packet when its length arrives, up to 256 KiB. Nothing before the keys are exchanged
//! is longer than a few KiB, so a stranger who announces more is sent away here.

use std::io;

use super::admission::Progress;

/// What every implementation must take (RFC 4253 section 6.1).
const MAX_PLAIN_PACKET: usize = 35_000;
/// The identification line with what may precede it (RFC 4253 section 4.2); russh has its own, lower limit.
const MAX_IDENTIFICATION: usize = 1024;
/// `SSH_MSG_KEXINIT`, `SSH_MSG_NEWKEYS` (RFC 4253 section 12).
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;

/// Identification -> Header -> Body -> Header -> … -> (NEWKEYS) -> Encrypted
#[derive(Debug)]
enum State {
    Identification {
        read: usize,
    },
    /// Length (4 bytes), padding length (1) and message number (1), as far as they have come.
    Header {
        read: [u8; 6],
        have: usize,
    },
    Body {
        left: usize,
        message: u8,
    },
    Encrypted,
}

/// Follows the client's bytes up to its NEWKEYS.
#[derive(Debug)]
pub struct Observer {
    state: State,
    progress: Progress,
}

impl Default for Observer {
    fn default() -> Self {
        Self { state: State::Identification { read: 0 }, progress: Progress::Silent }
    }
}

impl Observer {
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Looks at the next bytes from the client.
    pub fn see(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Encrypted => return Ok(()),
                State::Identification { read } => {
                    *read += 1;
                    if byte == b'\n' {
                        self.reach(Progress::Identified);
                        self.state = State::Header { read: [0; 6], have: 0 };
                    } else if *read > MAX_IDENTIFICATION {
                        return Err(io::Error::other("no identification line"));
                    }
                    bytes = rest;
                }
                State::Header { read, have } => {
                    if let Some(slot) = read.get_mut(*have) {
                        *slot = byte;
                    }
                    *have += 1;
                    bytes = rest;
                    if *have == read.len() {
                        let [a, b, c, d, _, message] = *read;
                        let length = u32::from_be_bytes([a, b, c, d]) as usize;
                        if !(2..=MAX_PLAIN_PACKET).contains(&length) {
                            return Err(io::Error::other(
                                "packet length out of bounds before the key exchange",
                            ));
                        }
                        if message == KEXINIT {
                            self.reach(Progress::KeyExchangeBegun);
                        }
                        self.after(length - 2, message);
                    }
                }
                State::Body { left, message } => {
                    let taken = bytes.len().min(*left);
                    let (left, message) = (*left - taken, *message);
                    bytes = bytes.get(taken..).unwrap_or_default();
                    self.after(left, message);
                }
            }
        }
        Ok(())
    }

    fn after(&mut self, left: usize, message: u8) {
        self.state = match (left, message) {
            (0, NEWKEYS) => {
                self.reach(Progress::KeyExchangeDone);
                State::Encrypted
            }
            (0, _) => State::Header { read: [0; 6], have: 0 },
            _ => State::Body { left, message },
        };
    }

    fn reach(&mut self, progress: Progress) {
        self.progress = self.progress.max(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(message: u8, body: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(body + 2).unwrap().to_be_bytes().to_vec();
        bytes.extend([4, message]);
        bytes.extend(std::iter::repeat_n(0, body));
        bytes
    }

    #[test]
    fn progress_is_seen_through_any_cut() {
        let stream =
            [&b"SSH-2.0-x\r\n"[..], &packet(KEXINIT, 1200), &packet(30, 40), &packet(NEWKEYS, 10), &[9; 99]];
        let stream = stream.concat();
        for step in [1, 2, 7, 1000, stream.len()] {
            let mut observer = Observer::default();
            let mut seen = vec![observer.progress()];
            for piece in stream.chunks(step) {
                observer.see(piece).unwrap();
                seen.push(observer.progress());
            }
            assert!(seen.is_sorted());
            assert_eq!(observer.progress(), Progress::KeyExchangeDone);
        }
    }

    #[test]
    fn long_packets_and_endless_lines_are_refused() {
        let mut observer = Observer::default();
        observer.see(b"SSH-2.0-x\r\n").unwrap();
        assert!(observer.see(&packet(KEXINIT, MAX_PLAIN_PACKET)).is_err());
        assert!(Observer::default().see(&[b'x'; MAX_IDENTIFICATION + 1]).is_err());
    }
}
