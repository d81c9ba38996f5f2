//! Runs `myelin fwup` on recorded scenarios and compares everything that fwup left behind.
//!
//! The scenarios are data: see `tests/vectors/README.md`. Two variables of the environment help with
//! work on the applet: `FWUP_COMMAND` is another command to run (words separated by spaces), and
//! `FWUP_SCENARIOS` a text; only scenarios with it in their name are run then.

mod archive;
mod compare;
mod execute;
mod fat;
mod scenario;
mod streams;
mod uboot;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use scenario::{Reference, Scenario, Stream};

/// Everything of stage 1, the redundant environments, GPT, and what it takes to create archives.
fn is_required(scenario: &Scenario) -> bool {
    const CREATE: [&str; 7] = [
        "create-ab",
        "create-ab-2",
        "create-board",
        "create-mini",
        "create-mbr",
        "create-raw",
        "create-signed",
    ];
    let name = scenario.name.as_str();
    scenario.stage == 1 || name.starts_with("twin-") || name.starts_with("gpt-") || CREATE.contains(&name)
}

/// How many that are: 192 of stage 1, 9 and 3, and 7.
const REQUIRED: usize = 211;
/// One scenario mostly waits for its program, and so does another.
const THREADS: usize = 2;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/fwup")
}

#[test]
fn no_scenario_is_missing() {
    let scenarios = scenario::load(&vectors());
    let names: std::collections::BTreeSet<&str> =
        scenarios.iter().filter(|s| is_required(s)).map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), REQUIRED, "scenarios were lost, or are there twice");
}

/// The comparisons are right about the one program that is known to be right.
#[test]
fn what_fwup_printed_passes_and_other_output_does_not() {
    let mut compared = 0;
    for scenario in scenario::load(&vectors()) {
        let Some(expected) = &scenario.expect.stdout else { continue };
        let printed = match &scenario.reference {
            Reference { stdout_hex: Some(hex), .. } => {
                data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal digits")
            }
            Reference { stdout: Some(text), .. } => text.clone().into_bytes(),
            _ => continue,
        };
        assert_eq!(streams::compare(expected, &printed), Ok(()), "{}", scenario.name);
        let more = [&printed[..], b"fwup: ?"].concat();
        let may_have_more =
            matches!(expected, Stream::Any | Stream::Contains { .. } | Stream::NumericProgress { .. });
        assert_eq!(streams::compare(expected, &more).is_ok(), may_have_more, "{}", scenario.name);
        assert_eq!(
            streams::compare(expected, b"").is_ok(),
            matches!(expected, Stream::Any),
            "{}",
            scenario.name
        );
        compared += 1;
    }
    assert!(compared > 60, "only {compared} scenarios say what fwup printed");
}

#[test]
fn every_required_scenario_passes() {
    let only = std::env::var("FWUP_SCENARIOS").unwrap_or_default();
    let mut scenarios = scenario::load(&vectors());
    scenarios.retain(|s| is_required(s) && s.name.contains(&only));
    let command = command();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let differences = run(scenario, &command);
                    if !differences.is_empty() {
                        let report = format!("{}\n    {}", scenario.name, differences.join("\n    "));
                        failed.lock().expect("no thread panics with the lock").push(report);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no thread panics with the lock");
    failed.sort();
    assert!(
        failed.is_empty(),
        "{} of {} scenarios fail:\n\n{}\n",
        failed.len(),
        scenarios.len(),
        failed.join("\n")
    );
}

fn command() -> Vec<String> {
    match std::env::var("FWUP_COMMAND") {
        Ok(words) => words.split_whitespace().map(str::to_owned).collect(),
        Err(_) => vec![env!("CARGO_BIN_EXE_myelin").to_owned(), "fwup".to_owned()],
    }
}

/// Runs one scenario and returns what is not as recorded.
fn run(scenario: &Scenario, command: &[String]) -> Vec<String> {
    let vectors = vectors();
    let outcome = execute::prepare(scenario, &vectors)
        .and_then(|work| Ok((execute::execute(scenario, &vectors, command, work.path())?, work)));
    match outcome {
        Ok((outcome, work)) => compare::compare(scenario, &outcome, work.path()),
        Err(e) => vec![format!("cannot be run: {e}")],
    }
}
