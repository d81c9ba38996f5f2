//! The agent worker: it lets a new firmware prove itself, and says that it is valid.
//!
//! It has no part in logins and updates, and ends as soon as there is nothing to prove. The end of a trial that it
//! does not bring to a good one is the supervisor's (or a timer's) business, so that its own death costs nothing.

mod gates;
mod trial;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use self::gates::Gates;
use self::trial::{Action, Event, Trial};
use crate::config::{self, Config, Source};
use crate::firmware::operation::{self, Operation};
use crate::tasks::aside;
use crate::{logging, sys, systemd};

/// More willing to die for memory than what logs people in.
const OOM_SCORE: &[u8] = b"-500";
/// How long an update that runs is waited for in one attempt; there will be another.
const PATIENCE: Duration = Duration::from_secs(60);
/// As a shell has it for a process that was told to end by SIGTERM.
const TERMINATED: u8 = 128 + 15;
/// Less than the supervisor gives us to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// `myelin worker agent`. Exit status 0 when nothing is on trial (any more), 143 when told to end before.
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
    systemd::tell("READY=1");
    let prove = prove(&config, &gates);
    tokio::select! {
        () = prove => ExitCode::SUCCESS,
        () = systemd::give_signs_of_life() => ExitCode::FAILURE,
        // Not 0, for the trial is not over; systemd takes it as a clean end with SuccessExitStatus=143.
        _ = terminate.recv() => ExitCode::from(TERMINATED),
        _ = interrupt.recv() => ExitCode::from(TERMINATED),
    }
}

/// Drives the trial to its end.
async fn prove(config: &Config, gates: &Gates) {
    let mut trial = Trial::begin(Instant::now());
    let mut event = Event::Time;
    let mut told = String::new();
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
                match aside(move || operation::is_on_trial(&config)).await {
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
                    if reason != told {
                        info!(reason, "the firmware has not proved itself yet");
                        told = reason;
                    }
                    Event::Closed
                }
            },
            Action::Validate => {
                let config = config.clone();
                let work = move || operation::run(Operation::Validate, &config, PATIENCE);
                match aside(work).await {
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
