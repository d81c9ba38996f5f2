//! Keeps the annotated example honest: it names every key, with its default.

use std::path::Path;

use serde_json::Value;

use super::layers::Layers;
use super::{Config, Problem};

const EXAMPLE: &str = include_str!("../../rootfs-overlay/etc/myelin/config.toml.example");

/// The example with the `#` of its defaults removed.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_shows_the_defaults() {
    let mut layers = Layers::default();
    layers.add(Path::new("config.toml.example"), uncommented().as_bytes());
    let problems: Vec<String> = layers.problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems, [""; 0]);
    assert_eq!(layers.build().0, Config::default());
}

#[test]
fn the_example_as_it_is_changes_nothing() {
    let mut layers = Layers::default();
    layers.add(Path::new("config.toml.example"), EXAMPLE.as_bytes());
    assert!(layers.problems.is_empty());
    assert_eq!(layers.build().0, Config::default());
}

#[test]
fn the_example_names_every_key() {
    fn walk(value: &Value, missing: &mut Vec<String>) {
        let Value::Object(keys) = value else { return };
        for (key, value) in keys {
            let named = EXAMPLE.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{key} = "))
                    || line == format!("[{key}]")
                    || line == format!("[ssh.{key}]")
                    || line == format!("[firmware.{key}]")
            });
            if !named {
                missing.push(key.clone());
            }
            walk(value, missing);
        }
    }
    let mut missing = Vec::new();
    walk(&serde_json::to_value(Config::default()).unwrap(), &mut missing);
    assert_eq!(missing, [""; 0]);
}
