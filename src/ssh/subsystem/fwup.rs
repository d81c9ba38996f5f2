//! The `fwup` subsystem: what a client sends is a `.fw` file and nothing else, and goes to fwup as it comes
//! (spec ssh.md 2.1, 2.2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::firmware::success;
use crate::firmware::update::{Answer, Holder, Outcome, Refusal, Sender, Update};
use crate::ssh::channel::flow::{End, Flow};
use crate::ssh::channel::{Exit, Output, Session};

/// The success action never runs before the client had so long to hear its exit status.
const ACTION_AFTER: Duration = Duration::from_millis(500);
/// How long we wait for the client to close its side.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// The channel as a sender of updates.
pub struct ChannelSender {
    pub flow: Arc<Flow>,
    pub output: Output,
}

impl Sender for ChannelSender {
    fn next(&self) -> Answer<'_, Option<Vec<Bytes>>> {
        Box::pin(self.flow.next())
    }

    fn gone(&self) -> Answer<'_, ()> {
        Box::pin(self.flow.gone())
    }

    fn drain(&self) -> Answer<'_, ()> {
        self.flow.discard();
        Box::pin(self.flow.ended(End::Eof))
    }

    fn stdout(&self, text: Bytes) -> Answer<'_, bool> {
        Box::pin(self.output.stdout(text))
    }

    fn stderr(&self, text: Bytes) -> Answer<'_, bool> {
        Box::pin(self.output.stderr(text))
    }
}

/// Who this session is, for the update lock and the pre-check.
fn holder(session: &Session) -> Holder {
    let login = session.connection.login.get();
    let peer = session.connection.peer;
    Holder {
        name: format!("ssh {}", peer.ip()),
        user: login.map(|login| login.user.clone()).unwrap_or_default(),
        peer: peer.to_string(),
        fingerprint: login.map(|login| login.fingerprint.clone()).unwrap_or_default(),
    }
}

/// Runs one update over the channel, and the success action after it.
pub async fn run(session: Session) {
    let sender = ChannelSender { flow: Arc::clone(&session.flow), output: session.output() };
    let status = update(&session, &sender).await;
    sender.flow.discard();
    sender.output.finish(Exit::Status(status)).await;
    if status == 0 {
        act_after_close(&session).await;
    }
}

/// Runs one update and says how it ended: its exit status.
pub async fn update(session: &Session, sender: &dyn Sender) -> u32 {
    let config = &session.settings.config;
    let began = Instant::now();
    let holder = holder(session);
    let begun = tokio::select! {
        begun = Update::begin(config, &holder, sender) => begun,
        () = sender.gone() => Err(Refusal::new("the client is gone", 1_u32)),
    };
    let outcome = match begun {
        Ok(update) => update.run(sender).await,
        // Of what the sender sends, no more is read than it took to decide.
        Err(Refusal { text, status }) => {
            sender.stdout(format!("{text}\n").into()).await;
            Outcome { status, bytes: 0, last_line: text }
        }
    };
    log(session, &outcome, began.elapsed());
    outcome.status
}

/// Runs the success action once the client has heard how the update ended.
pub async fn act_after_close(session: &Session) {
    let earliest = Instant::now() + ACTION_AFTER;
    let _ = timeout(CLOSE_LIMIT, session.flow.gone()).await;
    sleep_until(earliest).await;
    success::act(&session.settings.config, &session.settings.source).await;
}

fn log(session: &Session, outcome: &Outcome, took: Duration) {
    let user = session.connection.login.get().map(|login| login.user.as_str()).unwrap_or_default();
    let (peer, status, bytes) = (session.connection.peer, outcome.status, outcome.bytes);
    let (seconds, said) = (took.as_secs(), outcome.last_line.as_str());
    if status == 0 {
        info!(%peer, user, bytes, seconds, status, said, "ssh.fwup");
    } else {
        warn!(%peer, user, bytes, seconds, status, said, "ssh.fwup");
    }
}
