//! Setting up the work folder of a scenario and running the program in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use tempfile::TempDir;

use crate::compare::sha256;
use crate::scenario::{Initial, Patch, Scenario, Stdin};

/// How long a scenario may take. The slowest needs less than a second on a slow board.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long a program is watched to see whether it waits for its input to be closed.
const HANDSHAKE_WATCH: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(2);

pub struct Outcome {
    pub exit: Option<i32>,
    pub timed_out: bool,
    pub waits_for_close: Option<bool>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A fresh folder with links to the data, an empty `out`, and the image to start from.
pub fn prepare(scenario: &Scenario, vectors: &Path) -> io::Result<TempDir> {
    let work = tempfile::Builder::new().prefix("myelin-fwup-").tempdir()?;
    for folder in ["fw", "keys", "conf", "payload"] {
        std::os::unix::fs::symlink(vectors.join(folder), work.path().join(folder))?;
    }
    std::fs::create_dir(work.path().join("out"))?;
    initial_image(&scenario.initial, vectors, &work.path().join("img.bin"))?;
    Ok(work)
}

fn initial_image(initial: &Initial, vectors: &Path, path: &Path) -> io::Result<()> {
    let patches = match initial {
        Initial::None => return Ok(()),
        Initial::Zeros { size, patches } => {
            File::create(path)?.set_len(*size)?;
            patches
        }
        Initial::Fill { size, byte, patches } => {
            File::create(path)?.write_all(&vec![*byte; *size])?;
            patches
        }
        Initial::File { file, size, sha256: expected, patches } => {
            let mut bytes = Vec::with_capacity(*size);
            flate2::read::GzDecoder::new(File::open(vectors.join(file))?).read_to_end(&mut bytes)?;
            if bytes.len() != *size || sha256(&bytes) != *expected {
                return Err(io::Error::other(format!("{file} is not the image it should be")));
            }
            File::create(path)?.write_all(&bytes)?;
            patches
        }
    };
    let mut image = File::options().write(true).open(path)?;
    for patch in patches.iter().flatten() {
        image.seek(SeekFrom::Start(patch.offset))?;
        image.write_all(&bytes_of(&patch.hex)?)?;
    }
    Ok(())
}

/// What the program reads; nothing means /dev/null.
fn input(stdin: &Stdin, vectors: &Path) -> io::Result<Option<Vec<u8>>> {
    let Stdin::File { file, patch, length, pad, frame, end_frame, drop_tail } = stdin else {
        return match stdin {
            Stdin::Hex { hex } => bytes_of(hex).map(Some),
            _ => Ok(None),
        };
    };
    let mut data = std::fs::read(vectors.join(file))?;
    if let Some(Patch { offset, hex }) = patch {
        let bytes = bytes_of(hex)?;
        let at = *offset as usize;
        data[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    data.truncate(length.unwrap_or(usize::MAX));
    data.resize(data.len() + pad.unwrap_or(0), 0);
    if let Some(size) = frame {
        let mut framed = Vec::new();
        for piece in data.chunks(*size) {
            framed.extend((piece.len() as u32).to_be_bytes());
            framed.extend(piece);
        }
        if end_frame.unwrap_or(true) {
            framed.extend([0; 4]);
        }
        data = framed;
    }
    data.truncate(data.len() - drop_tail.unwrap_or(0));
    Ok(Some(data))
}

pub fn execute(scenario: &Scenario, vectors: &Path, command: &[String], work: &Path) -> io::Result<Outcome> {
    let data = input(&scenario.stdin, vectors)?;
    let piped = data.is_some() || scenario.handshake;
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .args(&scenario.argv)
        .current_dir(work)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("LC_ALL", "C"), ("TZ", "UTC"), ("HOME", "/nonexistent")])
        .envs(&scenario.env)
        .stdin(if piped { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let end = Instant::now() + TIME_LIMIT;
    let stdout = Collector::start(child.stdout.take());
    let stderr = Collector::start(child.stderr.take());
    let feeder = child.stdin.take().map(|pipe| feed(pipe, data.unwrap_or_default()));

    let mut waits_for_close = None;
    if scenario.handshake {
        while Instant::now() < end && !stdout.ends_with_handshake() && child.try_wait()?.is_none() {
            thread::sleep(POLL);
        }
        thread::sleep(HANDSHAKE_WATCH);
        waits_for_close = Some(child.try_wait()?.is_none());
        close(feeder, &mut child, end)?;
    } else if let Some(feeder) = feeder {
        // Closing happens where the pipe goes out of scope, in a thread of its own: the program may
        // stop reading before the end and never take all of it.
        thread::spawn(move || drop(feeder.join()));
    }
    let timed_out = !wait(&mut child, end)?;
    if timed_out {
        child.kill()?;
    }
    let exit = child.wait()?.code();
    Ok(Outcome { exit, timed_out, waits_for_close, stdout: stdout.finish(), stderr: stderr.finish() })
}

/// Writes all input and returns the pipe, which closes when it is dropped.
fn feed(mut pipe: ChildStdin, data: Vec<u8>) -> JoinHandle<ChildStdin> {
    thread::spawn(move || {
        // The program may have ended without reading everything; that is for the comparison to judge.
        let _ = pipe.write_all(&data);
        pipe
    })
}

/// Closes the input once it is written. A program that never reads it is ended, so that it cannot be
/// waited for in vain.
fn close(feeder: Option<JoinHandle<ChildStdin>>, child: &mut Child, end: Instant) -> io::Result<()> {
    let Some(feeder) = feeder else { return Ok(()) };
    while !feeder.is_finished() && Instant::now() < end {
        thread::sleep(POLL);
    }
    if !feeder.is_finished() {
        child.kill()?;
    }
    drop(feeder.join());
    Ok(())
}

/// Whether the program has ended by then.
fn wait(child: &mut Child, end: Instant) -> io::Result<bool> {
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Reads one output of the program to its end.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Collector {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut piece) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]);
            }
        });
        Collector { bytes, thread }
    }

    /// Whether 0x1a and a status byte were the last that came.
    fn ends_with_handshake(&self) -> bool {
        matches!(self.bytes.lock().unwrap_or_else(PoisonError::into_inner)[..], [.., 0x1A, _])
    }

    fn finish(self) -> Vec<u8> {
        let _ = self.thread.join();
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn bytes_of(hex: &str) -> io::Result<Vec<u8>> {
    HEXLOWER.decode(hex.as_bytes()).map_err(io::Error::other)
}
