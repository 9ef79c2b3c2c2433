//! Dates, times and durations, and where they lie among the values of a column.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::{
    parse_interval_month_day_nano, string_to_datetime, string_to_time_nanoseconds,
};
use arrow::datatypes::TimeUnit;

use super::place::Place;

/// A point in time or a duration, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time {
    nanoseconds: i128,
    /// Whether the time is a little more: it was written with digits below a nanosecond.
    more: bool,
}

impl Time {
    /// Parses a date, or a date and a time, in a zone or without one. It is counted from the start of 1970.
    pub fn instant(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let (text, more) = cut(text);
        let read = |zone: &str| {
            let time =
                string_to_datetime(&zone.parse::<Tz>().map_err(|e| e.to_string())?, &text).map_err(|_| INSTANT)?;
            Ok::<_, String>(i128::from(time.timestamp()) * SECOND + i128::from(time.timestamp_subsec_nanos()))
        };
        let in_utc = read("+00:00")?;
        let says_its_zone = read("+01:00")? == in_utc;
        let nanoseconds = match zone {
            None if says_its_zone => return Err("the column has no time zone; leave that of the value out".into()),
            None => in_utc,
            Some(zone) => {
                zone.parse::<Tz>().map_err(|_| format!("`{zone}` is no time zone that is known here"))?;
                read(zone).map_err(|_| {
                    format!(
                        "there is no such time in {zone}, or it comes twice; write its offset, as in '{text}+01:00'"
                    )
                })?
            }
        };
        Ok(Self { nanoseconds, more })
    }

    /// Parses a time of day.
    pub fn of_day(text: &str) -> Result<Self, String> {
        let (text, more) = cut(text);
        let nanoseconds = string_to_time_nanoseconds(&text).map_err(|_| "write a time of day, as in '18:30:00.5'")?;
        Ok(Self { nanoseconds: nanoseconds.into(), more })
    }

    /// Parses a duration in units of a fixed length, which months are not.
    pub fn span(text: &str) -> Result<Self, String> {
        let whole = text.chars().any(|c| c.is_ascii_digit()) && !text.contains(['.', ':']);
        let span = whole.then(|| parse_interval_month_day_nano(text).ok()).flatten().filter(|span| span.months == 0);
        let span = span.ok_or("write whole numbers of units from weeks to nanoseconds, as in '1 day 12 hours'")?;
        Ok(Self { nanoseconds: i128::from(span.days) * DAY + i128::from(span.nanoseconds), more: false })
    }

    pub fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// Places the time among the multiples of `unit` nanoseconds, each given as its factor.
    pub fn place(self, unit: i128) -> Place<i128> {
        let multiple = self.nanoseconds.div_euclid(unit);
        let exact = self.nanoseconds.rem_euclid(unit) == 0 && !self.more;
        if exact { Place::At(multiple) } else { Place::Above(multiple) }
    }
}

/// Cuts off the digits after the ninth place, which the parsers ignore, and says whether one of them is not 0.
fn cut(text: &str) -> (String, bool) {
    let text = text.trim();
    let Some(point) = text.find('.') else { return (text.to_owned(), false) };
    let places = text[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
    let (kept, end) = (point + 1 + places.min(9), point + 1 + places);
    let more = text[kept..end].bytes().any(|digit| digit != b'0');
    (format!("{}{}", &text[..kept], &text[end..]), more)
}

/// Returns the nanoseconds of a unit.
pub(super) fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

const INSTANT: &str = "write a date or a date and a time, as in '2020-06-01' or '2020-06-01 18:30:00.5'";

const SECOND: i128 = 1_000_000_000;

/// Nanoseconds of a day.
pub(super) const DAY: i128 = 86_400 * SECOND;
