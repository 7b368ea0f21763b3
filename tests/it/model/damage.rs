//! What no log promises to survive: a cut, a front that is gone too early, records of the future, records passed over, a
//! topic made anew, partitions added.

use bytes::Bytes;
use tallymark::{item::Seq, pack::FORMAT};

use super::{halts::Expected, watcher::Watcher, world::World};

/// One in a world, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Cut,
    Overtaken,
    Newer,
    Hole,
    Recreated,
    Partitions,
}

/// As they are drawn.
pub const ALL: &[Damage] = &[
    Damage::Cut,
    Damage::Cut,
    Damage::Overtaken,
    Damage::Overtaken,
    Damage::Newer,
    Damage::Hole,
    Damage::Recreated,
    Damage::Recreated,
    Damage::Partitions,
];

/// Whether it could be done.
pub fn harm(world: &mut World, damage: Damage) -> bool {
    let sim = world.sim.clone();
    let chance = &sim.chance;
    let partition = chance.below(u64::from(world.shape.partitions)) as u32;
    let lane = world.lane(partition);
    let bounds = world.broker.bounds_of(partition);
    match damage {
        Damage::Cut => {
            let cut = bounds.end.0.saturating_sub(chance.between(1, 4)).max(bounds.start.0);
            // Somebody who lives was told of what is lost, so it comes out.
            if !world.intake.claims_above(partition, cut) {
                return false;
            }
            sim.taint(lane);
            world.broker.cut(partition, cut);
            let kinds = vec!["Cut", "Replaced", "Stamp", "Base", "Claim", "Log"];
            world.damaged.insert(partition, Expected { kinds, must: true, ..Expected::default() });
            sim.note(|| format!("log {partition}: is cut to {cut} of {}", bounds.end));
        }
        Damage::Overtaken => {
            let (highest, _) = Watcher::checkpoints(&world.servers, lane);
            let next = highest.map_or(0, |seq| seq.0 + 1);
            if bounds.end.0 <= next {
                return false;
            }
            let start = chance.between(next + 1, bounds.end.0.max(next + 1));
            sim.taint(lane);
            world.broker.remove_front(partition, start);
            world.damaged.insert(partition, Expected { kinds: vec!["Gap", "Log"], must: false, ..Expected::default() });
            sim.note(|| {
                format!("log {partition}: retention overtakes the checkpoint {highest:?}, it starts at {start}")
            });
            // Whoever runs the lane lacks nothing: it is found when somebody else does, and the first may live on.
            let owner = world.broker.group.owner(partition);
            let runs = world.processes.iter().position(|process| Some(process.number) == owner);
            if let Some(at) = runs.filter(|_| chance.permille(700)) {
                world.deafen(at);
            }
        }
        Damage::Newer => {
            let seq = world.broker.put(partition, FORMAT + 1, Bytes::from_static(b"of the future"), None).seq;
            sim.note(|| format!("log {partition}: {seq:?} is of a newer format"));
        }
        Damage::Hole => {
            world.broker.lose_one(partition);
            sim.note(|| format!("log {partition}: {} is passed over", bounds.end));
        }
        Damage::Recreated => {
            for lane in world.lanes() {
                world.watcher.recount(lane, |_| {});
            }
            world.broker.recreate();
            (0..world.intake.processes()).for_each(|at| world.intake.restart(at));
            for partition in 0..world.shape.partitions {
                let kinds = vec!["Recreated", "Log"];
                world.damaged.insert(partition, Expected { kinds, must: true, ..Expected::default() });
            }
            world.is_recreated = true;
            sim.note(|| "the topic is made anew".to_owned());
        }
        Damage::Partitions => {
            world.is_loose = true;
            world.broker.add_partitions(chance.between(1, 2) as u32);
            world.intake.restart(chance.below(world.intake.processes() as u64) as usize);
            sim.note(|| format!("the topic has {} partitions", world.broker.partitions()));
        }
    }
    true
}

/// Whether a lane whose log lost its front must halt is known once nobody runs it.
pub fn resolve_overtaken(world: &mut World) {
    for partition in 0..world.shape.partitions {
        let is_open = |expected: &Expected| expected.kinds == ["Gap", "Log"] && !expected.remedied;
        if world.damaged.get(&partition).is_some_and(is_open) {
            let (highest, lowest) = Watcher::checkpoints(&world.servers, world.lane(partition));
            let start = world.broker.bounds_of(partition).start.0;
            let next = |seq: Option<Seq>| seq.map_or(0, |seq| seq.0 + 1);
            if start > next(highest) {
                world.damaged.insert(partition, Expected { kinds: vec!["Gap"], must: true, ..Expected::default() });
            } else if start <= next(lowest) {
                world.damaged.remove(&partition);
            }
        }
    }
}
