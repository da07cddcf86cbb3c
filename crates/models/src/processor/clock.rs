//! `strftime_now` for templates that tell the model the date.
//!
//! In UTC: the standard library knows no time zones, and a template that wants the date wants it
//! to the day.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The time of the call, formatted.
pub(super) fn strftime_now(format: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    strftime(format, now.as_secs())
}

/// Formats seconds since 1970 as Python's `strftime` does in the C locale. Directives that are not
/// known stay as they are.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let date = Date::of(days);
    let (month, weekday) = (
        MONTHS[date.month as usize - 1],
        DAYS[(days + 4) as usize % 7],
    );
    let half_day = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let written = match chars.next() {
            Some('Y') => write!(out, "{:04}", date.year),
            Some('y') => write!(out, "{:02}", date.year % 100),
            Some('m') => write!(out, "{:02}", date.month),
            Some('d') => write!(out, "{:02}", date.day),
            Some('e') => write!(out, "{:2}", date.day),
            Some('j') => write!(out, "{:03}", date.day_of_year),
            Some('B') => write!(out, "{month}"),
            Some('b' | 'h') => write!(out, "{}", &month[..3]),
            Some('A') => write!(out, "{weekday}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('H') => write!(out, "{hour:02}"),
            Some('I') => write!(out, "{half_day:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('F') => write!(out, "{:04}-{:02}-{:02}", date.year, date.month, date.day),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('%') | None => write!(out, "%"),
            Some(other) => write!(out, "%{other}"),
        };
        written.expect("writing to a string does not fail");
    }
    out
}

/// A day of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
}

impl Date {
    /// The day that lies `days` after 1970-01-01, counted in years that begin in March, so that
    /// the leap day is the last of its year.
    fn of(days: u64) -> Self {
        // 719 468 days lie between 0000-03-01 and 1970-01-01; 146 097 make 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March have 31, 30, 31, 30, 31 days, twice: 153 in five of them.
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let from_january = match month {
            1 | 2 => day_of_year - 306,
            _ => day_of_year + 59 + u64::from(leap),
        };
        Self {
            year,
            month,
            day,
            day_of_year: from_january + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_python_prints_them() {
        // datetime.fromtimestamp(t, timezone.utc).strftime("%A %d %B %Y, %j, %I:%M:%S %p %y-%b-%a")
        let format = "%A %d %B %Y, %j, %I:%M:%S %p %y-%b-%a";
        let cases = [
            (0, "Thursday 01 January 1970, 001, 12:00:00 AM 70-Jan-Thu"),
            (
                951_782_400,
                "Tuesday 29 February 2000, 060, 12:00:00 AM 00-Feb-Tue",
            ),
            (
                1_735_689_599,
                "Tuesday 31 December 2024, 366, 11:59:59 PM 24-Dec-Tue",
            ),
            (
                1_763_815_380,
                "Saturday 22 November 2025, 326, 12:43:00 PM 25-Nov-Sat",
            ),
            (
                4_107_542_400,
                "Monday 01 March 2100, 060, 12:00:00 AM 00-Mar-Mon",
            ),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(format, seconds), expected);
        }
    }

    #[test]
    fn other_directives() {
        assert_eq!(
            strftime("%F %T %e|%%|%Q|%", 0),
            "1970-01-01 00:00:00  1|%|%Q|%"
        );
    }
}
