//! The dates of signatures: `20240102T030405Z`, and the `Date` header of HTTP.

/// A second, counted from the Unix epoch, up to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

const SECONDS_MAX: u64 = 253_402_300_799;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Moment {
    /// A later second counts as the last.
    pub(super) fn new(seconds: u64) -> Self {
        Self(seconds.min(SECONDS_MAX))
    }
    pub(super) fn seconds(self) -> u64 {
        self.0
    }
}

/// Days from the epoch to a date of the Gregorian calendar, by years that begin in March.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

fn moment(year: u64, month: u64, day: u64, time: (u64, u64, u64)) -> Option<Moment> {
    let (hour, minute, second) = time;
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !fits {
        return None;
    }
    let days = days(year, month, day);
    // the 31st of February is none
    (civil(days) == (year, month, day)).then(|| Moment(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `YYYYMMDDThhmmssZ`.
pub(super) fn parse_basic(text: &str) -> Option<Moment> {
    let shape = text.is_ascii() && text.len() == 16 && text.as_bytes()[8] == b'T' && text.ends_with('Z');
    if !shape {
        return None;
    }
    let part = |range: std::ops::Range<usize>| number(&text[range]);
    let time = (part(9..11)?, part(11..13)?, part(13..15)?);
    moment(part(0..4)?, part(4..6)?, part(6..8)?, time)
}

/// `Tue, 02 Jan 2024 03:04:05 GMT`.
pub(super) fn parse_http(text: &str) -> Option<Moment> {
    let (_, text) = text.split_once(", ")?;
    let mut words = text.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone) = (words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut time = time.splitn(3, ':').map(number);
    let time = (time.next()??, time.next()??, time.next()??);
    moment(number(year)?, month, number(day)?, time)
}

/// `YYYYMMDDThhmmssZ`.
pub(super) fn basic(moment: Moment) -> String {
    let (year, month, day) = civil(moment.0 / 86_400);
    let second = moment.0 % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates_are_read() {
        assert_eq!(parse_basic("20240102T030405Z").unwrap().seconds(), 1_704_164_645);
        assert_eq!(parse_basic("19700101T000000Z").unwrap().seconds(), 0);
        assert_eq!(parse_basic("20000229T235959Z").unwrap().seconds(), 951_868_799);
        assert_eq!(parse_basic("99991231T235959Z").unwrap().seconds(), SECONDS_MAX);
        assert_eq!(parse_http("Tue, 02 Jan 2024 03:04:05 GMT").unwrap().seconds(), 1_704_164_645);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "",
            "20240102",
            "20240102T030405",
            "20240102t030405Z",
            "20240230T000000Z",
            "20241301T000000Z",
            "20240100T000000Z",
            "20240102T240000Z",
            "20240102T006000Z",
            "2024010éT00000Z",
            "+0240102T030405Z",
            "19691231T235959Z",
        ] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
        for bad in
            ["", "Tue, 02 Jan 2024", "Tue, 02 Jan 2024 03:04:05 CET", "Tue, 02 jan 2024 03:04:05 GMT", "x, y"]
        {
            assert_eq!(parse_http(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn dates_print_as_they_parse(seconds in 0..=SECONDS_MAX) {
            prop_assert_eq!(parse_basic(&basic(Moment::new(seconds))), Some(Moment(seconds)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (parse_basic(&text), parse_http(&text));
        }
    }
}
