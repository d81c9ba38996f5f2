//! Logs in: keys, then questions of the server, then a password, as long as the server offers them.

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Response, Prompt};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use zeroize::Zeroizing;

use super::identities::{self, Agent, Identity};
use super::secrets::{Secrets, read_first_line};
use super::settings::{Hop, Method, Settings};
use super::signer::{SignError, Signer};
use super::talk::Talk;
use super::terminal::Secret;
use crate::client::Handle;
use crate::host::remote::Trouble;
use crate::host::status::printable;

/// One login on one connection.
pub struct Login<'a> {
    pub session: &'a mut Handle,
    pub hop: &'a Hop,
    pub settings: &'a Settings,
    pub secrets: &'a Secrets,
    pub talk: &'a Talk,
    /// The server's key is not the known one: it gets no password.
    pub distrusted: bool,
}

/// What came of one attempt.
enum Attempt {
    Success,
    /// It was right, and is not enough.
    Partial(MethodSet),
    Refused(MethodSet),
    /// Nothing was sent.
    Nothing,
}

/// Why there can be no more attempts.
struct Gone;

/// Rounds of a server that always wants one thing more, and questions of one that always has another.
const MAX_ROUNDS: usize = 32;
/// Questions of one round.
const MAX_PROMPTS: usize = 16;

impl Login<'_> {
    /// `said_why` is asked when the connection is gone: whether the server has said why it ended it.
    pub async fn run(mut self, said_why: impl Fn() -> bool) -> Result<(), Trouble> {
        let outcome = self.attempts().await;
        outcome.map_err(|Gone| {
            if said_why() {
                return Trouble::Authentication;
            }
            let Hop { host, port, .. } = self.hop;
            self.talk.error(&format!("Connection closed by {host} port {port} during the login"));
            Trouble::Connect
        })?
    }

    async fn attempts(&mut self) -> Result<Result<(), Trouble>, Gone> {
        let none = self.session.authenticate_none(self.hop.user.clone()).await.map_err(|_| Gone)?;
        let mut offered = match self.attempt_of(none)? {
            Attempt::Success => return Ok(Ok(())),
            Attempt::Partial(methods) | Attempt::Refused(methods) => methods,
            Attempt::Nothing => MethodSet::empty(),
        };
        let mut agent = identities::agent(self.settings, self.session, self.talk).await;
        let mut keys: Option<std::vec::IntoIter<Identity>> = None;
        let mut methods = self.settings.methods.clone();
        for _ in 0..MAX_ROUNDS {
            let Some(method) = methods.iter().copied().find(|method| offered.contains(&kind(*method))) else {
                break;
            };
            let attempt = match method {
                Method::PublicKey => {
                    if keys.is_none() {
                        let all =
                            identities::collect(self.settings, agent.as_mut(), self.secrets, self.talk).await;
                        keys = Some(all.into_iter());
                    }
                    // Those that are left: a server may want two keys.
                    self.keys(keys.as_mut().into_iter().flatten(), agent.as_mut()).await?
                }
                Method::KeyboardInteractive => self.questions().await?,
                Method::Password => self.passwords().await?,
            };
            match attempt {
                Attempt::Success => return Ok(Ok(())),
                Attempt::Partial(next) => offered = next,
                Attempt::Refused(_) | Attempt::Nothing => methods.retain(|other| *other != method),
            }
        }
        let offered = offered.iter().map(<&str>::from).collect::<Vec<_>>().join(",");
        self.talk.error(&format!("{}: Permission denied ({offered}).", self.account()));
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
                Ok(Attempt::Partial(remaining_methods))
            }
            AuthResult::Failure { remaining_methods, .. } => Ok(Attempt::Refused(remaining_methods)),
        }
    }

    async fn keys(
        &mut self,
        keys: impl Iterator<Item = Identity>,
        mut agent: Option<&mut Agent>,
    ) -> Result<Attempt, Gone> {
        let mut last = Attempt::Nothing;
        for identity in keys {
            let attempt = match (&identity, &mut agent) {
                (Identity::Agent(key), Some(agent)) => self.agent_key(key, agent).await?,
                (Identity::Agent(_), None) => Attempt::Nothing,
                (Identity::File(file), _) => {
                    let (settings, secrets, talk) = (self.settings, self.secrets, self.talk);
                    let public = match &file.public {
                        Some(public) => public.clone(),
                        None => match file.unlock(settings, secrets, talk) {
                            Some(key) => key.public_key().clone(),
                            None => continue,
                        },
                    };
                    let name = file.path().display().to_string();
                    self.key(public, &name, Signer::File { file, settings, secrets, talk }).await?
                }
            };
            match attempt {
                Attempt::Success | Attempt::Partial(_) => return Ok(attempt),
                refused => last = refused,
            }
        }
        Ok(last)
    }

    async fn agent_key(&mut self, identity: &AgentIdentity, agent: &mut Agent) -> Result<Attempt, Gone> {
        match identity {
            AgentIdentity::PublicKey { key, comment } => {
                self.key(key.clone(), &printable(comment), Signer::Agent(agent)).await
            }
            AgentIdentity::Certificate { certificate, comment } => {
                let Some(hash) = self.hash(certificate.algorithm()).await? else {
                    return Ok(Attempt::Nothing);
                };
                let user = self.hop.user.clone();
                let mut signer = Signer::Agent(agent);
                let result = self
                    .session
                    .authenticate_certificate_with(user, certificate.clone(), hash, &mut signer)
                    .await;
                self.signed(result, &printable(comment))
            }
        }
    }

    /// russh asks first whether the server takes the key: nobody types a passphrase for one that it does not take.
    async fn key(&mut self, key: PublicKey, name: &str, mut signer: Signer<'_>) -> Result<Attempt, Gone> {
        let Some(hash) = self.hash(key.algorithm()).await? else { return Ok(Attempt::Nothing) };
        let user = self.hop.user.clone();
        let result = self.session.authenticate_publickey_with(user, key, hash, &mut signer).await;
        self.signed(result, name)
    }

    fn signed(&self, result: Result<AuthResult, SignError>, name: &str) -> Result<Attempt, Gone> {
        match result {
            Ok(result) => self.attempt_of(result),
            Err(SignError::Gone) => Err(Gone),
            Err(SignError::Locked) => Ok(Attempt::Nothing),
            Err(error) => {
                self.talk.error(&format!("sign_and_send_pubkey: signing failed for '{name}': {error}"));
                Ok(Attempt::Nothing)
            }
        }
    }

    /// The hash that a key signs with; `None` if the server wants one that is broken.
    async fn hash(&self, algorithm: Algorithm) -> Result<Option<Option<HashAlg>>, Gone> {
        if !algorithm.is_rsa() {
            return Ok(Some(None));
        }
        Ok(match self.session.best_supported_rsa_hash().await.map_err(|_| Gone)? {
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
        read_first_line(file).map_err(|error| self.talk.error(&error.to_string())).ok()
    }

    fn may_send_passwords(&self) -> bool {
        if self.distrusted {
            self.talk.error("Password authentication is disabled to avoid man-in-the-middle attacks.");
        }
        !self.distrusted
    }

    async fn passwords(&mut self) -> Result<Attempt, Gone> {
        if !self.may_send_passwords() {
            return Ok(Attempt::Nothing);
        }
        let question = format!("{}'s password: ", self.account());
        let mut known = self.known_password();
        let mut last = Attempt::Nothing;
        for _ in 0..self.settings.password_prompts {
            let Some(password) = known.take().or_else(|| self.talk.ask(&question, true)) else { break };
            let user = self.hop.user.clone();
            let result =
                self.session.authenticate_password(user, password.as_str()).await.map_err(|_| Gone)?;
            match self.attempt_of(result)? {
                Attempt::Refused(methods) => {
                    let again = methods.contains(&MethodKind::Password);
                    last = Attempt::Refused(methods);
                    if !again || self.settings.password_file.is_some() {
                        break;
                    }
                    self.talk.error("Permission denied, please try again.");
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
    async fn questions(&mut self) -> Result<Attempt, Gone> {
        if !self.may_send_passwords() {
            return Ok(Attempt::Nothing);
        }
        let mut known = self.known_password();
        let mut last = Attempt::Nothing;
        for _ in 0..self.settings.password_prompts {
            if known.is_none() && !self.talk.may_ask() {
                break;
            }
            match self.round(&mut known).await? {
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
    async fn round(&mut self, known: &mut Option<Secret>) -> Result<Attempt, Gone> {
        let user = self.hop.user.clone();
        let mut response = self
            .session
            .authenticate_keyboard_interactive_start(user, None::<String>)
            .await
            .map_err(|_| Gone)?;
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
            response =
                self.session.authenticate_keyboard_interactive_respond(answers).await.map_err(|_| Gone)?;
        }
        Ok(Attempt::Nothing)
    }

    fn question(&self, prompt: &Prompt) -> Zeroizing<String> {
        Zeroizing::new(format!("({}) {}", self.account(), printable(&prompt.prompt)))
    }
}

fn kind(method: Method) -> MethodKind {
    match method {
        Method::PublicKey => MethodKind::PublicKey,
        Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
        Method::Password => MethodKind::Password,
    }
}
