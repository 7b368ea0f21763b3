//! The dead-letter log: away, failing, silent about what it keeps. It looks at each letter, whether it is the record that
//! stands there, and one that its lane cannot apply (law 6).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tallymark::{
    item::Coordinates,
    log::{DeadLetter, DeadLetters, Error, Found},
    retry::Kind,
};

use super::log::{Broker, Opened};

/// How the dead-letter log misbehaves, in thousandths.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Nobody reaches it.
    pub away: bool,
    /// A letter is not kept, and the answer says so.
    pub fails: u64,
    /// A letter is kept, and the answer lost.
    pub answer_lost: u64,
}

/// What was kept.
#[derive(Default)]
pub struct Kept(Mutex<BTreeMap<Coordinates, DeadLetter>>);

impl Kept {
    pub fn has(&self, at: Coordinates) -> bool {
        self.0.lock().unwrap().contains_key(&at)
    }

    fn keep(&self, broker: &Broker, letter: &DeadLetter) {
        let sim = &broker.sim;
        let Coordinates { lane, seq } = letter.at;
        if lane.topic_id == broker.topic_id() && !sim.is_tainted(lane) {
            let is_it = broker.history(lane.partition, |history| {
                history.iter().any(|record| record.seq == seq && record.payload == letter.payload)
            });
            if !is_it || letter.reason.is_empty() {
                sim.violated(|| format!("law 6: {letter:?} is not what stands there"));
            }
        }
        sim.note(|| format!("log {}: {seq} is a dead letter: {}", lane.partition, letter.reason));
        let known = self.0.lock().unwrap().insert(letter.at, letter.clone());
        // The verdict is the record's; what was said of it may be that it was a dead letter before.
        if known.is_some_and(|known| known.payload != letter.payload) {
            sim.violated(|| format!("law 6: {:?} is another dead letter now", letter.at));
        }
    }
}

fn away() -> Error {
    Error::new(Kind::Transient, "the dead-letter log does not answer")
}

#[async_trait]
impl DeadLetters for Opened {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), Error> {
        self.asked().await?;
        let broker: &Arc<Broker> = self.broker();
        let Trouble { away: is_away, fails, answer_lost } = broker.trouble().letters;
        if is_away || broker.sim.chance.permille(fails) {
            return Err(away());
        }
        broker.letters.keep(broker, letter);
        if broker.sim.chance.permille(answer_lost) {
            return Err(away());
        }
        Ok(())
    }

    async fn read_letters(&self, _: Option<&tallymark::log::Place>, _: usize) -> Result<Vec<Found>, Error> {
        Err(Error::new(Kind::Permanent, "nobody reads dead letters here"))
    }
}
