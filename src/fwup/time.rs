//! Dates, as archives and metadata write them: UTC, no time zones.

/// A moment in the proleptic Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u16,
    pub minute: u16,
    pub second: u16,
}

impl Date {
    pub fn from_unix(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY) as u32);
        // Count in years that begin on 1 March: the leap day is the last one, and 400 years are one cycle.
        let days = days + DAYS_TO_1970;
        let (cycle, in_cycle) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
        let year = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / (CYCLE - 1)) / 365;
        let in_year = in_cycle - (365 * year + year / 4 - year / 100);
        let month = (5 * in_year + 2) / 153;
        let day = in_year - (153 * month + 2) / 5 + 1;
        let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Self {
            year: cycle * 400 + year + next_year,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u16,
            minute: (rest / 60 % 60) as u16,
            second: (rest % 60) as u16,
        }
    }

    pub fn to_unix(self) -> i64 {
        let (month, year) = (i64::from(self.month), self.year - i64::from(self.month <= 2));
        let (cycle, in_cycle) = (year.div_euclid(400), year.rem_euclid(400));
        let in_year =
            (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + i64::from(self.day) - 1;
        let days = cycle * CYCLE + in_cycle * 365 + in_cycle / 4 - in_cycle / 100 + in_year - DAYS_TO_1970;
        days * DAY + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// Time and date of MS-DOS. They have no time zone; UTC is as good as any.
    pub fn from_dos(time: u16, date: u16) -> Self {
        Self {
            year: 1980 + i64::from(date >> 9),
            month: (date >> 5 & 0xF) as u8,
            day: (date & 0x1F) as u8,
            hour: time >> 11,
            minute: time >> 5 & 0x3F,
            second: (time & 0x1F) * 2,
        }
    }

    /// `YYYY-MM-DDTHH:MM:SSZ`
    pub fn to_text(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// Reads exactly what `to_text` writes.
    pub fn from_text(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
        let date = Self {
            year: number(0, 4)?.into(),
            month: number(5, 7)?.try_into().ok()?,
            day: number(8, 10)?.try_into().ok()?,
            hour: number(11, 13)?,
            minute: number(14, 16)?,
            second: number(17, 19)?,
        };
        // A date that does not exist, or other separators, do not come back as they were.
        (Self::from_unix(date.to_unix()).to_text() == text).then_some(date)
    }
}

const DAY: i64 = 86_400;
/// Days in 400 years.
const CYCLE: i64 = 146_097;
/// From 1 March of the year 0.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_the_same_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(Date::from_unix(seconds).to_text(), text);
            assert_eq!(Date::from_text(text).map(Date::to_unix), Some(seconds));
        }
        assert_eq!(Date::from_text("2023-02-29T00:00:00Z"), None);
        assert_eq!(Date::from_text("2023-11-14 22:13:20Z"), None);
    }
}
