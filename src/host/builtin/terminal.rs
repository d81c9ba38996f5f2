//! Questions on the terminal that the program was started from, whatever its stdin and stdout are.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// An answer, which is wiped when it is dropped.
pub type Secret = Zeroizing<String>;

/// No answer is longer. The room is taken at once: text that grows leaves copies behind.
const MAX_ANSWER: usize = 1024;

/// Asks somebody; nobody answers where there is no terminal, or after a ctrl-D.
pub fn ask(question: &str, hidden: bool) -> Option<Secret> {
    let terminal = open().ok()?;
    let answer = if hidden {
        // The terminal is silent before the question is there, or a fast answer would be seen.
        let mut silent = Silent::new(terminal).ok()?;
        write!(silent.terminal, "{question}").ok()?;
        let answer = read_answer(&mut silent.terminal);
        let _ = writeln!(silent.terminal);
        answer
    } else {
        let mut terminal = terminal;
        write!(terminal, "{question}").ok()?;
        read_answer(&mut terminal)
    };
    match answer {
        Answer::Line(line) => Some(line),
        Answer::None => None,
        Answer::Interrupted => {
            // The terminal is as it was: now comes what ctrl-C does elsewhere.
            crate::sys::end_as_interrupted();
            None
        }
    }
}

/// Whether there is somebody to ask.
pub fn is_there() -> bool {
    open().is_ok()
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// A terminal that shows nothing of what is typed, and is as it was before when this is dropped.
///
/// It makes no signals either: the program would end, and the terminal stay silent. So keys are told apart here.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn new(terminal: File) -> nix::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(
            LocalFlags::ECHO
                | LocalFlags::ECHONL
                | LocalFlags::ICANON
                | LocalFlags::ISIG
                | LocalFlags::IEXTEN,
        );
        for (index, value) in [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)] {
            if let Some(character) = silent.control_chars.get_mut(index as usize) {
                *character = value;
            }
        }
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Line(Secret),
    Interrupted,
    None,
}

/// Reads a line, byte by byte: what comes after it is for the next question.
fn read_answer(input: &mut impl Read) -> Answer {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACKSPACE: u8 = 8;
    const CTRL_U: u8 = 21;
    const DELETE: u8 = 127;
    let mut text = Zeroizing::new(String::with_capacity(MAX_ANSWER));
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(1) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => return Answer::None,
        }
        match byte {
            [b'\n' | b'\r'] => break,
            [CTRL_C] => return Answer::Interrupted,
            [CTRL_D] if line.is_empty() => return Answer::None,
            [BACKSPACE | DELETE] => {
                // A character may be of several bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            [CTRL_U] => line.clear(),
            [byte] if line.len() < MAX_ANSWER => line.push(byte),
            _ => {}
        }
    }
    match std::str::from_utf8(&line) {
        Ok(line) => text.push_str(line),
        // The protocol knows UTF-8 only (RFC 4252 section 8).
        Err(_) => return Answer::None,
    }
    Answer::Line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(typed: &[u8]) -> Answer {
        read_answer(&mut io::Cursor::new(typed))
    }

    fn line(text: &str) -> Answer {
        Answer::Line(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn keys_do_what_they_do_on_terminals() {
        assert_eq!(answer(b"secret\nnext\n"), line("secret"));
        assert_eq!(answer(b"secret\r"), line("secret"));
        assert_eq!(answer(b"\n"), line(""));
        assert_eq!(answer("wrong\u{15}s\u{e9}\u{7f}x\n".as_bytes()), line("sx"));
        assert_eq!(answer(b"\x7f\x7fa\n"), line("a"));
        assert_eq!(answer(b"half\x03"), Answer::Interrupted);
        assert_eq!(answer(b"\x04"), Answer::None);
        assert_eq!(answer(b"half"), Answer::None);
        assert_eq!(answer(b"\xff\n"), Answer::None);
    }

    #[test]
    fn an_answer_without_an_end_takes_no_memory() {
        let long = [&vec![b'x'; 1 << 20][..], b"\n"].concat();
        assert_eq!(answer(&long), line(&"x".repeat(MAX_ANSWER)));
    }
}
