//! `auth_command`: a program of the image's own says whether a password is right (spec ssh.md 1.5.8).

use std::net::SocketAddr;
use std::time::Duration;

use tracing::warn;

use crate::config::{Method, check_user_name};
use crate::hook::{self, Question};
use crate::logging::Seldom;

const LIMIT: Duration = Duration::from_secs(10);
/// It has nothing to say, but should not end for having said it.
const MAX_OUTPUT: u64 = 64 << 10;

static SILENT: Seldom = Seldom::new();

/// What became of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Right,
    Wrong(&'static str),
    /// Wrong, and the connection is to end.
    Disconnect,
}

impl Answer {
    pub const TOO_MANY: Self = Self::Wrong("too many passwords at once");
}

/// Asks the program. What is no answer is a no, and a line in the log.
pub async fn ask(words: &[String], user: &str, peer: SocketAddr, method: Method, password: &[u8]) -> Answer {
    if check_user_name(user).is_err() {
        return Answer::Wrong("no user can have this name");
    }
    let environment = [
        ("MYELIN_USER", user.to_owned()),
        ("MYELIN_PEER", peer.to_string()),
        ("MYELIN_METHOD", method.name().to_owned()),
    ];
    let question = Question {
        words,
        environment: &environment,
        input: password,
        user: None,
        time_limit: LIMIT,
        max_output: MAX_OUTPUT,
    };
    let status = match hook::check_program(words.first().map(String::as_str).unwrap_or_default()) {
        Ok(()) => question.ask().await.map(|(_, status)| status).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match status.as_ref().map(|status| status.code()) {
        Ok(Some(0)) => Answer::Right,
        Ok(Some(1)) => Answer::Wrong("auth_command says no"),
        Ok(Some(2)) => Answer::Disconnect,
        _ => {
            let error =
                status.map_or_else(|error| error, |status| format!("{status}, which is none of 0, 1 and 2"));
            if let Some(before) = SILENT.is_due() {
                warn!(error, before, "auth_command gave no answer");
            }
            Answer::Wrong("auth_command gave no answer")
        }
    }
}
