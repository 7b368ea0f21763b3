//! Cursors: where the next page begins. Opaque to clients: a kind byte and a position, in URL-safe base64.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::problem::Problem;

/// What a cursor pages over: one kind's cursor is refused by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paged {
    Counters,
    Series,
    Events,
}

impl Paged {
    const fn byte(self) -> u8 {
        match self {
            Self::Counters => b'c',
            Self::Series => b's',
            Self::Events => b'e',
        }
    }
}

/// An event's place in a page's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventPlace {
    pub(super) time_ms: i64,
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
}

fn refused() -> Problem {
    Problem::bad_request("malformed", "`cursor` is not one that this list gave; begin again without it")
}

fn write(paged: Paged, position: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode([&[paged.byte()], position].concat())
}

fn read(paged: Paged, cursor: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
    if bytes.first() != Some(&paged.byte()) {
        return Err(refused());
    }
    bytes.remove(0);
    Ok(bytes)
}

/// The cursor of a list that is sorted by a text.
pub(super) fn write_text(paged: Paged, last: &str) -> String {
    write(paged, last.as_bytes())
}

/// Reads what [`write_text`] wrote.
pub(super) fn read_text(paged: Paged, cursor: &str) -> Result<Arc<str>, Problem> {
    let text = String::from_utf8(read(paged, cursor)?).map_err(|_| refused())?;
    Ok(text.into())
}

/// The cursor after this event.
pub(super) fn write_event(place: &EventPlace) -> String {
    let length = u32::try_from(place.id.len()).expect("an id has at most 128 bytes").to_be_bytes();
    let parts = [&place.time_ms.to_be_bytes()[..], &length, place.id.as_bytes(), place.name.as_bytes()];
    write(Paged::Events, &parts.concat())
}

/// Reads what [`write_event`] wrote.
pub(super) fn read_event(cursor: &str) -> Result<EventPlace, Problem> {
    let bytes = read(Paged::Events, cursor)?;
    let place = || {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (id, name) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let text = |bytes| std::str::from_utf8(bytes).ok().map(Arc::from);
        Some(EventPlace { time_ms: i64::from_be_bytes(*time), id: text(id)?, name: text(name)? })
    };
    place().ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_read_back_and_only_by_their_own_list(time_ms: i64, id in ".{0,40}", name in ".{0,40}") {
            let text = write_text(Paged::Series, &name);
            prop_assert_eq!(&*read_text(Paged::Series, &text).unwrap(), name.as_str());
            prop_assert!(read_text(Paged::Counters, &text).is_err());
            let place = EventPlace { time_ms, id: id.into(), name: name.into() };
            prop_assert_eq!(read_event(&write_event(&place)).unwrap(), place);
            prop_assert!(read_event(&text).is_err());
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in "[A-Za-z0-9_-]{0,60}") {
            let _ = (read_event(&text), read_text(Paged::Series, &text));
        }
    }
}
