//! Random schedules: the view against a naive model of its own text, and a whole pipeline around it against the truth.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tallymark::hot::{HotKey, LoadedBase, Options, Shared, Token, View};

use super::{Backend, InProcess, InRedis, Seq, add, counter, lane, publish, read};

const LANES: u32 = 2;
const KEYS: usize = 2;
const MAX_PENDING: usize = 4;

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// One entry, as the port's text describes it, with maps and no shortcuts.
#[derive(Default)]
struct Model {
    bases: BTreeMap<u32, (i128, u64)>,
    pending: BTreeMap<(u32, u64), i128>,
    left_out: BTreeSet<(u32, u64)>,
    waits: BTreeMap<u32, u64>,
    token: Option<Token>,
    full: bool,
}

impl Model {
    fn covers(&self, lane: u32, seq: u64) -> bool {
        self.bases.get(&lane).is_some_and(|(_, base)| seq <= *base)
    }

    fn add(&mut self, lane: u32, seq: u64, amount: i128) {
        if self.covers(lane, seq) || self.pending.contains_key(&(lane, seq)) {
            return;
        }
        let pending = self.pending.keys().filter(|(lane, seq)| !self.covers(*lane, *seq)).count();
        if pending < MAX_PENDING {
            self.pending.insert((lane, seq), amount);
        } else {
            self.left_out.insert((lane, seq));
        }
    }

    fn raise(&mut self, lane: u32, total: i128, seq: u64) {
        if !self.covers(lane, seq) {
            self.bases.insert(lane, (total, seq));
        }
    }

    fn view(&self, published: &BTreeMap<u32, u64>) -> View {
        if !self.full {
            return View::Miss;
        }
        let bases: i128 = self.bases.values().map(|(total, _)| total).sum();
        let pending = self.pending.iter().filter(|((lane, seq), _)| !self.covers(*lane, *seq));
        let left_out = self.left_out.iter().any(|(lane, seq)| !self.covers(*lane, *seq));
        let waiting = self.waits.iter().any(|(lane, end)| published.get(lane).is_none_or(|seq| seq + 1 < *end));
        View::Full { total: bases + pending.map(|(_, amount)| amount).sum::<i128>(), stale: left_out || waiting }
    }
}

#[derive(Clone, Debug)]
enum Write {
    Add { key: usize, lane: u32, seq: u64, amount: i128 },
    Publish { key: usize, lane: u32, seq: u64, total: i128 },
    Begin { key: usize },
    Finish { key: usize, bases: Vec<Option<(i128, u64)>>, ends: Vec<u64> },
    Published { lane: u32, seq: u64 },
}

fn writes() -> impl Strategy<Value = Write> {
    let (key, lane, seq) = (0..KEYS, 0..LANES, 0..20_u64);
    prop_oneof![
        6 => (key.clone(), lane.clone(), seq.clone(), -9..9_i128)
            .prop_map(|(key, lane, seq, amount)| Write::Add { key, lane, seq, amount }),
        3 => (key.clone(), lane.clone(), seq.clone(), -99..99_i128)
            .prop_map(|(key, lane, seq, total)| Write::Publish { key, lane, seq, total }),
        2 => key.clone().prop_map(|key| Write::Begin { key }),
        2 => (key, proptest::collection::vec(proptest::option::of((-99..99_i128, seq.clone())), LANES as usize),
            proptest::collection::vec(seq.clone(), LANES as usize))
            .prop_map(|(key, bases, ends)| Write::Finish { key, bases, ends }),
        1 => (lane, seq).prop_map(|(lane, seq)| Write::Published { lane, seq }),
    ]
}

async fn follows_the_model<B: Backend>(writes: Vec<Write>) {
    let view = B::open(&Options { max_pending: MAX_PENDING, ..Options::default() });
    let names = ["a", "b"].map(counter);
    let mut models: BTreeMap<usize, Model> = BTreeMap::new();
    let mut published = BTreeMap::new();
    for write in writes {
        match write.clone() {
            Write::Add { key, lane, seq, amount } => {
                add(&view, &names[key], lane, seq, amount).await;
                models.entry(key).or_default().add(lane, seq, amount);
            }
            Write::Publish { key, lane, seq, total } => {
                let written = publish(&view, &names[key], lane, seq, total).await.written;
                let model = models.get_mut(&key).filter(|model| !model.covers(lane, seq));
                assert_eq!(written, usize::from(model.is_some()), "{write:?}");
                if let Some(model) = model {
                    model.raise(lane, total, seq);
                }
            }
            Write::Begin { key } => {
                models.entry(key).or_default().token = Some(view.begin_load(&names[key]).await.unwrap());
            }
            Write::Finish { key, bases, ends } => {
                let Some(model) = models.get_mut(&key) else { continue };
                let Some(token) = model.token.take() else { continue };
                let loaded = (0..).zip(&bases).map(|(partition, base)| LoadedBase {
                    lane: lane(partition),
                    base: base.map(|(total, seq)| (total, Seq(seq))),
                });
                let loaded: Vec<_> = loaded.collect();
                let ends: Vec<_> = (0..).zip(ends).map(|(partition, end)| (lane(partition), Seq(end))).collect();
                assert!(view.finish_load(&names[key], token, &loaded, &ends).await.unwrap());
                model.full = true;
                model.waits =
                    ends.iter().map(|(lane, end)| (lane.partition, end.0)).filter(|(_, end)| *end > 0).collect();
                for (lane, base) in (0..).zip(bases) {
                    if let Some((total, seq)) = base {
                        model.raise(lane, total, seq);
                    }
                }
            }
            Write::Published { lane: partition, seq } => {
                view.published(lane(partition), Seq(seq)).await.unwrap();
                let known = published.entry(partition).or_insert(seq);
                *known = seq.max(*known);
            }
        }
        for (key, name) in names.iter().enumerate() {
            let expected = models.get(&key).map_or(View::Miss, |model| model.view(&published));
            assert_eq!(read(&view, name).await, expected, "{write:?}");
        }
    }
}

/// What a pipeline around a view does next.
#[derive(Clone, Debug)]
enum Step {
    /// Ingest: a pack that names one key is in the log.
    Append { lane: u32, key: usize },
    /// Ingest: the delta of some pack goes to the view, late or again.
    Add { pack: usize },
    /// A lane writes rows for all it has read, and says what is stored.
    Store { lane: u32 },
    /// A lane publishes what it owes.
    Publish { lane: u32 },
    /// A load of the key goes one step on.
    Load { key: usize },
    /// The view loses the key.
    Forget { key: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LANES, 0..KEYS).prop_map(|(lane, key)| Step::Append { lane, key }),
        8 => any::<usize>().prop_map(|pack| Step::Add { pack }),
        2 => (0..LANES).prop_map(|lane| Step::Store { lane }),
        2 => (0..LANES).prop_map(|lane| Step::Publish { lane }),
        6 => (0..KEYS).prop_map(|key| Step::Load { key }),
        1 => (0..KEYS).prop_map(|key| Step::Forget { key }),
    ]
}

struct Pack {
    lane: u32,
    seq: u64,
    key: usize,
    /// A bit of its own, so that a total says which packs it includes.
    bit: i128,
    added: bool,
}

#[derive(Clone, Default)]
struct Lane {
    end: u64,
    stored: u64,
    published: u64,
}

enum Load {
    Begun(Token),
    SawEnds(Token, Vec<u64>, Vec<u64>),
    SawRows(Token, Vec<LoadedBase>, Vec<u64>, Vec<u64>),
}

struct Pipeline {
    view: Shared,
    names: [HotKey; KEYS],
    packs: Vec<Pack>,
    lanes: Vec<Lane>,
    loads: BTreeMap<usize, Load>,
}

impl Pipeline {
    /// A lane's row of a key as the store has it: total and the last seq that named it.
    fn row(&self, lane: u32, key: usize) -> Option<(i128, u64)> {
        let stored = self.lanes[lane as usize].stored;
        let packs = self.packs.iter().filter(|pack| pack.lane == lane && pack.key == key && pack.seq < stored);
        packs.fold(None, |row, pack| Some((row.map_or(0, |(total, _)| total) + pack.bit, pack.seq)))
    }

    async fn publish(&mut self, lane_at: u32) {
        let Lane { stored, published, .. } = self.lanes[lane_at as usize];
        let owed = |pack: &&Pack| pack.lane == lane_at && (published..stored).contains(&pack.seq);
        let owed: BTreeSet<_> = self.packs.iter().filter(owed).map(|pack| pack.key).collect();
        for key in owed {
            let (total, _) = self.row(lane_at, key).unwrap();
            publish(&self.view, &self.names[key], lane_at, stored - 1, total).await;
        }
        if stored > published {
            self.view.published(lane(lane_at), Seq(stored - 1)).await.unwrap();
            self.lanes[lane_at as usize].published = stored;
        }
    }

    async fn load(&mut self, key: usize) {
        let next = match self.loads.remove(&key) {
            None => Load::Begun(self.view.begin_load(&self.names[key]).await.unwrap()),
            Some(Load::Begun(token)) => {
                let ends = self.lanes.iter().map(|lane| lane.end).collect();
                Load::SawEnds(token, ends, self.lanes.iter().map(|lane| lane.stored).collect())
            }
            Some(Load::SawEnds(token, ends, stored)) => {
                let bases = (0..LANES).map(|partition| {
                    let row = self.row(partition, key);
                    let seq = stored[partition as usize].max(row.map_or(0, |(_, seq)| seq + 1));
                    let base = (seq > 0).then(|| (row.map_or(0, |(total, _)| total), Seq(seq - 1)));
                    LoadedBase { lane: lane(partition), base }
                });
                Load::SawRows(token, bases.collect(), ends, stored)
            }
            Some(Load::SawRows(token, bases, ends, stored)) => {
                let behind = (0..LANES).filter(|at| ends[*at as usize] > stored[*at as usize]);
                let behind: Vec<_> = behind.map(|at| (lane(at), Seq(ends[at as usize]))).collect();
                self.view.finish_load(&self.names[key], token, &bases, &behind).await.unwrap();
                return;
            }
        };
        self.loads.insert(key, next);
    }

    /// A full view includes packs of the log only, each once; one that is not stale includes all that were added.
    async fn check(&self, after: &Step) {
        for (key, name) in self.names.iter().enumerate() {
            let View::Full { total, stale } = read(&self.view, name).await else { continue };
            let of_key = self.packs.iter().filter(|pack| pack.key == key);
            let logged: i128 = of_key.clone().map(|pack| pack.bit).sum();
            let added: i128 = of_key.filter(|pack| pack.added).map(|pack| pack.bit).sum();
            assert_eq!(total & !logged, 0, "after {after:?}: {total:#b} holds what is not among {logged:#b}");
            assert!(stale || added & !total == 0, "after {after:?}: {total:#b} lacks some of {added:#b}");
        }
    }
}

async fn tells_the_truth<B: Backend>(steps: Vec<Step>) {
    let view = B::open(&Options { max_pending: MAX_PENDING, ..Options::default() });
    let lanes = vec![Lane::default(); LANES as usize];
    let mut pipeline =
        Pipeline { view, names: ["a", "b"].map(counter), packs: Vec::new(), lanes, loads: BTreeMap::new() };
    for step in steps {
        match step {
            Step::Append { lane, key } => {
                let seq = pipeline.lanes[lane as usize].end;
                pipeline.lanes[lane as usize].end += 1;
                let bit = 1 << pipeline.packs.len();
                pipeline.packs.push(Pack { lane, seq, key, bit, added: false });
            }
            Step::Add { .. } if pipeline.packs.is_empty() => {}
            Step::Add { pack } => {
                // Nearly always a recent one.
                let back = pack.trailing_zeros() as usize % pipeline.packs.len();
                let at = pipeline.packs.len() - 1 - back;
                let pack = &mut pipeline.packs[at];
                pack.added = true;
                add(&pipeline.view, &pipeline.names[pack.key], pack.lane, pack.seq, pack.bit).await;
            }
            Step::Store { lane } => {
                let lane = &mut pipeline.lanes[lane as usize];
                lane.stored = lane.end;
            }
            Step::Publish { lane } => pipeline.publish(lane).await,
            Step::Load { key } => pipeline.load(key).await,
            Step::Forget { key } => B::forget(&pipeline.view, &pipeline.names[key]).await,
        }
        pipeline.check(&step).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_view_follows_a_naive_model(writes in proptest::collection::vec(writes(), 0..60)) {
        block_on(follows_the_model::<InProcess>(writes));
    }

    #[test]
    fn a_view_in_a_pipeline_never_claims_what_is_not_true(steps in proptest::collection::vec(steps(), 0..110)) {
        block_on(tells_the_truth::<InProcess>(steps));
    }
}

proptest! {
    // Each step is a round trip or three.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_view_in_redis_follows_a_naive_model(writes in proptest::collection::vec(writes(), 0..60)) {
        block_on(follows_the_model::<InRedis>(writes));
    }

    #[test]
    fn a_view_in_redis_in_a_pipeline_never_claims_what_is_not_true(steps in proptest::collection::vec(steps(), 0..80)) {
        block_on(tells_the_truth::<InRedis>(steps));
    }
}
