//! The agent worker: it lets a new firmware prove itself, and says that it is valid.
//!
//! It has no part in logins and updates, and ends as soon as there is nothing to prove. The end of a trial that it
//! does not bring to a good one is the supervisor's (or a timer's) business, so that its own death costs nothing.

mod gates;
mod trial;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep_until};
use tracing::{error, info, warn};

use self::gates::Gates;
use self::trial::{Action, Event, Trial};
use crate::config::{self, Config, Source};
use crate::firmware::operation::{self, Operation};
use crate::{logging, sys, systemd};

/// More willing to die for memory than what logs people in.
const OOM_SCORE: &[u8] = b"-500";
/// How long an update that runs is waited for in one attempt; there will be another.
const PATIENCE: Duration = Duration::from_secs(60);
/// Less than the supervisor gives us to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// `myelin worker agent`. Exit status 0 when nothing is on trial (any more).
pub fn main(source: &Source) -> ExitCode {
    sys::set_process_name(c"myelin: agent");
    drop(systemd::take_environment());
    let loaded = config::load(source);
    logging::start(&loaded.config);
    sys::set_oom_score(OOM_SCORE);
    let config = loaded.config;
    if config.firmware.validation.gates.is_empty() {
        return ExitCode::SUCCESS;
    }
    if matches!(operation::is_on_trial(&config), Ok(false)) {
        // The common case, for which no event loop is built.
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the event loop");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(serve(config));
    // A copy of the store that is being written becomes whole.
    runtime.shutdown_timeout(FAREWELL);
    code
}

async fn serve(config: Config) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return ExitCode::FAILURE;
    };
    let gates = match Gates::new(&config) {
        Ok(gates) => gates,
        Err(error) => {
            error!(%error, "the gates of the new firmware cannot be prepared");
            return ExitCode::FAILURE;
        }
    };
    info!(gates = ?config.firmware.validation.gates, "the firmware that runs is on trial");
    tell("READY=1");
    let prove = prove(&config, &gates);
    tokio::select! {
        () = prove => ExitCode::SUCCESS,
        () = give_signs_of_life() => ExitCode::FAILURE,
        // Told to end: somebody else decides what that means for the trial.
        _ = terminate.recv() => ExitCode::FAILURE,
        _ = interrupt.recv() => ExitCode::FAILURE,
    }
}

/// Drives the trial to its end.
async fn prove(config: &Config, gates: &Gates) {
    let mut trial = Trial::begin(Instant::now());
    let mut event = Event::Time;
    loop {
        let (next, action) = trial.step(event, Instant::now());
        trial = next;
        event = match action {
            Action::Wait(until) => {
                sleep_until(until.into()).await;
                Event::Time
            }
            Action::Look => {
                let config = config.clone();
                match tokio::task::spawn_blocking(move || operation::is_on_trial(&config)).await {
                    Ok(Ok(on_trial)) => Event::Seen { on_trial },
                    Ok(Err(error)) => {
                        warn!(%error, "the store does not tell whether the firmware is on trial");
                        Event::Unknown
                    }
                    Err(_) => Event::Unknown,
                }
            }
            Action::TryGates => match gates.all_open().await {
                Ok(()) => Event::Open,
                Err(reason) => {
                    info!(reason, "the firmware has not proved itself yet");
                    Event::Closed
                }
            },
            Action::Validate => {
                let config = config.clone();
                let work = move || operation::run(Operation::Validate, &config, PATIENCE);
                match tokio::task::spawn_blocking(work).await {
                    Ok(Ok(())) => {
                        info!("the firmware has proved itself: validated");
                        Event::Validated
                    }
                    Ok(Err(error)) => {
                        warn!(%error, "the firmware has proved itself, but cannot be validated; trying again");
                        Event::Closed
                    }
                    Err(_) => Event::Closed,
                }
            }
            Action::End => return,
        };
    }
}

async fn give_signs_of_life() {
    let Some(limit) = systemd::watchdog_interval() else { return std::future::pending().await };
    let mut ticks = interval(limit / 3);
    loop {
        ticks.tick().await;
        tell("WATCHDOG=1");
    }
}

/// One that cannot be told will start us again, which is no reason to end now.
fn tell(state: &str) {
    if let Err(error) = systemd::notify(state) {
        warn!(%error, state, "cannot tell the service manager");
    }
}
