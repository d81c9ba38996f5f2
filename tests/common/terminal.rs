//! A terminal with a program in it, for what is asked there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::{text, wait_until};

pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Our own hold of the program's side: its settings can be seen.
    line: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `command` with a terminal for stdin, stdout, stderr and /dev/tty.
    pub fn run(command: &Command) -> Self {
        let pty = openpty(None, None).unwrap();
        let line = || pty.slave.try_clone().unwrap();
        let mut words = Command::new("setsid");
        words.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => words.env(name, value),
                None => words.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            words.current_dir(folder);
        }
        let child = words.stdin(line()).stdout(line()).stderr(line()).spawn().unwrap();
        let mut output = File::from(pty.master.try_clone().unwrap());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = output.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard: File::from(pty.master), line: pty.slave, screen }
    }

    /// Everything that was shown.
    pub fn screen(&self) -> String {
        text(&self.screen.lock().unwrap())
    }

    /// Waits until this has been shown for the `times`th time.
    pub fn wait_for(&self, words: &str, times: usize) {
        let shown = || self.screen().matches(words).count() >= times;
        let began = std::time::Instant::now();
        while !shown() {
            assert!(began.elapsed() < super::PATIENCE * 3, "{words:?} is missing in: {}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.line).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // What it wrote last is on its way through the thread.
        std::thread::sleep(std::time::Duration::from_millis(100));
        status.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
