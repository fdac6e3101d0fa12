//! Points in time as text.

use serde::{Serialize, Serializer};

/// Seconds since 1970, UTC. Shown as `2024-11-05 10:00 UTC`, serialized as `2024-11-05T10:00:00Z`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UtcTime(pub i64);

impl UtcTime {
    /// The time that Windows counts in units of 100 ns since the year 1601.
    pub fn from_file_time(ticks: u64) -> Self {
        Self(ce_disk::volume::WindowsTime(ticks).unix_seconds())
    }

    /// Year, month, day, by the proleptic Gregorian calendar.
    fn date(self) -> (i64, i64, i64) {
        // Counted from 0000-03-01, so that a leap day is the last of its year; an era has 400 years.
        let days = self.0.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month, day)
    }
}

impl std::fmt::Display for UtcTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.date();
        let second = self.0.rem_euclid(DAY);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (year, month, day) = self.date();
        let second = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        serializer.collect_str(&format_args!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        ))
    }
}

const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_by_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (-1, "1969-12-31 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (-11_644_473_600, "1601-01-01 00:00 UTC"),
        ] {
            assert_eq!(UtcTime(seconds).to_string(), expected);
        }
        let json = serde_json::to_string(&UtcTime::from_file_time(133_752_744_010_000_000));
        assert_eq!(json.unwrap(), "\"2024-11-05T10:00:01Z\"");
    }

    #[test]
    fn no_time_that_a_hive_can_hold_is_too_much() {
        for time in [UtcTime::from_file_time(u64::MAX), UtcTime(u32::MAX.into())] {
            assert!(!time.to_string().is_empty());
        }
    }
}
