//! Points in time as people write them: UTC, days and seconds, no more.

/// The last moment that can be written: 9999-12-31T23:59:59Z.
const LAST_UNIX_S: u64 = 253_402_300_799;
const DAY_S: u64 = 86_400;

/// `2027-01-31`, which is that day's beginning, or `2027-01-31T12:00:00Z`; seconds since 1970.
pub(crate) fn parse_utc(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time.strip_suffix('Z')?)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = match time {
        Some(time) => numbers(time, ':', [2, 2, 2])?,
        None => [0; 3],
    };
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before_year(year) + days_before_month(year, month) + day - 1;
    Some(days * DAY_S + hour * 3_600 + minute * 60 + second)
}

/// `2027-01-31T12:00:00Z`. What lies behind the year 9999 is that year's end.
pub(crate) fn format_utc(unix_s: u64) -> String {
    let unix_s = unix_s.min(LAST_UNIX_S);
    let (days, of_day) = (unix_s / DAY_S, unix_s % DAY_S);
    let mut year = 1970 + days / 366;
    while days_before_year(year + 1) <= days {
        year += 1;
    }
    let of_year = days - days_before_year(year);
    let month = (1..=12)
        .rev()
        .find(|month| days_before_month(year, *month) <= of_year)
        .unwrap_or(1);
    let day = of_year - days_before_month(year, month) + 1;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before_month(year: u64, month: u64) -> u64 {
    (1..month).map(|month| days_in(year, month)).sum()
}

/// Days from the beginning of 1970 to that of `year`.
fn days_before_year(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_date_is_its_beginning_in_utc() {
        assert_eq!(parse_utc("1970-01-01"), Some(0));
        assert_eq!(parse_utc("2000-02-29"), Some(951_782_400));
        assert_eq!(parse_utc("2027-01-31T12:34:56Z"), Some(1_801_398_896));
        assert_eq!(parse_utc("9999-12-31T23:59:59Z"), Some(LAST_UNIX_S));
        assert_eq!(format_utc(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2027",
            "2027-1-31",
            "2027-13-01",
            "2027-02-29",
            "2027-00-01",
            "2027-01-00",
            "2027-01-31T",
            "2027-01-31T12:00:00",
            "2027-01-31T24:00:00Z",
            "2027-01-31T12:60:00Z",
            "1969-12-31",
            "+027-01-31",
            "2027-01-31-01",
            "12345-01-01",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_comes_back(unix_s in 0..=LAST_UNIX_S) {
            prop_assert_eq!(parse_utc(&format_utc(unix_s)), Some(unix_s));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = parse_utc(&text);
        }
    }
}
