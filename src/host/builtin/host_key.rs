//! Whether a server is the one that is meant: what known_hosts says, and what becomes of what it does not say.
//!
//! A key that is not the known one is never accepted on a question: only `StrictHostKeyChecking=no` goes on with it,
//! and then no password is told to that server, as OpenSSH has it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::{HashAlg, PublicKey};

use super::known_hosts::{Knowledge, KnownHosts, Place, name};
use super::settings::{Hop, Settings, Strict};
use super::talk::Talk;
use crate::client::Judge;

/// What the rest of a connection has to know.
#[derive(Clone, Default)]
pub struct Verdict(Arc<Mutex<Findings>>);

#[derive(Clone, Copy, Debug, Default)]
pub struct Findings {
    /// Its key was refused.
    pub refused: bool,
    /// It goes on with a key that is not the known one.
    pub distrusted: bool,
    /// It said why it ended the connection.
    pub said_why: bool,
}

impl Verdict {
    pub fn findings(&self) -> Findings {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Findings)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Judges the key of one server.
pub struct HostKeyCheck {
    hop: Hop,
    known: KnownHosts,
    strict: Strict,
    /// Where a new host is written to.
    file: Option<PathBuf>,
    talk: Talk,
    verdict: Verdict,
    /// Where it was found.
    address: String,
}

impl HostKeyCheck {
    pub fn new(hop: &Hop, address: String, settings: &Settings, talk: &Talk, verdict: &Verdict) -> Self {
        let files = settings.known_hosts.iter().chain(&settings.global_known_hosts);
        Self {
            hop: hop.clone(),
            known: KnownHosts::read(files, |text| talk.warning(format_args!("{text}"))),
            strict: settings.strict,
            file: settings.known_hosts.first().cloned(),
            talk: talk.clone(),
            verdict: verdict.clone(),
            address,
        }
    }

    /// The types of keys that this host is known by, which it should be asked for first.
    pub fn known_types(&self) -> Vec<String> {
        let types = self.known.types(&self.name());
        if types.is_empty() { self.known.types(&self.name_without_port()) } else { types }
    }

    /// What it is called in the files. An alias stands for itself, as ssh has it.
    fn name(&self) -> String {
        match &self.hop.alias {
            Some(alias) => name(alias, 22),
            None => name(&self.hop.host, self.hop.port),
        }
    }

    fn name_without_port(&self) -> String {
        name(self.hop.alias.as_ref().unwrap_or(&self.hop.host), 22)
    }

    fn judge(&self, key: &PublicKey) -> bool {
        let host = self.name();
        match self.known.look_up(&host, key) {
            Knowledge::Known => true,
            // Keys from before the port was another one.
            Knowledge::Unknown if self.is_known_without_port(key) => true,
            Knowledge::Unknown => self.judge_unknown(&host, key),
            Knowledge::OtherType(place) => self.judge_other_type(&host, key, &place),
            Knowledge::Changed(place) => self.judge_changed(&host, key, &place),
            Knowledge::Revoked(place) => {
                self.loudly("WARNING: REVOKED HOST KEY DETECTED!");
                self.talk.error(format_args!(
                    "The {} host key for {host} is marked as revoked in {}:{}.",
                    kind(key),
                    place.file.display(),
                    place.line
                ));
                false
            }
        }
    }

    fn is_known_without_port(&self, key: &PublicKey) -> bool {
        self.known.look_up(&self.name_without_port(), key) == Knowledge::Known
    }

    fn judge_unknown(&self, host: &str, key: &PublicKey) -> bool {
        let kind = kind(key);
        match self.strict {
            Strict::AcceptNew | Strict::No => self.add(host, key),
            Strict::Ask if self.talk.may_ask() => {
                let intro = format!(
                    "The authenticity of host '{}' can't be established.\n{kind} key fingerprint is {}.\n\
                     This host is not known by any other key.\n",
                    self.describe(host),
                    fingerprint(key)
                );
                self.ask(&intro, host, key)
            }
            Strict::Yes | Strict::Ask => {
                self.talk.error(format_args!(
                    "No {kind} host key is known for {host} and nobody may be asked: its fingerprint is {}. Add it to \
                     known_hosts, or use -o StrictHostKeyChecking=accept-new.",
                    fingerprint(key)
                ));
                false
            }
        }
    }

    /// It was asked for the known type first, so it has that key no more, or is another machine.
    fn judge_other_type(&self, host: &str, key: &PublicKey, place: &Place) -> bool {
        match self.strict {
            Strict::Ask if self.talk.may_ask() => {
                let intro = format!(
                    "WARNING: {} is known by a key of another type ({}:{}), which it did not show.\n\
                     {} key fingerprint is {}.\n",
                    self.describe(host),
                    place.file.display(),
                    place.line,
                    kind(key),
                    fingerprint(key)
                );
                self.ask(&intro, host, key)
            }
            Strict::No => self.distrust(),
            Strict::Yes | Strict::Ask | Strict::AcceptNew => {
                self.talk.error(format_args!(
                    "{host} is known by a key of another type ({}:{}) and showed only its {} key {}. If it has got \
                     new keys, remove the old one: ssh-keygen -R '{host}' -f {}",
                    place.file.display(),
                    place.line,
                    kind(key),
                    fingerprint(key),
                    place.file.display()
                ));
                false
            }
        }
    }

    fn judge_changed(&self, host: &str, key: &PublicKey, place: &Place) -> bool {
        self.loudly("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!");
        let file = place.file.display();
        for line in [
            "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!",
            "Someone could be eavesdropping on you right now (man-in-the-middle attack)!",
            "It is also possible that the device was reset or flashed anew and has made itself new keys.",
        ] {
            self.talk.error(format_args!("{line}"));
        }
        self.talk.error(format_args!(
            "The fingerprint of the {} key that it sent is {}.",
            kind(key),
            fingerprint(key)
        ));
        self.talk.error(format_args!("The key that is known stands in {file}:{}.", place.line));
        self.talk.error(format_args!(
            "If you know why it has changed, remove the old key: ssh-keygen -R '{host}' -f {file} (or delete line {}).",
            place.line
        ));
        self.strict == Strict::No && self.distrust()
    }

    fn distrust(&self) -> bool {
        self.talk
            .error(format_args!("Its key is not checked, as you asked for. No password will be sent to it."));
        self.verdict.set(|findings| findings.distrusted = true);
        true
    }

    fn loudly(&self, text: &str) {
        let frame = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";
        self.talk.error(format_args!("{frame}\n@    {text:<53}@\n{frame}"));
    }

    fn ask(&self, intro: &str, host: &str, key: &PublicKey) -> bool {
        let mut question =
            format!("{intro}Are you sure you want to continue connecting (yes/no/[fingerprint])? ");
        for _ in 0..MAX_QUESTIONS {
            let Some(answer) = self.talk.ask(&question, false) else { return false };
            match answer.trim() {
                "yes" => return self.add(host, key),
                answer if answer == fingerprint(key) => return self.add(host, key),
                "no" => return false,
                _ => question = "Please type 'yes', 'no' or the fingerprint: ".into(),
            }
        }
        false
    }

    fn add(&self, host: &str, key: &PublicKey) -> bool {
        let Some(file) = &self.file else { return true };
        match self.known.add(file, host, key) {
            Ok(()) => self.talk.warning(format_args!(
                "Warning: Permanently added '{host}' ({}) to the list of known hosts.",
                kind(key)
            )),
            // It will be asked about again, and that is all.
            Err(error) => self.talk.warning(format_args!(
                "Failed to add the host to the list of known hosts ({}): {error}",
                file.display()
            )),
        }
        true
    }

    fn describe(&self, host: &str) -> String {
        if host == self.address { host.to_owned() } else { format!("{host} ({})", self.address) }
    }
}

/// Somebody who answers nonsense is not asked for ever.
const MAX_QUESTIONS: usize = 10;

impl Judge for HostKeyCheck {
    fn accepts(&mut self, key: &PublicKey) -> bool {
        let accepted = self.judge(key);
        if !accepted {
            self.talk.error(format_args!("Host key verification failed."));
            self.verdict.set(|findings| findings.refused = true);
        }
        accepted
    }

    fn banner(&mut self, text: &str) {
        self.talk.quote(text);
    }

    fn disconnected(&mut self, text: &str) {
        self.talk.quote(&format!("Received disconnect from {}: {text}", self.address));
        self.verdict.set(|findings| findings.said_why = true);
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// `ED25519`, as ssh calls it.
fn kind(key: &PublicKey) -> &'static str {
    match key.algorithm().as_str() {
        "ssh-ed25519" => "ED25519",
        "ssh-rsa" => "RSA",
        _ => "ECDSA",
    }
}
