//! Log lines for syslogd, by datagrams to /dev/log in the form of syslog(3): `<PRIORITY>NAME[PID]: TEXT`, RFC 3164
//! without the time, which every syslogd sets itself.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const SOCKET: &str = "/dev/log";
/// LOG_AUTH, where sshd's lines are looked for; eight levels each.
const FACILITY: u8 = 4 << 3;
/// What the smallest syslogd takes in one piece (BusyBox: 1 KiB and more, as it was built).
const MAX_LINE: usize = 1_000;

/// Where lines are sent. syslogd may come later, or be started again.
pub struct Syslog {
    socket: UnixDatagram,
    /// A stderr that does not wait, where ours could.
    otherwise: Option<File>,
}

/// One line on its way.
pub struct Line<'a> {
    syslog: &'a Syslog,
    level: Level,
}

impl Syslog {
    pub fn new(otherwise: Option<File>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // One that does not read must not stop what logs people in.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, otherwise })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { syslog: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { syslog: self, level: *metadata.level() }
    }
}

impl Write for Line<'_> {
    /// A line comes in one piece. What syslogd does not take, stderr gets.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.syslog.socket.send_to(&message(self.level, std::process::id(), text), SOCKET).is_err() {
            let _ = match &self.syslog.otherwise {
                Some(file) => (&mut &*file).write_all(text),
                None => io::stderr().write_all(text),
            };
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message(level: Level, pid: u32, text: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let text = text.trim_ascii();
    let text = text.get(..MAX_LINE).unwrap_or(text);
    [format!("<{}>myelin[{pid}]: ", FACILITY | severity).as_bytes(), text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_priority_and_its_sender() {
        assert_eq!(message(Level::INFO, 7, b" INFO ssh.auth.ok\n"), b"<38>myelin[7]: INFO ssh.auth.ok");
        assert_eq!(message(Level::ERROR, 7, b"x"), b"<35>myelin[7]: x");
        assert_eq!(message(Level::WARN, 1, &[b'x'; 5000]).len(), MAX_LINE + "<36>myelin[1]: ".len());
    }
}
