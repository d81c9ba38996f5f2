//! `myelin gen-script`: write an upload.sh for people who have ssh and nothing of ours.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::files;

#[derive(clap::Args)]
pub struct Args {
    /// The script.
    #[arg(default_value = "upload.sh")]
    file: PathBuf,
    /// Overwrite without asking.
    #[arg(short, long)]
    force: bool,
}

const SCRIPT: &str = include_str!("upload.sh");

pub fn main(args: Args) -> ExitCode {
    if args.file.exists() && !args.force && !confirmed(&args.file) {
        eprintln!("myelin: {} exists and stays as it is; -f overwrites it", args.file.display());
        return ExitCode::FAILURE;
    }
    match files::write_atomic(&args.file, SCRIPT.as_bytes(), 0o755) {
        Ok(()) => {
            println!("Wrote {}. Run it: {} HOST FILE", args.file.display(), run_as(&args.file));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("myelin: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks on a terminal; without one nobody can agree.
fn confirmed(path: &Path) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    eprint!("{} exists. Overwrite it? [y/N] ", path.display());
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// A bare name is searched on PATH by the shell, not here.
fn run_as(path: &Path) -> String {
    let bare = path.components().count() == 1;
    if bare { format!("./{}", path.display()) } else { path.display().to_string() }
}
