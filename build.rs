//! Asks the linker for packed relative relocations where the program can be loaded with them: 170 KB of 5 MiB.

use std::env;
use std::process::Command;

/// The first glibc whose loader knows DT_RELR (its release notes, 2022).
const FIRST_GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Cross builds promise an older glibc than the one that is here.
    let at_home = env::var("HOST").ok() == env::var("TARGET").ok() && is("CARGO_CFG_TARGET_ENV", "gnu");
    if at_home && glibc().is_some_and(|version| version >= FIRST_GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's glibc, as getconf(1) tells it: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
