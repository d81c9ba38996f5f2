//! What the client says and asks: lines for the user, in the words of ssh, and questions on the terminal.

use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::terminal::{self, Secret};
use crate::host::remote::{MAX_MESSAGES, Message};
use crate::host::status::printable;

/// Shared by all that may have something to say during a call.
#[derive(Clone)]
pub struct Talk(Arc<Mutex<State>>);

struct State {
    message: Message,
    all: String,
    warnings: bool,
    questions: bool,
    /// When a connection has to stand. A person who thinks is no server that hangs.
    connect_until: Option<Instant>,
}

impl Talk {
    /// `warnings` are shown, `questions` asked, or not.
    pub fn new(message: Message, warnings: bool, questions: bool) -> Self {
        let all = String::new();
        Self(Arc::new(Mutex::new(State { message, all, warnings, questions, connect_until: None })))
    }

    /// Why something goes no further.
    pub fn error(&self, line: Arguments<'_>) {
        let line = line.to_string();
        let mut state = self.lock();
        (state.message)(&line);
        if state.all.len() + line.len() < MAX_MESSAGES {
            state.all.push_str(&line);
            state.all.push('\n');
        }
    }

    pub fn warning(&self, line: Arguments<'_>) {
        if self.lock().warnings {
            self.error(line);
        }
    }

    /// What somebody else wrote: without what moves a cursor.
    pub fn quote(&self, text: &str) {
        text.lines().take(MAX_LINES).for_each(|line| self.error(format_args!("{}", printable(line))));
    }

    /// Whether somebody can be asked.
    pub fn may_ask(&self) -> bool {
        self.lock().questions && terminal::is_there()
    }

    /// `None` if nobody may be asked, or nobody answers.
    pub fn ask(&self, question: &str, hidden: bool) -> Option<Secret> {
        if !self.lock().questions {
            return None;
        }
        let asked = Instant::now();
        let answer = terminal::ask(question, hidden);
        let mut state = self.lock();
        state.connect_until = state.connect_until.map(|until| until + asked.elapsed());
        answer
    }

    pub fn set_connect_until(&self, until: Instant) {
        self.lock().connect_until = Some(until);
    }

    pub fn connect_until(&self) -> Option<Instant> {
        self.lock().connect_until
    }

    /// Everything that was said.
    pub fn messages(&self) -> String {
        std::mem::take(&mut self.lock().all)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines of a text from a server, such as a banner.
const MAX_LINES: usize = 100;
