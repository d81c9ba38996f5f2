//! A configuration as TOML, every key with its value.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::Config;

/// Renders every key; one that is not set stands in a comment, for TOML has no word for that.
pub fn as_toml(config: &Config) -> serde_json::Result<String> {
    let mut text = String::new();
    if let Value::Object(keys) = serde_json::to_value(config)? {
        section(&mut text, "", &keys);
    }
    // JSON leaves this one control character as it is, TOML does not.
    Ok(text.replace('\u{7f}', "\\u007f"))
}

fn section(text: &mut String, name: &str, keys: &Map<String, Value>) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    if !name.is_empty() {
        line(format_args!("\n[{name}]"));
    }
    for (key, value) in keys {
        match value {
            Value::Object(_) => {}
            Value::Null => line(format_args!("# {key} is not set")),
            // Texts, numbers and lists of them look the same in JSON and in TOML.
            value => line(format_args!("{} = {value}", quoted(key))),
        }
    }
    for (key, value) in keys {
        if let Value::Object(keys) = value {
            let dot = if name.is_empty() { "" } else { "." };
            section(text, &format!("{name}{dot}{}", quoted(key)), keys);
        }
    }
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::layers::Layers;

    #[test]
    fn what_is_shown_loads_as_what_it_was() {
        let mut config = Config::default();
        config.ssh.subsystem.insert("a.b".into(), vec!["/bin/x".into(), "\"quoted\"\n\u{7f}\u{1}".into()]);
        config.ssh.banner = Some("Grüße\\\t\u{8}\n".into());
        config.firmware.devpath = Some("/dev/mmcblk0".into());
        let text = as_toml(&config).unwrap();
        let mut layers = Layers::default();
        layers.add(Path::new("shown"), text.as_bytes());
        assert!(layers.problems.is_empty());
        assert_eq!(layers.build().0, config);
    }
}
