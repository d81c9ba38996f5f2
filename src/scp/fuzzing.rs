//! What a client's `scp -t` side sends, into a folder of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use super::wire::Wire;
use super::{Options, sink};

/// What fits into a pipe that nobody reads yet.
const MAX_INPUT: usize = 60 << 10;

/// The first byte chooses the options. Nothing may come to be outside of the folder.
pub fn scp(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let options = Options {
        to: true,
        from: false,
        recursive: choice & 1 != 0,
        preserve: choice & 2 != 0,
        to_folder: choice & 4 != 0,
    };
    let around = std::env::temp_dir().join(format!("myelin-scp-{}", std::process::id()));
    let target = around.join("target");
    fs::create_dir_all(&target).expect("the temporary folder can be written");
    let (input, mut client) = io::pipe().expect("there are descriptors left");
    client.write_all(data.get(..MAX_INPUT).unwrap_or(data)).expect("it fits into the pipe");
    drop(client);
    let answers = File::options().write(true).open("/dev/null").expect("every system has it");
    // What went wrong was told to the client.
    let _ = sink::receive(
        &mut Wire::over(OwnedFd::from(input).into(), answers),
        &options,
        std::slice::from_ref(&target),
        0o022,
    );
    let names: Vec<_> = fs::read_dir(&around).expect("it is still there").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    fs::remove_dir_all(&around).expect("it is ours");
}
