//! Runs one subsystem: the file goes in as fast as the device takes it, what it prints comes out, and its status.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use tokio::time::{MissedTickBehavior, interval};

use super::connect::Connection;
use super::talk::Talk;
use crate::host::remote::{End, Input, Output, Trouble};

/// What is read of the file at once. The window of the channel bounds what is on its way.
const PIECE: usize = 32 * 1024;
/// How often it is looked whether a machine on the way is gone.
const TICK: Duration = Duration::from_secs(1);
/// A line of the device's stderr that never ends is cut.
const MAX_LINE: usize = 4096;

/// stderr, which SSH calls extended data of this type (RFC 4254 section 5.2).
const STDERR: u32 = 1;

enum Event {
    Message(Option<ChannelMsg>),
    Sent(io::Result<()>),
    Tick,
}

/// Returns how it ended, and how much of the file was taken.
pub async fn run(
    connection: &Connection,
    name: &str,
    input: Option<Input<'_>>,
    mut output: Output,
    host: &str,
    talk: &Talk,
) -> io::Result<(End, u64)> {
    let lost = || {
        talk.error(format_args!("Connection to {host} closed by remote host."));
        End::Without(Some(Trouble::Lost))
    };
    let channel = match connection.session.channel_open_session().await {
        Ok(channel) => channel,
        Err(russh::Error::ChannelOpenFailure(reason)) => {
            talk.error(format_args!("channel 0: open failed: {reason:?}"));
            return Ok((End::Without(Some(Trouble::Connect)), 0));
        }
        Err(_) => return Ok((lost(), 0)),
    };
    if channel.request_subsystem(true, name).await.is_err() {
        return Ok((lost(), 0));
    }
    let (mut messages, writer) = channel.split();
    let sent = std::cell::Cell::new(0);
    let sending = send(input, &writer, &sent);
    tokio::pin!(sending);
    // Nothing is sent before the device has said that it has this subsystem.
    let mut accepted = false;
    let mut all_sent = false;
    let mut stderr = Lines { talk, line: Vec::new() };
    let mut status = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        let event = tokio::select! {
            message = messages.wait() => Event::Message(message),
            result = &mut sending, if accepted && !all_sent => Event::Sent(result),
            _ = ticks.tick() => Event::Tick,
        };
        match event {
            Event::Sent(result) => {
                all_sent = true;
                result?;
            }
            Event::Message(Some(ChannelMsg::Success)) => accepted = true,
            Event::Message(Some(ChannelMsg::Failure)) => {
                talk.error(format_args!("subsystem request failed on channel 0"));
                break End::Without(Some(Trouble::NoSubsystem));
            }
            Event::Message(Some(ChannelMsg::Data { data })) => {
                if !output(&data) {
                    break End::Without(None);
                }
            }
            Event::Message(Some(ChannelMsg::ExtendedData { data, ext: STDERR })) => stderr.add(&data),
            Event::Message(Some(ChannelMsg::ExitStatus { exit_status })) => {
                status = Some(End::Status(i32::try_from(exit_status).unwrap_or(i32::MAX)));
            }
            Event::Message(Some(ChannelMsg::Close)) => break status.unwrap_or(End::Without(None)),
            Event::Message(None) => break status.unwrap_or_else(lost),
            Event::Tick if connection.is_broken() => break status.unwrap_or_else(lost),
            Event::Message(Some(_)) | Event::Tick => {}
        }
    };
    stderr.end();
    Ok((end, sent.get()))
}

/// Sends the file and its end. An error is one of the file; a connection that is gone is seen by its messages.
async fn send(
    input: Option<Input<'_>>,
    writer: &ChannelWriteHalf<Msg>,
    sent: &std::cell::Cell<u64>,
) -> io::Result<()> {
    if let Some(input) = input {
        loop {
            let mut piece = vec![0; PIECE];
            let count = match input.file.read(&mut piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The end of the file is not sent: half of it must not look like a whole one.
                Err(error) => return Err(error),
            };
            if count == 0 {
                break;
            }
            piece.truncate(count);
            if writer.data_bytes(Bytes::from(piece)).await.is_err() {
                return Ok(());
            }
            sent.set(sent.get() + count as u64);
            (input.progress)(sent.get());
        }
    }
    let _ = writer.eof().await;
    Ok(())
}

/// Cuts the device's stderr into lines.
struct Lines<'a> {
    talk: &'a Talk,
    line: Vec<u8>,
}

impl Lines<'_> {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= MAX_LINE {
                self.end();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.talk.error(format_args!("{}", String::from_utf8_lossy(&line).trim_end()));
        }
    }
}
