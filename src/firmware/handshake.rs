//! How fwup says that it is done: `0x1A` and its status, as the last two bytes of its output
//! (`--exit-handshake`, spec fwup.md 2.3). Pure.

use bytes::Bytes;

/// The byte before the status.
const MARK: u8 = 0x1a;

/// Output -> Marked -> Ended(status)
///              \________\__ (anything more) -> Broken
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handshake {
    /// Text for the client.
    #[default]
    Output,
    /// The mark has come, the status has not: it may be in the next read.
    Marked,
    Ended(u8),
    /// Something followed the status, so the mark was not one. Never a success.
    Broken,
}

impl Handshake {
    /// Nothing more is to come.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Broken)
    }

    /// Takes what was read from fwup; gives back what is for the client.
    pub fn take(&mut self, mut read: Bytes) -> Bytes {
        let text = match self {
            Self::Output => match read.iter().position(|&byte| byte == MARK) {
                Some(at) => {
                    let text = read.split_to(at);
                    let _mark = read.split_to(1);
                    *self = Self::Marked;
                    text
                }
                None => return read,
            },
            _ => Bytes::new(),
        };
        for byte in read {
            *self = match self {
                Self::Marked => Self::Ended(byte),
                _ => Self::Broken,
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(reads: &[&'static [u8]]) -> (Handshake, Vec<u8>) {
        let mut handshake = Handshake::default();
        let text = reads.iter().flat_map(|read| handshake.take(Bytes::from_static(read))).collect();
        (handshake, text)
    }

    #[test]
    fn the_status_is_found_wherever_the_reads_are_cut() {
        assert_eq!(run(&[b"Success!\n\x1a\0"]), (Handshake::Ended(0), b"Success!\n".to_vec()));
        assert_eq!(run(&[b"Success!\n", b"\x1a", b"\x01"]), (Handshake::Ended(1), b"Success!\n".to_vec()));
        assert_eq!(run(&[b"x\x1a", b"\x1a"]), (Handshake::Ended(0x1a), b"x".to_vec()));
    }

    #[test]
    fn a_mark_in_the_middle_is_no_handshake() {
        assert_eq!(run(&[b"x\x1a\0more"]).0, Handshake::Broken);
        assert_eq!(run(&[b"x\x1a\0", b"m"]).0, Handshake::Broken);
        assert_eq!(run(&[b"nothing"]).0, Handshake::Output);
        assert_eq!(run(&[b"x\x1a"]).0, Handshake::Marked);
    }
}
