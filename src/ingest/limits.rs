//! The settings of ingest, checked once and turned into what the hot path compares with.

use std::time::Duration;

use super::{Error, Options};
use crate::{item::Grains, item::MAX_ID_BYTES, pack};

/// The earliest time that RFC 3339 can write: 0000-01-01T00:00:00Z. Nothing older is a time, however it is written.
const EARLIEST_MS: i64 = -62_167_219_200_000;
/// The latest: 9999-12-31T23:59:59.999Z. So no sum of times and bounds downstream comes near the ends of an i64.
const LATEST_MS: i64 = 253_402_300_799_999;
/// Most that a body may be told to decode to: offsets into a parsed batch have 32 bits, with room for escapes.
const MOST_DECODED: usize = 1 << 30;

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body as sent.
    pub max_body: usize,
    /// Largest body after decompression.
    pub max_decoded: usize,
    /// Most items of one request.
    pub max_items: usize,
    /// How far ahead of now an item's time may be, in milliseconds.
    pub max_future_ms: i64,
    /// How old an item may be, in milliseconds, where there is a bound.
    pub max_age_ms: Option<i64>,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a pack waits for more items.
    pub linger: Duration,
    /// A pack closes at this size.
    pub pack_bytes: usize,
    /// Unacknowledged packs of one partition.
    pub in_flight: usize,
    /// Bytes in bodies and packs.
    pub buffer: usize,
    /// How long a request waits for the log.
    pub ack_timeout: Duration,
    /// The format version that packs are written in.
    pub format: u32,
    /// The time buckets that increments count into.
    pub grains: Grains,
}

impl Limits {
    /// Checks `options`.
    ///
    /// # Errors
    /// The first setting that does not work.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let check = |holds: bool, key, message: String| {
            if holds { Ok(()) } else { Err(Error::Setting { key, message }) }
        };
        let Options { max_body, max_decoded, max_items, in_flight, format, .. } = *options;
        check(max_body.0 >= 1, "max_body", "a body of 0 bytes holds nothing; the default is 5MiB".into())?;
        check(
            max_decoded >= max_body,
            "max_decoded",
            format!("{max_decoded} is less than ingest.max_body ({max_body}); make it at least that"),
        )?;
        check(
            max_decoded.as_usize() <= MOST_DECODED,
            "max_decoded",
            format!("{max_decoded} is more than 1GiB; lower it and send more requests instead"),
        )?;
        check(
            (1..=1_000_000).contains(&max_items),
            "max_items",
            format!("{max_items} is not between 1 and 1000000; the default is 10000"),
        )?;
        check(
            !options.body_timeout.0.is_zero(),
            "body_timeout",
            "0 refuses every body that does not come at once; the default is 30s".into(),
        )?;
        check(
            !options.ack_timeout.0.is_zero() && options.ack_timeout > options.linger,
            "ack_timeout",
            format!(
                "{} must be longer than ingest.linger ({}), or no request is ever answered; the default is 10s",
                options.ack_timeout, options.linger
            ),
        )?;
        check(
            (1..=64 << 20).contains(&options.pack_bytes.0),
            "pack_bytes",
            format!("{} is not between 1 and 64MiB; the default is 256KiB", options.pack_bytes),
        )?;
        check(
            (1..=1024).contains(&in_flight),
            "in_flight",
            format!("{in_flight} is not between 1 and 1024; the default is 2"),
        )?;
        check(
            options.buffer.0 >= 1024,
            "buffer",
            format!("{} holds no request; make it at least 1KiB (the default is 64MiB)", options.buffer),
        )?;
        check(
            (1..=pack::FORMAT).contains(&format),
            "format",
            format!(
                "this program writes format versions 1 to {}, not {format}; upgrade it or lower the setting",
                pack::FORMAT
            ),
        )?;
        Ok(Self {
            max_body: max_body.as_usize(),
            max_decoded: max_decoded.as_usize(),
            max_items,
            max_future_ms: options.max_future.as_millis(),
            max_age_ms: Some(options.max_age.as_millis()).filter(|age| *age > 0),
            body_timeout: options.body_timeout.0,
            linger: options.linger.0,
            pack_bytes: options.pack_bytes.as_usize(),
            in_flight,
            buffer: options.buffer.as_usize(),
            ack_timeout: options.ack_timeout.0,
            format,
            grains: grains(&options.grains)?,
        })
    }

    /// The times that an item received at `now_ms` may have: `(earliest, latest)`.
    pub fn times(&self, now_ms: i64) -> (i64, i64) {
        let earliest = self.max_age_ms.map_or(EARLIEST_MS, |age| now_ms.saturating_sub(age).max(EARLIEST_MS));
        (earliest, now_ms.saturating_add(self.max_future_ms).min(LATEST_MS))
    }

    /// Longest `Idempotency-Key`: `KEY#index` must fit an id for every item that a request may have.
    pub fn max_key_bytes(&self) -> usize {
        let digits = (self.max_items - 1).checked_ilog10().unwrap_or(0) as usize + 1;
        MAX_ID_BYTES - 1 - digits
    }
}

fn grains(names: &[String]) -> Result<Grains, Error> {
    let mut grains = Grains::default();
    for name in names {
        let grain = match name.as_str() {
            "minute" => Grains::MINUTE,
            "hour" => Grains::HOUR,
            "day" => Grains::DAY,
            _ => {
                let message = format!("`{name}` is not a grain; list any of `minute`, `hour`, `day`");
                return Err(Error::Setting { key: "grains", message });
            }
        };
        if grains.with(grain) == grains {
            return Err(Error::Setting { key: "grains", message: format!("`{name}` is listed twice; list it once") });
        }
        grains = grains.with(grain);
    }
    Ok(grains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Size, Span};

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options::default();
        change(&mut options);
        Limits::new(&options).expect_err("it must be refused").to_string()
    }

    #[test]
    fn a_setting_that_does_not_work_is_named_with_its_remedy() {
        assert!(Limits::new(&Options::default()).is_ok());
        assert!(refused(|o| o.max_body = Size(0)).starts_with("ingest.max_body: "));
        assert!(refused(|o| o.max_decoded = Size::kib(1)).starts_with("ingest.max_decoded: 1KiB is less"));
        assert!(refused(|o| o.max_decoded = Size::gib(2)).starts_with("ingest.max_decoded: "));
        assert!(refused(|o| o.max_items = 0).starts_with("ingest.max_items: "));
        assert!(refused(|o| o.body_timeout = Span::default()).starts_with("ingest.body_timeout: "));
        assert!(refused(|o| o.ack_timeout = Span::from_millis(1)).starts_with("ingest.ack_timeout: "));
        assert!(refused(|o| o.pack_bytes = Size(0)).starts_with("ingest.pack_bytes: "));
        assert!(refused(|o| o.in_flight = 0).starts_with("ingest.in_flight: 0 is not"));
        assert!(refused(|o| o.buffer = Size(1)).starts_with("ingest.buffer: "));
        assert!(refused(|o| o.format = 0).starts_with("ingest.format: "));
        assert!(refused(|o| o.format = pack::FORMAT + 1).starts_with("ingest.format: "));
        assert!(refused(|o| o.grains = vec!["week".into()]).starts_with("ingest.grains: `week` is not a grain"));
        assert!(refused(|o| o.grains = vec!["day".into(), "day".into()]).contains("twice"));
    }

    #[test]
    fn an_idempotency_key_leaves_room_for_every_index() {
        let limits = |max_items| Limits::new(&Options { max_items, ..Options::default() }).unwrap();
        assert_eq!(limits(1).max_key_bytes(), 126);
        assert_eq!(limits(10).max_key_bytes(), 126);
        assert_eq!(limits(11).max_key_bytes(), 125);
        assert_eq!(limits(10_000).max_key_bytes(), 123);
    }
}
