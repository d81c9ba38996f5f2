//! Which firmware may be installed: the beginning of the archive is read before fwup is started, and passed on to
//! it unchanged (`firmware.minimum_version`, `firmware.accept`).

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::timeout;

use super::update::Sender;
use crate::config::Firmware;
use crate::config::version::{Version, VersionError};
use crate::fwup::{FirmwareError, Metadata};
use crate::tasks::aside;

/// The signature and meta.conf fit this in any archive that fwup takes.
const MAX_HEAD: usize = 128 << 10;
/// The first look; each further one comes when twice as much is there, so that small packets cost no time.
const FIRST_LOOK: usize = 1 << 10;

/// Reads as much of the archive as it takes to decide. What was read is given back, to be passed on.
pub async fn admit(
    firmware: &Firmware,
    sender: &dyn Sender,
    idle_limit: Duration,
) -> Result<Vec<Bytes>, AdmissionError> {
    let mut pieces: Vec<Bytes> = Vec::new();
    if !has_rules(firmware) {
        return Ok(pieces);
    }
    let (mut length, mut next_look, mut ended) = (0, FIRST_LOOK, false);
    loop {
        while length < next_look && !ended {
            match timeout(idle_limit, sender.next()).await.map_err(|_| AdmissionError::Idle)? {
                Some(more) => {
                    length += more.iter().map(Bytes::len).sum::<usize>();
                    pieces.extend(more);
                }
                None => ended = true,
            }
        }
        let head: Vec<u8> = pieces.iter().flatten().copied().take(MAX_HEAD).collect();
        let enough = ended || head.len() == MAX_HEAD;
        // On a thread of its own: whatever is in the archive, it cannot take the worker with it.
        let read = aside(move || Metadata::read(head.as_slice())).await;
        match read.map_err(|_| AdmissionError::Unreadable)? {
            Ok(metadata) => return decide(firmware, &metadata).map(|()| pieces),
            Err(error) if error.is_truncated() && !enough => {
                next_look = (length * 2).min(MAX_HEAD);
            }
            Err(error) if error.is_truncated() && !ended => return Err(AdmissionError::TooLong),
            Err(error) => return Err(error.into()),
        }
    }
}

fn has_rules(firmware: &Firmware) -> bool {
    let accept = &firmware.accept;
    let lists = [&accept.platform, &accept.product, &accept.architecture];
    firmware.minimum_version.is_some() || lists.iter().any(|list| !list.is_empty())
}

/// The rules, on what the archive says of itself.
fn decide(firmware: &Firmware, metadata: &Metadata) -> Result<(), AdmissionError> {
    let accept = &firmware.accept;
    for (what, accepted, found) in [
        ("platform", &accept.platform, &metadata.platform),
        ("product", &accept.product, &metadata.product),
        ("architecture", &accept.architecture, &metadata.architecture),
    ] {
        if !accepted.is_empty() && !accepted.contains(found) {
            let accepted = accepted.join(", ");
            return Err(AdmissionError::OtherDevice { what, found: found.clone(), accepted });
        }
    }
    if let Some(minimum) = &firmware.minimum_version {
        let found = metadata.version.parse::<Version>()?;
        // The configuration was checked; should it be wrong all the same, nothing is installed.
        if found < minimum.parse::<Version>()? {
            let version = metadata.version.clone();
            return Err(AdmissionError::TooOld { version, minimum: minimum.clone() });
        }
    }
    Ok(())
}

/// Why a firmware is not installed.
#[derive(Debug, Error)]
pub enum AdmissionError {
    #[error(
        "this firmware is for {what} \"{found}\", and this device takes {accepted} only; nothing was changed"
    )]
    OtherDevice { what: &'static str, found: String, accepted: String },
    #[error(
        "this firmware has version {version}, and nothing older than {minimum} is installed here; nothing was \
             changed"
    )]
    TooOld { version: String, minimum: String },
    #[error("{0}; nothing was changed")]
    Version(#[from] VersionError),
    #[error("this cannot be checked: {0}; nothing was changed")]
    Archive(#[from] FirmwareError),
    #[error("this cannot be checked: no meta.conf in the first {} KiB; nothing was changed", MAX_HEAD >> 10)]
    TooLong,
    #[error("this cannot be checked: its meta.conf cannot be understood; nothing was changed")]
    Unreadable,
    #[error("no data within firmware.update_idle_timeout: update abandoned")]
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(platform: &str, version: &str) -> Metadata {
        Metadata {
            platform: platform.into(),
            product: "product".into(),
            architecture: "arm".into(),
            version: version.into(),
        }
    }

    fn refusal(firmware: &Firmware, metadata: &Metadata) -> String {
        decide(firmware, metadata).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn other_devices_and_old_versions_are_refused() {
        let mut firmware = Firmware::default();
        assert!(!has_rules(&firmware));
        assert_eq!(refusal(&firmware, &metadata("x", "nonsense")), "");
        firmware.accept.platform = vec!["rpi4".into(), "rpi5".into()];
        assert!(has_rules(&firmware));
        assert_eq!(refusal(&firmware, &metadata("rpi5", "nonsense")), "");
        assert!(refusal(&firmware, &metadata("rpi3", "1.0.0")).contains("platform \"rpi3\""));
        assert!(refusal(&firmware, &metadata("", "1.0.0")).contains("rpi4, rpi5 only"));
        firmware.minimum_version = Some("1.10.0".into());
        assert_eq!(refusal(&firmware, &metadata("rpi4", "1.10.0")), "");
        assert!(refusal(&firmware, &metadata("rpi4", "1.9.9")).contains("nothing older than 1.10.0"));
        assert!(refusal(&firmware, &metadata("rpi4", "1.10.0-rc.1")).contains("1.10.0-rc.1"));
        assert!(refusal(&firmware, &metadata("rpi4", "nightly")).contains("nightly"));
    }
}
