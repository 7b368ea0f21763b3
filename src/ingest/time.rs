//! RFC 3339 timestamps, read strictly: `2026-01-31T12:00:00Z`, an offset instead of `Z`, a fraction if there is one.
//!
//! By hand, because every item of the hot path may carry one: no allocation, no general-purpose parser.

/// Milliseconds since 1970 of an RFC 3339 timestamp; what lies below a millisecond is cut off. `None` when it is not one.
///
/// A leap second is read as the second after it, and only where one can be: at the end of a UTC day.
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| head[*at] != *byte) || !matches!(head[10], b'T' | b't') {
        return None;
    }
    let year = two(head, 0)? * 100 + two(head, 2)?;
    let (month, day) = (two(head, 5)?, two(head, 8)?);
    let (hour, minute, second) = (two(head, 11)?, two(head, 14)?, two(head, 17)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (millis, rest) = fraction(rest)?;
    let offset_minutes = offset(rest)?;
    let minutes = days_since_1970(year, month, day) * 1440 + hour * 60 + minute - offset_minutes;
    if second == 60 && minutes.rem_euclid(1440) != 1439 {
        return None;
    }
    Some((minutes * 60 + second) * 1000 + millis)
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

fn two(bytes: &[u8], at: usize) -> Option<i64> {
    Some(digit(bytes[at])? * 10 + digit(bytes[at + 1])?)
}

/// `.` and at least one digit, or nothing.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = rest.split_first() else { return Some((0, rest)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let place = |at: usize, worth: i64| if at < count { i64::from(digits[at] - b'0') * worth } else { 0 };
    Some((place(0, 100) + place(1, 10) + place(2, 1), &digits[count..]))
}

/// `Z`, or `+hh:mm` or `-hh:mm`, in minutes east of UTC; and nothing after it.
fn offset(rest: &[u8]) -> Option<i64> {
    match rest {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = digit(*h1)? * 10 + digit(*h2)?;
            let minutes = digit(*m1)? * 10 + digit(*m2)?;
            let total = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -total } else { total })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that a leap day is the
/// last day of its year and (153 m + 2) / 5 gives the days before month m.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse_rfc3339_ms as parse;

    #[test]
    fn timestamps_of_every_form_are_read() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2026-01-31T12:00:00Z"), Some(1_769_860_800_000));
        assert_eq!(parse("2026-01-31t12:00:00z"), Some(1_769_860_800_000));
        assert_eq!(parse("2026-01-31T12:00:00.5Z"), Some(1_769_860_800_500));
        assert_eq!(parse("2026-01-31T12:00:00.1239999999999Z"), Some(1_769_860_800_123));
        assert_eq!(parse("2026-01-31T14:00:00+02:00"), Some(1_769_860_800_000));
        assert_eq!(parse("2026-01-31T06:30:00-05:30"), Some(1_769_860_800_000));
        assert_eq!(parse("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        assert_eq!(parse("2016-12-31T23:59:60Z"), Some(1_483_228_800_000));
        assert_eq!(parse("0000-01-01T00:00:00Z"), Some(-62_167_219_200_000));
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-1-31T12:00:00Z",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+02:60",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:60Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "+2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00Z ",
            "２026-01-31T12:00:00Z",
            "1e3",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_second_of_every_year_is_where_the_calendar_library_puts_it(second in -62_167_219_200i64..253_402_207_200, millis in 0i64..1000) {
            let at = second * 1000 + millis;
            let text = jiff::Timestamp::from_millisecond(at).unwrap().to_string();
            prop_assert_eq!(parse(&text), Some(at), "{}", text);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            parse(&text);
        }
    }
}
