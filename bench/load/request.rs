//! One request, rendered once: only the digits, letters and ids of its items change.

use crate::workload::{COUNTER, DIGITS, Random, Series, Zipf};

/// Digits of a time in milliseconds.
const TIME_DIGITS: usize = 13;
const ID_DIGITS: usize = 16;

/// What a request looks like.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Items: one is sent as an object, more as an array.
    pub batch: usize,
    /// Whether they have ids.
    pub ids: bool,
    /// Whether the hot view is asked to be written around.
    pub hot_skip: bool,
    /// Events instead of increments, of so many subjects; 0: each of its own.
    pub subjects: Option<u64>,
}

/// Where in an item what changes begins.
struct Places {
    what: What,
    time: usize,
    id: Option<usize>,
    /// From one item to the next.
    step: usize,
}

enum What {
    Increment { country: usize, method: usize, path: usize },
    Event { subject: usize, subjects: u64 },
}

/// A request's bytes, patched anew for every sending.
pub struct Request {
    bytes: Vec<u8>,
    first: usize,
    items: usize,
    places: Places,
    random: Random,
    ids: Random,
}

impl Request {
    /// A request to this host. What it draws follows from the seed.
    pub fn new(shape: Shape, host: &str, seed: u64) -> Self {
        let mut item = match shape.subjects {
            None => format!(
                r#"{{"counter":"{COUNTER}","tags":{{"country":"..","method":"...","path":"/p/{:.<DIGITS$}"}},"time":{:.<TIME_DIGITS$}"#,
                "", "",
            ),
            Some(_) => format!(
                r#"{{"name":"signup","subject":"user-{:.<ID_DIGITS$}","properties":{{"plan":"pro","page":"/docs"}},"time":{:.<TIME_DIGITS$}"#,
                "", "",
            ),
        };
        if shape.ids {
            item += &format!(r#","id":"{:.<ID_DIGITS$}""#, "");
        }
        item.push('}');
        let find = |what: &str| item.find(what).map(|at| at + what.len());
        let place = |what: &str| find(what).expect("it is there");
        let what = match shape.subjects {
            None => {
                What::Increment { country: place(r#""country":""#), method: place(r#""method":""#), path: place("/p/") }
            }
            Some(subjects) => What::Event { subject: place(r#""user-"#), subjects },
        };
        let places = Places { what, time: place(r#""time":"#), id: find(r#""id":""#), step: item.len() + 1 };
        let (open, close) = if shape.batch == 1 { ("", "") } else { ("[", "]") };
        let body = format!("{open}{}{close}", vec![item; shape.batch].join(","));
        let route = if shape.subjects.is_some() { "events" } else { "increments" };
        let query = if shape.hot_skip { "?hot=skip" } else { "" };
        let head = format!(
            "POST /v1/{route}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len(),
        );
        Self {
            first: head.len() + open.len(),
            bytes: (head + &body).into_bytes(),
            items: shape.batch,
            places,
            random: Random::new(seed),
            ids: Random::new(seed.rotate_left(32)),
        }
    }

    /// The next request.
    pub fn next(&mut self, zipf: &Zipf, now_ms: u64) -> &[u8] {
        let mut time = [b'0'; TIME_DIGITS];
        let mut rest = now_ms;
        for digit in time.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        let Places { what, time: time_at, id, step } = &self.places;
        for item in self.bytes[self.first..].chunks_mut(*step).take(self.items) {
            match *what {
                What::Increment { country, method, path } => {
                    let series = Series(zipf.draw(&mut self.random));
                    item[country..][..2].copy_from_slice(&series.country());
                    item[method..][..3].copy_from_slice(series.method());
                    item[path..][..DIGITS].copy_from_slice(&series.digits());
                }
                What::Event { subject, subjects } => {
                    let drawn = self.random.draw();
                    hex(drawn.checked_rem(subjects).unwrap_or(drawn), &mut item[subject..][..ID_DIGITS]);
                }
            }
            item[*time_at..][..TIME_DIGITS].copy_from_slice(&time);
            if let Some(id) = *id {
                hex(self.ids.draw(), &mut item[id..][..ID_DIGITS]);
            }
        }
        &self.bytes
    }
}

fn hex(number: u64, out: &mut [u8]) {
    // Spread the nibbles over bytes, eight at a time.
    for (half, out) in [(number >> 32) as u32, number as u32].into_iter().zip(out.chunks_exact_mut(8)) {
        let mut spread = u64::from(half);
        spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
        spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
        spread = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
        // '0' for each, and the way from '9' to 'a' for those above nine.
        let above = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        out.copy_from_slice(&(spread + 0x3030_3030_3030_3030 + above * 0x27).to_be_bytes());
    }
}
