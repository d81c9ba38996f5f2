//! Variables: the environment of the process, and what definitions add to it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Variables {
    pub fn from_environment() -> Self {
        let pairs = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
        Self { values: pairs.collect() }
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    pub fn set(&mut self, name: &[u8], value: impl Into<Vec<u8>>) {
        self.values.insert(name.to_vec(), value.into());
    }

    /// Sets a variable unless it is set already.
    pub fn set_default(&mut self, name: &[u8], value: impl Into<Vec<u8>>) {
        self.values.entry(name.to_vec()).or_insert_with(|| value.into());
    }

    /// What a `${…}` stands for, given what is between the braces.
    pub fn expand(&self, reference: &[u8]) -> Vec<u8> {
        let colon = reference.iter().position(|&byte| byte == b':');
        let (name, default) = match colon.map(|at| (&reference[..at], &reference[at + 1..])) {
            Some((name, [b'-', default @ ..])) => (name, default),
            _ => (reference, b"".as_slice()),
        };
        self.get(name).unwrap_or(default).to_vec()
    }

    /// For child processes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_counts_only_after_colon_and_minus() {
        let mut variables = Variables::default();
        variables.set(b"A", "1");
        for (reference, value) in [("A", "1"), ("A:-2", "1"), ("B:-2:-3", "2:-3"), ("B", ""), ("B:2", "")] {
            assert_eq!(variables.expand(reference.as_bytes()), value.as_bytes(), "{reference}");
        }
    }
}
