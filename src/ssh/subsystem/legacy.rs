//! `nerves_firmware_ssh`: the protocol that NervesSSH replaced, for scripts that still speak it
//! (spec ssh.md 2.3). A header line of commands, then the files that its `fwup:SIZE` commands announce.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::fwup::{self, ChannelSender};
use crate::firmware::update::{Answer, Sender};
use crate::ssh::channel::{Exit, Session};

pub const NAME: &str = "nerves_firmware_ssh";
/// What a shell and a command get on this listener, word for word as from nerves_firmware_ssh.
pub const NO_SHELL: &str = "Interactive login unsupported. Use the nerves_firmware_ssh subsystem.";
pub const NO_EXEC: &str = "Command execution unsupported.";

/// The longest header, and how long it may take.
const MAX_HEADER: usize = 1024;
const HEADER_LIMIT: Duration = Duration::from_secs(30);
const INVALID: &str = "nerves_firmware_ssh: error invalid_command\n";

/// One word of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The next so many bytes are a firmware.
    Fwup(u64),
    Reboot,
}

/// `fwup:SIZE` and `reboot`, joined by commas.
pub fn parse(header: &[u8]) -> Option<Vec<Command>> {
    let header = std::str::from_utf8(header).ok()?;
    header
        .split(',')
        .map(|word| match word.split_once(':') {
            Some(("fwup", size)) if !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit()) => {
                size.parse().ok().map(Command::Fwup)
            }
            None if word == "reboot" => Some(Command::Reboot),
            _ => None,
        })
        .collect()
}

/// Runs the commands of one channel.
pub async fn run(session: Session) {
    let sender = ChannelSender { flow: Arc::clone(&session.flow), output: session.output() };
    let input = Input::new(&sender);
    let commands = match timeout(HEADER_LIMIT, input.header()).await {
        Ok(Some(header)) => parse(&header),
        Ok(None) | Err(_) => None,
    };
    let (status, reboots) = match commands {
        Some(commands) => execute(&session, &input, commands).await,
        None => {
            sender.stdout(INVALID.into()).await;
            (1, false)
        }
    };
    sender.flow.discard();
    sender.output.finish(Exit::Status(status)).await;
    if reboots {
        fwup::act_after_close(&session).await;
    }
}

/// The exit status, and whether `reboot` was among the commands that were reached.
async fn execute(session: &Session, input: &Input<'_>, commands: Vec<Command>) -> (u32, bool) {
    let mut reboots = false;
    for command in commands {
        match command {
            Command::Reboot => {
                input.sender.stdout("Rebooting...\n".into()).await;
                reboots = true;
            }
            Command::Fwup(size) => {
                input.sender.stdout("Running fwup...\n".into()).await;
                input.limit_to(size);
                let status = fwup::update(session, input).await;
                if status != 0 {
                    return (status, reboots);
                }
            }
        }
    }
    (0, reboots)
}

/// The channel's bytes, cut into the header and one payload after the other.
struct Input<'a> {
    sender: &'a ChannelSender,
    state: Mutex<Unread>,
}

#[derive(Default)]
struct Unread {
    /// What came with something that was read, and belongs to what follows.
    pieces: VecDeque<Bytes>,
    /// Bytes of the payload that are still to come.
    left: u64,
}

impl<'a> Input<'a> {
    fn new(sender: &'a ChannelSender) -> Self {
        Self { sender, state: Mutex::default() }
    }

    /// Everything up to the first LF, however it is cut into packets; `None` if it does not come.
    async fn header(&self) -> Option<Vec<u8>> {
        let mut header = Vec::new();
        loop {
            for mut piece in self.sender.next().await? {
                let mut unread = self.unread();
                if !unread.pieces.is_empty() {
                    unread.pieces.push_back(piece);
                } else if let Some(at) = piece.iter().position(|&byte| byte == b'\n') {
                    header.extend_from_slice(&piece.split_to(at));
                    let _line_feed = piece.split_to(1);
                    // Kept even when empty: it marks that the header is over.
                    unread.pieces.push_back(piece);
                } else {
                    header.extend_from_slice(&piece);
                }
            }
            if header.len() > MAX_HEADER {
                return None;
            }
            if !self.unread().pieces.is_empty() {
                return Some(header);
            }
        }
    }

    fn limit_to(&self, size: u64) {
        self.unread().left = size;
    }

    /// The next bytes of this payload that are here already.
    fn take(&self) -> Vec<Bytes> {
        let mut unread = self.unread();
        let mut taken = Vec::new();
        while unread.left > 0 {
            let Some(mut piece) = unread.pieces.pop_front() else { break };
            let length = piece.len().min(usize::try_from(unread.left).unwrap_or(usize::MAX));
            unread.left -= length as u64;
            let payload = piece.split_to(length);
            if !piece.is_empty() {
                unread.pieces.push_front(piece);
            }
            if !payload.is_empty() {
                taken.push(payload);
            }
        }
        taken
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender for Input<'_> {
    fn next(&self) -> Answer<'_, Option<Vec<Bytes>>> {
        Box::pin(async {
            loop {
                let taken = self.take();
                if !taken.is_empty() {
                    return Some(taken);
                }
                if self.unread().left == 0 {
                    return None;
                }
                let more = self.sender.next().await?;
                self.unread().pieces.extend(more);
            }
        })
    }

    fn gone(&self) -> Answer<'_, ()> {
        self.sender.gone()
    }

    fn drain(&self) -> Answer<'_, ()> {
        Box::pin(async { while self.next().await.is_some() {} })
    }

    fn stdout(&self, text: Bytes) -> Answer<'_, bool> {
        self.sender.stdout(text)
    }

    fn stderr(&self, text: Bytes) -> Answer<'_, bool> {
        self.sender.stderr(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_grammar_of_the_protocol_is_taken() {
        assert_eq!(parse(b"fwup:10,reboot"), Some(vec![Command::Fwup(10), Command::Reboot]));
        assert_eq!(parse(b"reboot"), Some(vec![Command::Reboot]));
        for wrong in
            ["", "rebot", "fwup:", "fwup:x", "fwup:-1", "fwup(10),reboot", "reboot:1", "fwup:1,", "\u{e9}"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(parse(b"fwup:99999999999999999999"), None);
    }
}
