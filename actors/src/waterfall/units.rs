//! Times as people read them.

/// To the microsecond up to a hundred seconds: microseconds below ten milliseconds, then milliseconds, then seconds. Never
/// more than eleven columns, unless negative or of years.
pub(crate) fn duration(ns: u64, ascii: bool) -> String {
    signed_duration(ns as f64, ascii)
}

pub(crate) fn signed_duration(ns: f64, ascii: bool) -> String {
    let us = ns / 1e3;
    let micro = micro(ascii);
    match us.abs() {
        0.0 => format!("0 {micro}"),
        size if size < 9.95 => format!("{us:.1} {micro}"),
        size if size < 9_999.5 => format!("{us:.0} {micro}"),
        size if size < 9_999_999.5 => format!("{:.3} ms", us / 1e3),
        size if size < 99_999_999.5 => format!("{:.6} s", us / 1e6),
        size if size < 99_999_950_000.0 => format!("{:.3} s", us / 1e6),
        _ => format!("{:.0} h", us / 3.6e9),
    }
}

/// Short, for where only the order of size matters: an axis, a sentence.
pub(crate) fn coarse(ns: f64, ascii: bool) -> String {
    let us = ns / 1e3;
    match us.abs() {
        size if size < 9_999.5 => signed_duration(ns, ascii),
        size if size < 9_999_950.0 => format!("{:.1} ms", us / 1e3),
        size if size < 99_999_950_000.0 => format!("{:.1} s", us / 1e6),
        _ => signed_duration(ns, ascii),
    }
}

pub(crate) fn micro(ascii: bool) -> &'static str {
    if ascii { "us" } else { "µs" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_below_a_thousand_hours_takes_more_than_eleven_columns() {
        for exponent in 0..16 {
            for factor in [1, 5, 9, 99, 999, 9_999] {
                let ns = 10_u64.pow(exponent.min(11)) * factor;
                let text = duration(ns, false);
                assert!(text.chars().count() <= 11, "{text}");
            }
        }
    }

    #[test]
    fn a_microsecond_can_be_told_up_to_a_hundred_seconds() {
        for ns in [12_345_000_u64, 9_876_543_000, 98_765_432_000] {
            assert_ne!(duration(ns, true), duration(ns + 1_000, true));
        }
    }
}
