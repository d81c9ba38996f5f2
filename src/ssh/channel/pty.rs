//! Pseudo-terminals: opened, sized, and given to a program.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::pty::openpty;
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr,
    tcsetattr,
};
use nix::unistd::{Gid, Uid};
use russh::Pty;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Columns, rows, and the same in pixels.
pub type Size = (u32, u32, u32, u32);

/// The longest terminal name that is passed on.
const MAX_TERM: usize = 64;

/// A terminal that a client has asked for (RFC 4254 section 6.2).
#[derive(Clone, Debug)]
pub struct Terminal {
    pub term: String,
    size: Size,
    modes: Vec<(Pty, u32)>,
}

impl Terminal {
    pub fn new(term: &str, size: Size, modes: &[(Pty, u32)]) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let good = !term.is_empty() && term.len() <= MAX_TERM && term.chars().all(plain);
        let modes = modes.iter().copied().filter(|(code, _)| *code != Pty::TTY_OP_END).collect();
        Self { term: if good { term.into() } else { "dumb".into() }, size, modes }
    }

    pub fn resize(&mut self, size: Size) {
        self.size = size;
    }

    /// Makes the pair: the master side for us, the slave side for the program.
    pub fn open(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let pair = openpty(Some(&window(self.size)), None)?;
        for fd in [&pair.master, &pair.slave] {
            sys::set_cloexec(std::os::fd::AsRawFd::as_raw_fd(fd))?;
        }
        let mut settings = tcgetattr(&pair.slave)?;
        for (mode, value) in &self.modes {
            apply(&mut settings, *mode, *value);
        }
        tcsetattr(&pair.slave, SetArg::TCSANOW, &settings)?;
        Ok((pair.master, pair.slave))
    }
}

/// Makes it the terminal of a user.
pub fn give(slave: &OwnedFd, (owner, group, mode): (Uid, Gid, u32)) -> io::Result<()> {
    nix::unistd::fchown(slave, Some(owner), Some(group))?;
    Ok(nix::sys::stat::fchmod(slave, nix::sys::stat::Mode::from_bits_truncate(mode))?)
}

/// Tells the terminal, and through it the programs on it, its new size. Zero columns or rows keep the old.
pub fn set_size(master: &OwnedFd, size: Size) {
    if size.0 > 0 && size.1 > 0 {
        // It fails only when the terminal has just gone.
        let _ = sys::set_window_size(master.as_fd(), &window(size));
    }
}

fn window((columns, rows, width, height): Size) -> libc::winsize {
    let short = |value| u16::try_from(value).unwrap_or(u16::MAX);
    libc::winsize {
        ws_col: short(columns),
        ws_row: short(rows),
        ws_xpixel: short(width),
        ws_ypixel: short(height),
    }
}

/// Applies one of the encoded terminal modes of RFC 4254 section 8; those that Linux lacks have no effect.
fn apply(settings: &mut Termios, mode: Pty, value: u32) {
    use SpecialCharacterIndices as Char;
    let character = match mode {
        Pty::VINTR => Some(Char::VINTR),
        Pty::VQUIT => Some(Char::VQUIT),
        Pty::VERASE => Some(Char::VERASE),
        Pty::VKILL => Some(Char::VKILL),
        Pty::VEOF => Some(Char::VEOF),
        Pty::VEOL => Some(Char::VEOL),
        Pty::VEOL2 => Some(Char::VEOL2),
        Pty::VSTART => Some(Char::VSTART),
        Pty::VSTOP => Some(Char::VSTOP),
        Pty::VSUSP => Some(Char::VSUSP),
        Pty::VREPRINT => Some(Char::VREPRINT),
        Pty::VWERASE => Some(Char::VWERASE),
        Pty::VLNEXT => Some(Char::VLNEXT),
        _ => None,
    };
    if let Some(character) = character {
        // 255 switches the character off (RFC 4254 section 8); Linux has 0 for that.
        let value = u8::try_from(value).ok().filter(|&value| value != 255).unwrap_or(0);
        if let Some(slot) = settings.control_chars.get_mut(character as usize) {
            *slot = value;
        }
        return;
    }
    let on = value != 0;
    match mode {
        Pty::ISIG => settings.local_flags.set(LocalFlags::ISIG, on),
        Pty::ICANON => settings.local_flags.set(LocalFlags::ICANON, on),
        Pty::ECHO => settings.local_flags.set(LocalFlags::ECHO, on),
        Pty::ECHOE => settings.local_flags.set(LocalFlags::ECHOE, on),
        Pty::ECHOK => settings.local_flags.set(LocalFlags::ECHOK, on),
        Pty::ECHONL => settings.local_flags.set(LocalFlags::ECHONL, on),
        Pty::ECHOCTL => settings.local_flags.set(LocalFlags::ECHOCTL, on),
        Pty::ECHOKE => settings.local_flags.set(LocalFlags::ECHOKE, on),
        Pty::NOFLSH => settings.local_flags.set(LocalFlags::NOFLSH, on),
        Pty::TOSTOP => settings.local_flags.set(LocalFlags::TOSTOP, on),
        Pty::IEXTEN => settings.local_flags.set(LocalFlags::IEXTEN, on),
        Pty::IGNPAR => settings.input_flags.set(InputFlags::IGNPAR, on),
        Pty::PARMRK => settings.input_flags.set(InputFlags::PARMRK, on),
        Pty::INPCK => settings.input_flags.set(InputFlags::INPCK, on),
        Pty::ISTRIP => settings.input_flags.set(InputFlags::ISTRIP, on),
        Pty::INLCR => settings.input_flags.set(InputFlags::INLCR, on),
        Pty::IGNCR => settings.input_flags.set(InputFlags::IGNCR, on),
        Pty::ICRNL => settings.input_flags.set(InputFlags::ICRNL, on),
        Pty::IXON => settings.input_flags.set(InputFlags::IXON, on),
        Pty::IXANY => settings.input_flags.set(InputFlags::IXANY, on),
        Pty::IXOFF => settings.input_flags.set(InputFlags::IXOFF, on),
        Pty::IMAXBEL => settings.input_flags.set(InputFlags::IMAXBEL, on),
        Pty::OPOST => settings.output_flags.set(OutputFlags::OPOST, on),
        Pty::ONLCR => settings.output_flags.set(OutputFlags::ONLCR, on),
        Pty::OCRNL => settings.output_flags.set(OutputFlags::OCRNL, on),
        Pty::ONOCR => settings.output_flags.set(OutputFlags::ONOCR, on),
        Pty::ONLRET => settings.output_flags.set(OutputFlags::ONLRET, on),
        Pty::PARENB => settings.control_flags.set(ControlFlags::PARENB, on),
        Pty::PARODD => settings.control_flags.set(ControlFlags::PARODD, on),
        _ => {}
    }
}

/// The master side, read and written without blocking.
pub struct Master(AsyncFd<std::fs::File>);

impl Master {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        // SAFETY: a `File` owns its descriptor and gives the same one for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(fd.into()) }?))
    }

    /// What programs wrote; empty when the last of them has closed the terminal.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| file.get_ref().read(buffer)) {
                // Linux reports a slave side that nobody has open as EIO.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|file| file.get_ref().write(bytes)) {
                bytes = bytes.get(written?..).unwrap_or_default();
            }
        }
        Ok(())
    }
}
