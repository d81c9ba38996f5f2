//! Asks the linker for what makes the program smaller, where it and the program's loader can do it: packed relative
//! relocations, 170 KB of 5 MiB, and one copy of functions that are the same, 40 KB.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The first glibc whose loader knows DT_RELR (its release notes, 2022).
const FIRST_GLIBC: (u32, u32) = (2, 36);

/// Only code is folded, and no code of ours compares the addresses of functions.
const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Cross builds promise an older glibc than the one that is here.
    let at_home = env::var("HOST").ok() == env::var("TARGET").ok() && is("CARGO_CFG_TARGET_ENV", "gnu");
    if at_home && glibc().is_some_and(|version| version >= FIRST_GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if at_home && is("PROFILE", "release") && linker_takes(FOLD) {
        println!("cargo::rustc-link-arg-bins={FOLD}");
    }
}

/// The version of this machine's glibc, as getconf(1) tells it: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether rustc's linker knows an option: lld does, which is its own on x86-64 since 1.90, GNU's does not.
fn linker_takes(option: &str) -> bool {
    let (Some(rustc), Some(folder)) = (env::var_os("RUSTC"), env::var_os("OUT_DIR")) else { return false };
    let source = Path::new(&folder).join("empty.rs");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut command = Command::new(rustc);
    command.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    command.arg(format!("-Clink-arg={option}")).arg("-o").arg(source.with_extension("")).arg(&source);
    fs::write(&source, "fn main() {}").is_ok() && command.output().is_ok_and(|done| done.status.success())
}
