//! Logs in: keys, then questions of the server, then a password, as long as the server offers them.

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Response, Prompt};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use zeroize::Zeroizing;

use super::agent::Agent;
use super::identities::{self, Identity};
use super::secrets::{Secrets, read_first_line};
use super::settings::{Hop, Method, Settings};
use super::signer::{SignError, Signer};
use super::talk::Talk;
use super::terminal::Secret;
use super::waits::{Over, Waits};
use crate::client::Handle;
use crate::host::remote::Trouble;
use crate::host::status::printable;

/// One login on one connection.
pub struct Login<'a> {
    pub waits: &'a Waits,
    pub session: &'a mut Handle,
    pub hop: &'a Hop,
    pub settings: &'a Settings,
    pub secrets: &'a Secrets,
    pub talk: &'a Talk,
    /// The server's key is not the known one: it gets no password.
    pub distrusted: bool,
}

/// The methods that a server goes on with, as bits.
#[derive(Clone, Copy)]
struct Offered(u8);

impl Offered {
    fn has(self, kind: MethodKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl From<MethodSet> for Offered {
    fn from(methods: MethodSet) -> Self {
        Self(methods.iter().fold(0, |bits, kind| bits | 1 << *kind as u8))
    }
}

/// What came of one attempt.
#[derive(Clone, Copy)]
enum Attempt {
    Success,
    /// It was right, and is not enough.
    Partial(Offered),
    Refused(Offered),
    /// Nothing was sent.
    Nothing,
}

/// There can be no more attempts: the connection is gone, or the time is over.
struct Gone;

impl From<Over> for Gone {
    fn from(_: Over) -> Self {
        Self
    }
}

impl From<russh::Error> for Gone {
    fn from(_: russh::Error) -> Self {
        Self
    }
}

/// Rounds of a server that always wants one thing more, and questions of one that always has another.
const MAX_ROUNDS: usize = 32;
/// Questions of one round.
const MAX_PROMPTS: usize = 16;

impl Login<'_> {
    /// `said_why` is asked when the connection is gone: whether the server has said why it ended it.
    pub fn run(mut self, said_why: impl Fn() -> bool) -> Result<(), Trouble> {
        let outcome = self.attempts();
        outcome.map_err(|Gone| {
            if said_why() {
                return Trouble::Authentication;
            }
            if self.waits.is_over() {
                return Trouble::Connect;
            }
            let Hop { host, port, .. } = self.hop;
            self.talk.error(format_args!("Connection closed by {host} port {port} during the login"));
            Trouble::Connect
        })?
    }

    fn attempts(&mut self) -> Result<Result<(), Trouble>, Gone> {
        let none = self.waits.on(self.session.authenticate_none(self.hop.user.clone()))??;
        let mut offered = match self.attempt_of(none)? {
            Attempt::Success => return Ok(Ok(())),
            Attempt::Partial(methods) | Attempt::Refused(methods) => methods,
            Attempt::Nothing => Offered(0),
        };
        let mut agent = identities::agent(self.settings, self.session, self.talk);
        let mut keys: Option<Vec<Identity>> = None;
        let mut methods = self.settings.methods.clone();
        for _ in 0..MAX_ROUNDS {
            let Some(method) = methods.iter().copied().find(|method| offered.has(kind(*method))) else {
                break;
            };
            let attempt = match method {
                Method::PublicKey => {
                    // Those that are left: a server may want two keys.
                    let keys = keys.get_or_insert_with(|| {
                        let mut keys =
                            identities::collect(self.settings, agent.as_mut(), self.secrets, self.talk);
                        keys.reverse();
                        keys
                    });
                    self.keys(keys, agent.as_mut())?
                }
                Method::KeyboardInteractive => self.questions()?,
                Method::Password => self.passwords()?,
            };
            match attempt {
                Attempt::Success => return Ok(Ok(())),
                Attempt::Partial(next) => offered = next,
                Attempt::Refused(_) | Attempt::Nothing => methods.retain(|other| *other != method),
            }
        }
        let names: Vec<&str> = KINDS.iter().filter(|kind| offered.has(**kind)).map(<&str>::from).collect();
        let offered = names.join(",");
        self.talk.error(format_args!("{}: Permission denied ({offered}).", self.account()));
        Ok(Err(Trouble::Authentication))
    }

    fn account(&self) -> String {
        format!("{}@{}", self.hop.user, self.hop.host)
    }

    /// A connection that is gone looks like a refusal that offers nothing.
    fn attempt_of(&self, result: AuthResult) -> Result<Attempt, Gone> {
        match result {
            AuthResult::Success => Ok(Attempt::Success),
            AuthResult::Failure { .. } if self.session.is_closed() => Err(Gone),
            AuthResult::Failure { remaining_methods, partial_success: true } => {
                Ok(Attempt::Partial(remaining_methods.into()))
            }
            AuthResult::Failure { remaining_methods, .. } => Ok(Attempt::Refused(remaining_methods.into())),
        }
    }

    /// Takes the keys from the end.
    fn keys(&mut self, keys: &mut Vec<Identity>, mut agent: Option<&mut Agent>) -> Result<Attempt, Gone> {
        let mut last = Attempt::Nothing;
        while let Some(identity) = keys.pop() {
            let attempt = match (&identity, &mut agent) {
                (Identity::Agent(key), Some(agent)) => {
                    self.key(key.key.clone(), &key.comment, Signer::Agent { agent, key })?
                }
                (Identity::Agent(_), None) => Attempt::Nothing,
                (Identity::File(file), _) => {
                    let (settings, secrets, talk) = (self.settings, self.secrets, self.talk);
                    let name = file.path().display().to_string();
                    self.key(file.public.clone(), &name, Signer::File { file, settings, secrets, talk })?
                }
            };
            match attempt {
                Attempt::Success | Attempt::Partial(_) => return Ok(attempt),
                refused => last = refused,
            }
        }
        Ok(last)
    }

    /// russh asks first whether the server takes the key: nobody types a passphrase for one that it does not take.
    fn key(&mut self, key: PublicKey, name: &str, mut signer: Signer<'_>) -> Result<Attempt, Gone> {
        let Some(hash) = self.hash(key.algorithm())? else { return Ok(Attempt::Nothing) };
        let user = self.hop.user.clone();
        let result = self.waits.on(self.session.authenticate_publickey_with(user, key, hash, &mut signer))?;
        match result {
            Ok(result) => self.attempt_of(result),
            Err(SignError::Gone) => Err(Gone),
            Err(SignError::Locked) => Ok(Attempt::Nothing),
            Err(error) => {
                self.talk.error(format_args!("sign_and_send_pubkey: signing failed for '{name}': {error}"));
                Ok(Attempt::Nothing)
            }
        }
    }

    /// The hash that a key signs with; `None` if the server wants one that is broken.
    fn hash(&self, algorithm: Algorithm) -> Result<Option<Option<HashAlg>>, Gone> {
        if !algorithm.is_rsa() {
            return Ok(Some(None));
        }
        Ok(match self.waits.on(self.session.best_supported_rsa_hash())?? {
            // It says nothing about it: one that knows neither would be older than 2016.
            None => Some(Some(HashAlg::Sha256)),
            Some(Some(hash)) => Some(Some(hash)),
            Some(None) => None,
        })
    }

    /// The password that is known already: typed for an earlier connection, or from the file.
    fn known_password(&self) -> Option<Secret> {
        if let Some(password) = self.secrets.password(&self.account()) {
            return Some(password);
        }
        let file = self.settings.password_file.as_ref()?;
        read_first_line(file).map_err(|error| self.talk.error(format_args!("{error}"))).ok()
    }

    fn may_send_passwords(&self) -> bool {
        if self.distrusted {
            self.talk.error(format_args!(
                "Password authentication is disabled to avoid man-in-the-middle attacks."
            ));
        }
        !self.distrusted
    }

    fn passwords(&mut self) -> Result<Attempt, Gone> {
        if !self.may_send_passwords() {
            return Ok(Attempt::Nothing);
        }
        let question = format!("{}'s password: ", self.account());
        let mut known = self.known_password();
        let mut last = Attempt::Nothing;
        for _ in 0..self.settings.password_prompts {
            let Some(password) = known.take().or_else(|| self.talk.ask(&question, true)) else { break };
            let user = self.hop.user.clone();
            let result = self.waits.on(self.session.authenticate_password(user, password.as_str()))??;
            match self.attempt_of(result)? {
                Attempt::Refused(methods) => {
                    let again = methods.has(MethodKind::Password);
                    last = Attempt::Refused(methods);
                    if !again || self.settings.password_file.is_some() {
                        break;
                    }
                    self.talk.error(format_args!("Permission denied, please try again."));
                }
                right => {
                    self.secrets.keep_password(&self.account(), password);
                    return Ok(right);
                }
            }
        }
        Ok(last)
    }

    /// keyboard-interactive. A known password answers a single hidden question, which is what most servers ask.
    fn questions(&mut self) -> Result<Attempt, Gone> {
        if !self.may_send_passwords() {
            return Ok(Attempt::Nothing);
        }
        let mut known = self.known_password();
        let mut last = Attempt::Nothing;
        for _ in 0..self.settings.password_prompts {
            if known.is_none() && !self.talk.may_ask() {
                break;
            }
            match self.round(&mut known)? {
                Attempt::Refused(methods) => last = Attempt::Refused(methods),
                Attempt::Nothing => break,
                right => return Ok(right),
            }
            if self.settings.password_file.is_some() {
                break;
            }
        }
        Ok(last)
    }

    /// All questions of one try.
    fn round(&mut self, known: &mut Option<Secret>) -> Result<Attempt, Gone> {
        let user = self.hop.user.clone();
        let start = self.session.authenticate_keyboard_interactive_start(user, None::<String>);
        let mut response = self.waits.on(start)??;
        let mut answered: Option<Secret> = None;
        for _ in 0..MAX_ROUNDS {
            let (name, instructions, prompts) = match response {
                Response::Success => {
                    if let Some(answer) = answered {
                        self.secrets.keep_password(&self.account(), answer);
                    }
                    return Ok(Attempt::Success);
                }
                Response::Failure { remaining_methods, partial_success } => {
                    return self.attempt_of(AuthResult::Failure { remaining_methods, partial_success });
                }
                Response::InfoRequest { name, instructions, prompts } => (name, instructions, prompts),
            };
            if prompts.len() > MAX_PROMPTS {
                return Ok(Attempt::Nothing);
            }
            self.talk.quote(&name);
            self.talk.quote(&instructions);
            let mut answers = Vec::new();
            let is_password = matches!(prompts.as_slice(), [Prompt { echo: false, .. }]);
            for prompt in &prompts {
                let reused = if is_password { known.take() } else { None };
                let Some(answer) = reused.or_else(|| self.talk.ask(&self.question(prompt), !prompt.echo))
                else {
                    return Ok(Attempt::Nothing);
                };
                // russh takes it as it is, and does not wipe it.
                answers.push(answer.as_str().to_owned());
                answered = is_password.then_some(answer);
            }
            response = self.waits.on(self.session.authenticate_keyboard_interactive_respond(answers))??;
        }
        Ok(Attempt::Nothing)
    }

    fn question(&self, prompt: &Prompt) -> Zeroizing<String> {
        Zeroizing::new(format!("({}) {}", self.account(), printable(&prompt.prompt)))
    }
}

/// Every method that has a name, in the order of servers.
const KINDS: &[MethodKind] = &[
    MethodKind::PublicKey,
    MethodKind::Password,
    MethodKind::KeyboardInteractive,
    MethodKind::HostBased,
    MethodKind::GssapiWithMic,
];

fn kind(method: Method) -> MethodKind {
    match method {
        Method::PublicKey => MethodKind::PublicKey,
        Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
        Method::Password => MethodKind::Password,
    }
}
