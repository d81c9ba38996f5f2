//! The fuzz targets: every parser of ours that meets bytes from outside, each by a name. `fuzz/` has a program for each;
//! the tests here run them on their corpus and on damaged copies of it.

use crate::{config, firmware, fwup, host, mdns, scp, sftp, ssh, uboot_env};

type Target = fn(&[u8]);

/// Names are those of the programs and of the folders in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive", fwup::fuzzing::archive),
    ("authorized_keys", ssh::fuzzing::authorized_keys),
    ("before_encryption", ssh::fuzzing::before_encryption),
    ("configuration", config::fuzzing::configuration),
    ("connection", ssh::fuzzing::connection),
    ("environment", uboot_env::fuzzing::environment),
    ("fat", fwup::fuzzing::fat),
    ("fwup_conf", fwup::fuzzing::fwup_conf),
    ("fwup_output", firmware::fuzzing::fwup_output),
    ("host_key", ssh::fuzzing::host_key),
    ("known_hosts", host::fuzzing::known_hosts),
    ("legacy_header", ssh::fuzzing::legacy_header),
    ("mdns", mdns::fuzzing::mdns),
    ("meta_conf", fwup::fuzzing::meta_conf),
    ("moduli", ssh::fuzzing::moduli),
    ("scp", scp::fuzzing::scp),
    ("sftp", sftp::fuzzing::sftp),
];

/// Runs one of them.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a program of a target that there is").1(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Copies of each file of the corpus, each damaged in another way.
    const COPIES: u64 = 200;

    fn damaged(original: &[u8], mut seed: u64) -> Vec<u8> {
        let mut copy = original.to_vec();
        let mut random = |below: usize| {
            // xorshift64: the same damage in every run.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below.max(1) as u64).unwrap_or_default()
        };
        for _ in 0..=random(4) {
            let at = random(copy.len());
            match random(4) {
                0 => copy.truncate(at),
                1 => copy.insert(at.min(copy.len()), 0xff),
                2 if at < copy.len() => drop(copy.remove(at)),
                _ => {
                    if let Some(byte) = copy.get_mut(at) {
                        *byte ^= 1 << random(8);
                    }
                }
            }
        }
        copy
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus_that_it_survives_also_damaged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            assert!(folder.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no program");
            let corpus: Vec<_> = fs::read_dir(folder.join("corpus").join(name))
                .unwrap_or_else(|error| panic!("{name} has no corpus: {error}"))
                .map(|entry| fs::read(entry.unwrap().path()).unwrap())
                .collect();
            assert!(!corpus.is_empty(), "{name} has an empty corpus");
            for original in &corpus {
                target(original);
                for seed in 1..=COPIES {
                    target(&damaged(original, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                }
            }
        }
    }
}
