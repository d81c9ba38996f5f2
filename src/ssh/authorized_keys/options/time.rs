//! `expiry-time="YYYYMMDD[HHMM[SS]][Z]"`: until when a key counts (sshd(8)).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys;

/// A clock that says less has not been set: boards without a battery start in 1970, and a key must not be lost
/// to that. The beginning of 2026, when there was no Myelin yet, in seconds since 1970.
const EARLIEST: i64 = 1_767_225_600;

/// A moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(i64);

impl Expiry {
    /// `None` for what is no date. Without `Z` it is local time, as for sshd.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, utc) = text.strip_suffix(['Z', 'z']).map_or((text, false), |digits| (digits, true));
        if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse().ok());
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
        let exists = (1970..).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !exists {
            return None;
        }
        let seconds = seconds_since_1970(year, month, day) + i64::from(hour * 3600 + minute * 60 + second);
        // The offset of that day and not of today: summer time.
        Some(Self(if utc { seconds } else { seconds - sys::local_offset(seconds) }))
    }

    /// The end of the time of a certificate; one without an end has a number beyond all dates.
    pub fn at(seconds: u64) -> Self {
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Whether it has passed, as far as the clock can be believed.
    pub fn is_over(self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.is_over_at(i64::try_from(now).unwrap_or(i64::MAX))
    }

    fn is_over_at(self, now: i64) -> bool {
        now >= EARLIEST && now > self.0
    }
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i32, month: i32) -> i32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Midnight of a day of the Gregorian calendar that exists.
fn seconds_since_1970(year: i32, month: i32, day: i32) -> i64 {
    let years: i32 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: i32 = (1..month).map(|month| days_in(year, month)).sum();
    i64::from(years + months + day - 1) * 86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d … +%s` prints them.
        for (text, seconds) in [
            ("19700101Z", 0),
            ("20200229Z", 1_582_934_400),
            ("20260101Z", EARLIEST),
            ("203801190314Z", 2_147_483_640),
            ("20991231235959Z", 4_102_444_799),
        ] {
            assert_eq!(Expiry::parse(text), Some(Expiry(seconds)), "{text}");
        }
        for text in [
            "",
            "Z",
            "2020",
            "20200230Z",
            "20201301Z",
            "2020010124Z",
            "202001012460Z",
            "2020-01-01",
            "19690101",
        ] {
            assert_eq!(Expiry::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_expires_nothing() {
        let past = Expiry(EARLIEST - 86_400);
        assert!(past.is_over_at(EARLIEST) && !past.is_over_at(0) && !past.is_over_at(EARLIEST - 1));
        assert!(!Expiry(EARLIEST + 10).is_over_at(EARLIEST + 10));
    }
}
