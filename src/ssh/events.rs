//! `on_event`: a program of the image's own that is told of logins, refusals and ends. Nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::hook::Question;
use crate::logging::Seldom;
use crate::tasks;

/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much it may say.
const MAX_OUTPUT: u64 = 64 << 10;
/// How many of them run at once; what happens meanwhile is not told.
const MAX_AT_ONCE: usize = 4;

static LOST: Seldom = Seldom::new();
static FAILED: Seldom = Seldom::new();

pub struct Events {
    places: Arc<Semaphore>,
}

impl Default for Events {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }
}

impl Events {
    /// Starts the program with the event and its fields in the environment, beside the work.
    pub fn tell(&self, words: &[String], event: &str, fields: &[(&'static str, &dyn std::fmt::Display)]) {
        if words.is_empty() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            if let Some(before) = LOST.is_due() {
                warn!(event, before, "on_event: too many programs run already; this event is not told");
            }
            return;
        };
        let (words, mut environment) = (words.to_vec(), vec![("MYELIN_EVENT", event.to_owned())]);
        environment.extend(fields.iter().map(|(name, value)| (*name, value.to_string())));
        tasks::spawn(async move {
            let question = Question {
                words: &words,
                environment: &environment,
                input: b"",
                user: None,
                time_limit: LIMIT,
                // Nobody reads what it says, but it may say it.
                max_output: MAX_OUTPUT,
            };
            match question.ask().await {
                Ok((_, status)) if status.success() => {}
                Ok((_, status)) => debug!(%status, "on_event: the program failed"),
                Err(error) => {
                    if let Some(before) = FAILED.is_due() {
                        let program = words.first();
                        warn!(%error, program, before, "on_event: the program did not run to its end");
                    }
                }
            }
            drop(place);
        });
    }
}
