//! Months since 1970 (UTC), by which events of a subject are parted.

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Months of 400 years.
const ERA_MONTHS: i64 = 4_800;
/// Days from 1 March of the year 0 to 1 January 1970.
const MARCH_0_TO_1970: i64 = 719_468;
/// The first days of the months of a year that begins with March, so that a leap day is its last.
const STARTS: [i64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];

/// The month of a time in milliseconds since 1970. Times beyond what 32 bits of months reach share the last one.
pub fn of(time_ms: i64) -> i32 {
    let day = time_ms.div_euclid(86_400_000) + MARCH_0_TO_1970;
    let (era, day) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    // Months are of nearly one length: the guess is at most one off.
    let guess = day * ERA_MONTHS / ERA_DAYS;
    let month = (guess - 1..=guess + 1).rfind(|month| start(*month) <= day).unwrap_or(guess);
    let month = era * ERA_MONTHS + month + 2 - 1_970 * 12;
    i32::try_from(month).unwrap_or(if month < 0 { i32::MIN } else { i32::MAX })
}

/// The first day of a month of an era, both counted from its first March.
fn start(month: i64) -> i64 {
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12));
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + STARTS[usize::try_from(month).expect("a remainder of 12")]
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn by_calendar(time_ms: i64) -> i32 {
        let date = Timestamp::from_millisecond(time_ms).unwrap().to_zoned(TimeZone::UTC);
        (i32::from(date.year()) - 1_970) * 12 + i32::from(date.month()) - 1
    }

    #[test]
    fn the_first_and_the_last_millisecond_of_every_month_are_in_it() {
        assert_eq!(of(0), 0);
        assert_eq!(of(-1), -1);
        assert_eq!(of(1_748_736_000_000), 665, "June 2025");
        let mut time_ms = by_days(-4_000 * 366);
        let mut last = of(time_ms);
        while time_ms < by_days(4_000 * 366) {
            time_ms += 86_400_000;
            let month = of(time_ms);
            assert!(month == last || month == last + 1);
            if month != last {
                assert_eq!(of(time_ms - 1), last);
                assert_eq!(month, by_calendar(time_ms));
            }
            last = month;
        }
    }

    const fn by_days(days: i64) -> i64 {
        days * 86_400_000
    }

    #[test]
    fn times_beyond_every_calendar_keep_their_order() {
        assert_eq!((of(i64::MIN), of(i64::MAX)), (i32::MIN, i32::MAX));
    }

    proptest! {
        #[test]
        fn months_are_the_calendars(time_ms in -62_000_000_000_000_i64..253_000_000_000_000) {
            prop_assert_eq!(of(time_ms), by_calendar(time_ms));
        }

        #[test]
        fn later_is_never_an_earlier_month(a: i64, b: i64) {
            prop_assert!(of(a.min(b)) <= of(a.max(b)));
        }
    }
}
