//! What a firmware file says about itself, read by our own fwup applet as a process.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;
use thiserror::Error;

/// The metadata that an upload shows and compares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    pub product: Option<String>,
    pub version: Option<String>,
    pub platform: Option<String>,
    pub architecture: Option<String>,
    pub uuid: Option<String>,
}

#[derive(Debug, Error)]
pub enum MetadataError {
    #[error("{path} is no firmware file: {reason}")]
    NotFirmware { path: String, reason: String },
    #[error("the metadata of the file cannot be read: {0}")]
    Run(std::io::Error),
}

/// Reads the metadata; a file without `meta.conf` is refused before anything is sent.
pub fn read(path: &Path) -> Result<Metadata, MetadataError> {
    // The applet knows the format; here nothing of the file is parsed.
    let output = Command::new("/proc/self/exe")
        .args(["fwup", "-m", "-i"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(MetadataError::Run)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.trim().trim_start_matches("fwup: ").to_owned();
        let reason = if reason.is_empty() { "its metadata cannot be read".into() } else { reason };
        return Err(MetadataError::NotFirmware { path: path.display().to_string(), reason });
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// `meta-product="name"`, one a line.
fn parse(text: &str) -> Metadata {
    let mut metadata = Metadata::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let field = match name.trim() {
            "meta-product" => &mut metadata.product,
            "meta-version" => &mut metadata.version,
            "meta-platform" => &mut metadata.platform,
            "meta-architecture" => &mut metadata.architecture,
            "meta-uuid" => &mut metadata.uuid,
            _ => continue,
        };
        *field = Some(unquote(value.trim())).filter(|value| !value.is_empty());
    }
    metadata
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        // The text goes to a terminal.
        text.push(if c.is_control() { '?' } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_fwup_is_read() {
        let metadata = parse(
            "meta-product=\"My \\\"thing\\\"\"\nmeta-version=\"1.0=2\"\nmeta-author=\"x\"\nmeta-uuid=\"u-1\"\n\
             meta-platform=\"\"\n",
        );
        assert_eq!(metadata.product.as_deref(), Some("My \"thing\""));
        assert_eq!(metadata.version.as_deref(), Some("1.0=2"));
        assert_eq!(metadata.uuid.as_deref(), Some("u-1"));
        assert_eq!(metadata.platform, None);
    }
}
