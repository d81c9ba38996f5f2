//! `ipqos` and `channel_timeout`: values that are small languages of sshd_config(5).

use serde::{Deserialize, Serialize};

use super::values::{Seconds, parse_seconds, pattern_matches};

/// The class of our packets (DSCP): while somebody types, and else; `None` leaves it to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpQos {
    text: String,
    pub interactive: Option<u8>,
    pub bulk: Option<u8>,
}

impl Default for IpQos {
    fn default() -> Self {
        Self { text: "ef cs0".into(), interactive: Some(0xb8), bulk: Some(0) }
    }
}

impl TryFrom<String> for IpQos {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let (interactive, bulk) = match words.as_slice() {
            [both] => (class(both), class(both)),
            [interactive, bulk] => (class(interactive), class(bulk)),
            _ => (None, None),
        };
        let (Some(interactive), Some(bulk)) = (interactive, bulk) else {
            return Err(
                "must be one or two of af11 to af43, cs0 to cs7, ef, le, none, or a number below 256".into(),
            );
        };
        Ok(Self { text, interactive, bulk })
    }
}

impl From<IpQos> for String {
    fn from(qos: IpQos) -> Self {
        qos.text
    }
}

/// The byte of the IP header for a name (RFC 2474, RFC 2597, RFC 3246, RFC 8622).
fn class(word: &str) -> Option<Option<u8>> {
    let byte = match word.as_bytes() {
        b"none" => return Some(None),
        b"ef" => 0xb8,
        b"le" => 0x04,
        [b'c', b's', digit @ b'0'..=b'7'] => (digit - b'0') << 5,
        [b'a', b'f', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => ((class - b'0') << 5) | ((drop - b'0') << 3),
        _ => word.parse().ok()?,
    };
    Some(Some(byte))
}

/// `TYPE=TIME` of sshd_config(5), ChannelTimeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelTimeout {
    text: String,
    pattern: String,
    limit: Seconds,
}

impl ChannelTimeout {
    /// The limit for channels of this kind, such as `session:shell`; the first that fits counts.
    pub fn find(all: &[Self], kind: &str) -> Option<std::time::Duration> {
        let family = kind.split(':').next().unwrap_or(kind);
        let fits = |timeout: &&Self| pattern_matches(&timeout.pattern, kind) || timeout.pattern == family;
        let limit = all.iter().find(fits)?.limit;
        (!limit.is_zero()).then(|| limit.duration())
    }
}

impl TryFrom<String> for ChannelTimeout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = || String::from("must be TYPE=TIME, such as \"session:*=15m\"");
        let (pattern, limit) = text.split_once('=').ok_or_else(wanted)?;
        let limit = if limit == "none" { Some(0) } else { parse_seconds(limit) };
        let limit = Seconds::from_secs(limit.filter(|_| !pattern.is_empty()).ok_or_else(wanted)?);
        Ok(Self { pattern: pattern.to_owned(), limit, text })
    }
}

impl From<ChannelTimeout> for String {
    fn from(timeout: ChannelTimeout) -> Self {
        timeout.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qos(text: &str) -> Result<(Option<u8>, Option<u8>), String> {
        IpQos::try_from(text.to_owned()).map(|qos| (qos.interactive, qos.bulk))
    }

    #[test]
    fn classes_are_bytes_of_the_ip_header() {
        assert_eq!(qos("ef cs0"), Ok((Some(0xb8), Some(0))));
        assert_eq!(qos("af21"), Ok((Some(0x48), Some(0x48))));
        assert_eq!(qos("none,0x10").ok(), None);
        assert_eq!(qos("none 8"), Ok((None, Some(8))));
        for wrong in ["", "af44", "cs8", "256", "ef ef ef"] {
            assert!(qos(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_type_that_fits_counts() {
        let parse = |text: &str| ChannelTimeout::try_from(text.to_owned());
        let all =
            ["session:subsystem:fwup=none", "session:*=5m", "direct-*=1m"].map(|text| parse(text).unwrap());
        let find = |kind: &str| ChannelTimeout::find(&all, kind).map(|limit| limit.as_secs());
        assert_eq!(find("session:subsystem:fwup"), None);
        assert_eq!((find("session:shell"), find("direct-tcpip"), find("x11")), (Some(300), Some(60), None));
        let all = [parse("session=7").unwrap()];
        assert_eq!(ChannelTimeout::find(&all, "session:shell").map(|limit| limit.as_secs()), Some(7));
        for wrong in ["", "session", "=5", "session=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
