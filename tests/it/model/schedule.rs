//! What a seed makes of a world: its shape, which faults it may have and how often, step by step; then everything is made
//! good, the lanes drain, and the laws are checked; then one more worker takes over, clients retry, and they are checked again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tallymark::{
    bugs::Bug,
    retry,
    units::{Size, Span},
    worker::Options,
};
use tokio::time::sleep;

use super::{
    damage::{self, Damage},
    hot,
    ingest::Item,
    letters, log, operator,
    sim::Sim,
    store,
    worker::Settings,
    world::{Shape, World},
};

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Ask,
    Retry,
    Burst,
    Pause,
    Start,
    Crash,
    Leave,
    Freeze,
    Deafen,
    Recover,
    Shuffle,
    Down,
    Up,
    PowerCut,
    Blackout,
    Lose,
    StoreTrouble,
    HotTrouble,
    HotFlush,
    Load,
    LogTrouble,
    Skew,
    Retain,
    RestartIngest,
    Damage,
    Poison,
    Replay,
    Remedy,
}

/// What a seed may do.
struct Plan {
    steps: u64,
    pace_ms: u64,
    /// How often each act is taken, beside the others.
    acts: Vec<(u64, Act)>,
    ids: u64,
    extremes: bool,
    damage: Option<Damage>,
    most_workers: usize,
}

/// What came of a seed.
pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
}

fn shape(sim: &Sim) -> (Shape, bool) {
    let chance = &sim.chance;
    let delay = *chance.pick(&[30, 30, 12]);
    let tight = chance.permille(150);
    let series = chance.between(4, 30) as usize;
    let options = Options {
        flush_age: *chance.pick(&[Span::from_millis(1000), Span::from_millis(300), Span::from_millis(5000)]),
        flush_rows: *chance.pick(&[50_000, 50_000, 8]),
        flush_bytes: Size::mib(32),
        checkpoint_delay: Span::from_secs(delay),
        max_rows: *chance.pick(&[1_000_000, 1_000_000, 2 * series + 4, series + 4]),
        slice_rows: *chance.pick(&[10_000, 10_000, 2]),
        ..Options::default()
    };
    let settings = Settings {
        options,
        batch_rows: *chance.pick(&[100, 3]),
        in_flight: *chance.pick(&[32, 4]),
        publish_budget: *chance.pick(&[50_000, 50_000, 3]),
    };
    let shape = Shape {
        partitions: chance.between(1, 3) as u32,
        shards: *chance.pick(&[4, 7]),
        series,
        ingests: 2,
        window_ms: *chance.pick(&[600_000, 600_000, 90_000]),
        max_ids: if tight { chance.between(3, 40) } else { 1_000_000 },
        settings,
        synced_within: Duration::from_secs(delay.min(30) / 3),
        hot_memory: *chance.pick(&[Size::mib(1), Size::mib(1), Size(4096)]),
        hot_pending: *chance.pick(&[512, 512, 3]),
    };
    (shape, tight)
}

impl Plan {
    fn draw(sim: &Sim) -> Self {
        let chance = &sim.chance;
        let mut acts = vec![(400, Act::Ask), (60, Act::Pause), (60, Act::Start), (60, Act::Recover), (60, Act::Up)];
        // Each seed leaves most faults out, so that those it has meet in many ways.
        let mut may = |times: u64, weight: u64, those: &[Act]| {
            if chance.permille(times) {
                acts.extend(those.iter().map(|act| (weight, *act)));
            }
        };
        may(700, 80, &[Act::Retry]);
        may(300, 20, &[Act::Burst]);
        may(500, 30, &[Act::Crash]);
        may(300, 15, &[Act::Leave]);
        may(400, 25, &[Act::Freeze]);
        may(300, 20, &[Act::Deafen]);
        may(300, 20, &[Act::Shuffle]);
        may(400, 20, &[Act::Down]);
        may(400, 20, &[Act::PowerCut]);
        may(200, 10, &[Act::Blackout]);
        may(120, 5, &[Act::Lose]);
        may(600, 40, &[Act::StoreTrouble]);
        may(400, 30, &[Act::HotTrouble]);
        may(300, 15, &[Act::HotFlush]);
        may(700, 80, &[Act::Load]);
        may(500, 30, &[Act::LogTrouble]);
        may(300, 15, &[Act::Poison, Act::Replay, Act::Replay]);
        let skews = chance.permille(250);
        if skews {
            acts.push((25, Act::Skew));
        } else if chance.permille(500) {
            acts.push((25, Act::Retain));
        }
        if chance.permille(200) {
            acts.push((8, Act::RestartIngest));
        }
        let damage = chance.permille(250).then(|| *chance.pick(damage::ALL));
        if damage.is_some() {
            acts.push((12, Act::Damage));
        }
        if matches!(damage, Some(Damage::Overtaken | Damage::Hole)) && !skews {
            acts.push((20, Act::Remedy));
            // Who gives up a pack that replays a letter gives up that replay: whether a later one counts is chance.
            acts.retain(|(_, act)| *act != Act::Replay);
        }
        let overtaken = damage == Some(Damage::Overtaken) && !skews;
        if overtaken {
            // Who runs the lane does not notice: somebody else must take it over, again and again, while the first ones live on.
            acts.retain(|(_, act)| *act != Act::Recover);
            acts.extend([(25, Act::Deafen), (40, Act::Crash), (60, Act::Start), (60, Act::Remedy)]);
        }
        Self {
            steps: chance.between(if overtaken { 120 } else { 30 }, 140),
            pace_ms: *chance.pick(&[200, 1500, 4000]),
            acts,
            ids: *chance.pick(&[1000, 700, 0]),
            extremes: chance.permille(200),
            damage,
            most_workers: chance.between(if overtaken { 3 } else { 1 }, if overtaken { 4 } else { 3 }) as usize,
        }
    }

    fn act(&self, sim: &Sim) -> Act {
        let all: u64 = self.acts.iter().map(|(weight, _)| weight).sum();
        let mut left = sim.chance.below(all);
        for (weight, act) in &self.acts {
            if left < *weight {
                return *act;
            }
            left -= weight;
        }
        unreachable!("the weights add up")
    }
}

/// Runs a seed on this thread, with a deliberate bug in the program or without.
pub fn run(seed: u64, traced: bool, bug: Option<Bug>) -> Outcome {
    retry::seed_jitter(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        make(bug);
        let sim = Sim::new(seed, traced);
        schedule(&sim).await;
        make(None);
        Outcome { violation: sim.violation(), trace: sim.trace() }
    })
}

/// The program makes this mistake from now on, in a build that knows mistakes.
fn make(bug: Option<Bug>) {
    #[cfg(feature = "bugs")]
    tallymark::bugs::switch(bug);
    #[cfg(not(feature = "bugs"))]
    assert_eq!(bug, None, "deliberate bugs need the feature `bugs`");
}

async fn schedule(sim: &Arc<Sim>) {
    let (shape, tight) = shape(sim);
    sim.note(|| format!("{shape:?}"));
    let mut world = World::new(sim.clone(), shape);
    let mut plan = Plan::draw(sim);
    sim.note(|| format!("{} steps of {:?}, damage {:?}", plan.steps, plan.acts, plan.damage));
    world.is_loose = tight || plan.acts.iter().any(|(_, act)| *act == Act::Skew);
    world.has_operator = plan.acts.iter().any(|(_, act)| *act == Act::Remedy);
    world.start();
    for _ in 0..plan.steps {
        sleep(Duration::from_millis(sim.chance.below(plan.pace_ms))).await;
        let act = plan.act(sim);
        take(&mut world, &mut plan, act).await;
        world.look().await;
        if sim.violation().is_some() {
            return;
        }
    }
    end(&mut world).await;
}

/// Everything is made good, and what must hold then is checked, twice.
pub async fn end(world: &mut World) {
    let sim = world.sim.clone();
    world.heal();
    // What was on its way arrives.
    sleep(Duration::from_secs(70)).await;
    claim_all(world);
    world.settle("the lanes do not drain").await;
    remedy(world).await;
    if sim.violation().is_some() {
        return;
    }
    if world.broker.partitions() > world.shape.partitions || world.is_recreated {
        sim.note(|| "the operator begins the epoch of the log as it is".to_owned());
        world.begin_epoch();
        if world.is_recreated {
            world.damaged.clear();
        }
        world.leave_all().await;
        world.start();
        world.settle("the lanes do not go on in the new layout").await;
    }
    world.check("at the end");
    let is_whole = |world: &World| {
        let is_one = world.broker.partitions() == world.shape.partitions && !world.is_recreated;
        is_one && (0..world.broker.partitions()).all(|at| world.is_sound(at) && !sim.is_tainted(world.lane(at)))
    };
    // A load may have met a server that had forgotten what another had called stored: right again after one publish.
    if is_whole(world) && !sim.forgot.load(Ordering::SeqCst) {
        world.check_view("at the end").await;
    }
    if sim.violation().is_some() {
        return;
    }

    sim.note(|| "another worker takes over, and clients retry".to_owned());
    world.leave_all().await;
    damage::resolve_overtaken(world);
    world.start();
    let retried = world.intake.recent(world.shape.window_ms / 3);
    for items in retried.into_iter().rev().take(10).filter(|_| world.broker.partitions() == world.shape.partitions) {
        world.intake.ask(0, items);
    }
    world.touch_all();
    world.settle("the lanes do not drain after a takeover").await;
    remedy(world).await;
    world.check("after a takeover");
    if is_whole(world) && sim.violation().is_none() {
        world.check_view("after a takeover").await;
        for series in 0..world.intake.series.len() {
            world.load(series, 0);
            world.load(series, 1);
        }
        sleep(Duration::from_secs(5)).await;
        world.check_view("after every series was loaded").await;
        world.leave_all().await;
        sim.note(|| "nobody works, ingests go on: the view shows it at once".to_owned());
        world.touch_all();
        sleep(Duration::from_secs(5)).await;
        world.check_view("while nobody works").await;
        flush_under_loads(world).await;
        world.check_view("while nobody works, after loads that a flush came between").await;
    }
    world.leave_all().await;
}

/// Whatever is halted still and can be remedied is, and goes on.
async fn remedy(world: &mut World) {
    if world.has_operator {
        // They have told the store.
        sleep(Duration::from_secs(10)).await;
        operator::accept_gaps(world).await;
        world.settle("the lanes do not go on after a remedy").await;
    }
}

/// Everything is loaded from a slow view, which is flushed meanwhile, and packs go on; nobody is there to publish a total.
async fn flush_under_loads(world: &World) {
    let chance = &world.sim.chance;
    world.view.set_trouble(hot::Trouble { slow_ms: 3000, ..hot::Trouble::default() });
    for series in 0..world.intake.series.len() {
        (0..2).for_each(|kind| world.load(series, kind));
    }
    for _ in 0..2 {
        sleep(Duration::from_millis(chance.between(500, 4000))).await;
        world.touch_all();
        sleep(Duration::from_millis(chance.between(0, 2000))).await;
        world.sim.note(|| "the hot view is flushed".to_owned());
        world.view.flush();
    }
    world.touch_all();
    sleep(Duration::from_secs(30)).await;
    world.view.set_trouble(hot::Trouble::default());
}

/// Every ingest has its say of what was acknowledged to it.
fn claim_all(world: &World) {
    for at in 0..world.intake.processes() {
        for partition in 0..world.shape.partitions {
            world.intake.send_empty(at, partition);
        }
    }
}

async fn take(world: &mut World, plan: &mut Plan, act: Act) {
    let sim = world.sim.clone();
    let chance = &sim.chance;
    let any = |count: usize| chance.below(count.max(1) as u64) as usize;
    let workers = world.processes.len();
    let secs = |low: u64, high: u64| Duration::from_millis(chance.between(low * 1000, high * 1000));
    match act {
        Act::Ask => ask(world, plan),
        Act::Burst => (0..chance.between(5, 15)).for_each(|_| ask(world, plan)),
        Act::Retry => {
            let recent = world.intake.recent(world.shape.window_ms / 3);
            if !recent.is_empty() && world.broker.partitions() == world.shape.partitions {
                let items = chance.pick(&recent).clone();
                world.intake.ask(any(world.intake.processes()), items);
            }
        }
        Act::Pause => sleep(secs(5, 90)).await,
        Act::Start if workers < plan.most_workers => world.start(),
        Act::Crash if workers > 0 => world.crash(any(workers)).await,
        Act::Leave if workers > 0 => world.leave(any(workers)),
        Act::Freeze if workers > 0 => world.freeze(any(workers)),
        Act::Deafen if workers > 0 => world.deafen(any(workers)),
        Act::Recover if workers > 0 => world.recover(any(workers)),
        Act::Shuffle => world.broker.group.shuffle(),
        Act::Down => world.set_up(any(3), false),
        Act::Up => (0..3).for_each(|at| world.set_up(at, true)),
        Act::PowerCut => world.power_cut(any(3), secs(0, 10)),
        Act::Blackout => {
            let within = secs(0, 10);
            (0..3).for_each(|at| world.power_cut(at, within));
        }
        Act::Lose if (0..3).all(|at| !world.servers.nodes()[at].lost) => world.lose(any(3)),
        Act::StoreTrouble => {
            let often = |most: u64| if chance.permille(500) { chance.between(0, most) } else { 0 };
            let trouble = store::Trouble {
                missed: often(400),
                late: often(300),
                late_ms: *chance.pick(&[500, 20_000, 60_000]),
                answer_lost: often(300),
                half: often(200),
                reads: often(300),
                slow_ms: *chance.pick(&[0, 20, 3000]),
                repairs: chance.permille(500),
            };
            sim.note(|| format!("{trouble:?}"));
            world.servers.set_trouble(trouble);
        }
        Act::HotTrouble => {
            let often = |most: u64| if chance.permille(500) { chance.between(0, most) } else { 0 };
            let trouble = hot::Trouble {
                away: chance.permille(200),
                fails: often(300),
                answer_lost: often(200),
                late: often(300),
                slow_ms: *chance.pick(&[0, 20, 3000]),
            };
            sim.note(|| format!("hot {trouble:?}"));
            world.view.set_trouble(trouble);
        }
        Act::HotFlush => {
            sim.note(|| "the hot view is flushed".to_owned());
            world.view.flush();
        }
        Act::Load => world.load(any(world.intake.series.len()), any(2)),
        Act::LogTrouble => {
            let often = |most: u64| if chance.permille(500) { chance.between(0, most) } else { 0 };
            let trouble = log::Trouble {
                twice: often(200),
                unknown: often(250),
                without_offset: often(200),
                reads: often(200),
                slow_ms: *chance.pick(&[0, 20, 2000]),
                letters: letters::Trouble { away: chance.permille(300), fails: often(500), answer_lost: often(300) },
            };
            sim.note(|| format!("log {trouble:?}"));
            world.broker.set_trouble(trouble);
        }
        Act::Skew => {
            const HOUR_MS: i64 = 3_600_000;
            let off = [0, HOUR_MS, -HOUR_MS, 87_600 * HOUR_MS, -87_600 * HOUR_MS, 2_000, -2_000];
            let skew_ms = *chance.pick(&off);
            if chance.permille(500) {
                let partition = any(world.broker.partitions() as usize) as u32;
                sim.note(|| format!("log {partition}: its clock is off by {skew_ms} ms"));
                world.broker.set_skew(partition, skew_ms);
            } else {
                let at = any(world.intake.processes());
                sim.note(|| format!("ingest {at}: its clock is off by {skew_ms} ms"));
                world.intake.set_skew(at, skew_ms);
            }
        }
        Act::Poison => world.poison(any(world.broker.partitions() as usize) as u32),
        Act::Replay => world.intake.replay(any(world.intake.processes())),
        Act::Remedy => operator::accept_gaps(world).await,
        Act::Retain => world.retain(any(world.shape.partitions as usize) as u32),
        Act::RestartIngest if plan.damage != Some(Damage::Cut) => {
            world.intake.restart(any(world.intake.processes()));
        }
        Act::Damage => {
            if let Some(damage) = plan.damage
                && damage::harm(world, damage)
            {
                plan.acts.retain(|(_, act)| *act != Act::Damage);
            }
        }
        _ => {}
    }
}

fn ask(world: &World, plan: &Plan) {
    let chance = &world.sim.chance;
    let items = (0..chance.between(1, 5)).map(|_| {
        if chance.permille(100) {
            return Item::Event { id: world.intake.fresh_id(), with_subject: chance.permille(500) };
        }
        let amount = match chance.below(20) {
            0 if plan.extremes => i64::MAX,
            1 if plan.extremes => i64::MIN,
            n => n as i64 - 6,
        };
        let id = chance.permille(plan.ids).then(|| world.intake.fresh_id());
        Item::Increment { series: chance.below(world.intake.series.len() as u64) as usize, amount, id }
    });
    let items = items.collect();
    world.intake.ask(chance.below(world.intake.processes() as u64) as usize, items);
}
