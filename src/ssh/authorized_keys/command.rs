//! `authorized_keys_command`: keys that a program knows (sshd_config(5), AuthorizedKeysCommand).
//!
//! It is asked when no file and no configuration has the key, and cannot keep out who is let in by those.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use nix::unistd::{Gid, Uid, User, geteuid};
use russh::keys::{HashAlg, PublicKey};
use tokio::sync::Semaphore;
use tracing::warn;

use super::{KeyList, Reported, Source};
use crate::config::{Config, check_user_name};
use crate::hook::{self, Question};
use crate::logging::Seldom;
use crate::ssh::server::lock;

const LIMIT: Duration = Duration::from_secs(5);
/// How long an answer counts, and how many are kept.
const KEPT_FOR: Duration = Duration::from_secs(30);
const MAX_KEPT: usize = 64;
const MAX_OUTPUT: u64 = 64 << 10;
/// How many run at the same time: strangers make us start them.
const AT_ONCE: usize = 4;

/// By user and fingerprint: until when an answer counts, and the answer.
type Answers = HashMap<(String, String), (Instant, Arc<[u8]>)>;

/// The answers of the last half minute.
pub struct KeyCommand {
    answers: Mutex<Answers>,
    places: Semaphore,
    reported: Mutex<Reported>,
    complaints: Seldom,
}

impl Default for KeyCommand {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            reported: Mutex::default(),
            complaints: Seldom::default(),
        }
    }
}

impl KeyCommand {
    /// The keys that the program says may log in as `user`; none when it fails.
    pub async fn keys(&self, config: &Config, user: &str, key: &PublicKey) -> KeyList {
        let mut list = KeyList::default();
        if config.ssh.authorized_keys_command.is_empty() {
            return list;
        }
        let named = (user.to_owned(), key.fingerprint(HashAlg::Sha256).to_string());
        let now = Instant::now();
        let kept = lock(&self.answers)
            .get(&named)
            .filter(|(until, _)| now < *until)
            .map(|(_, answer)| Arc::clone(answer));
        let answer = match kept {
            Some(answer) => answer,
            None => match self.ask(config, user, key, &named.1).await {
                Ok(answer) => {
                    let answer: Arc<[u8]> = answer.into();
                    self.keep(named, Arc::clone(&answer));
                    answer
                }
                Err(reason) => {
                    self.complain(&reason);
                    return list;
                }
            },
        };
        list.add_lines(&answer, config.ssh.required_rsa_size, &|line| Source::Command { line });
        lock(&self.reported).warn_new(&list);
        list
    }

    async fn ask(
        &self,
        config: &Config,
        user: &str,
        key: &PublicKey,
        fingerprint: &str,
    ) -> Result<Vec<u8>, String> {
        let Some(program) = config.ssh.authorized_keys_command.first() else { return Ok(Vec::new()) };
        // It would take such a name for one of its options.
        if check_user_name(user).is_err() || user.starts_with('-') {
            return Ok(Vec::new());
        }
        hook::check_program(program)?;
        let blob = key.to_bytes().map(|bytes| BASE64.encode(&bytes)).unwrap_or_default();
        let kind = key.algorithm().to_string();
        let mut words: Vec<_> = config
            .ssh
            .authorized_keys_command
            .iter()
            .map(|word| expand(word, &[('u', user), ('k', &blob), ('t', &kind), ('f', fingerprint)]))
            .collect();
        if words.len() == 1 {
            words.push(user.to_owned());
        }
        let question = Question {
            words: &words,
            environment: &[],
            input: b"",
            user: account(&config.ssh.authorized_keys_command_user)?,
            time_limit: LIMIT,
            max_output: MAX_OUTPUT,
        };
        let Ok(_place) = self.places.try_acquire() else {
            return Err(format!("{program} runs {AT_ONCE} times already"));
        };
        let (output, status) = question.ask().await.map_err(|error| format!("{program}: {error}"))?;
        if !status.success() {
            return Err(format!("{program} failed: {status}"));
        }
        Ok(output)
    }

    fn keep(&self, named: (String, String), answer: Arc<[u8]>) {
        let mut answers = lock(&self.answers);
        let now = Instant::now();
        answers.retain(|_, (until, _)| now < *until);
        if answers.len() < MAX_KEPT {
            answers.insert(named, (now + KEPT_FOR, answer));
        }
    }

    fn complain(&self, reason: &str) {
        if let Some(before) = self.complaints.is_due() {
            warn!(reason, before, "authorized_keys_command lets nobody in");
        }
    }
}

/// As whom it runs, which only root can choose.
fn account(name: &str) -> Result<Option<(Uid, Gid)>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(name).ok().flatten();
    user.map(|user| Some((user.uid, user.gid)))
        .ok_or_else(|| format!("authorized_keys_command_user: there is no user {name}"))
}

/// Puts values in the place of `%` and a letter; `%%` is a `%`.
pub(super) fn expand(word: &str, values: &[(char, &str)]) -> String {
    let mut expanded = String::new();
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            expanded.push(letter);
            continue;
        }
        match letters.next() {
            Some(token) => match values.iter().find(|(known, _)| *known == token) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push(token),
            },
            None => expanded.push('%'),
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_once() {
        let values = [('u', "%k"), ('k', "AAAA")];
        assert_eq!(expand("--user=%u:%k%%u", &values), "--user=%k:AAAA%u");
        assert_eq!(expand("100%", &values), "100%");
    }
}
