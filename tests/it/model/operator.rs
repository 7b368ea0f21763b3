//! An operator: looks at what halted lanes say, and carries out what the program proposes (`lanes/plan.rs`).

use tallymark::{
    lanes::plan::{self, Plan, Scene},
    store::{Ledger as _, Remedies as _, Remedy, RemedyRow},
    worker::accepted::{Accepted, Gap},
};

use super::{gate::Gate, given_up::GivenUp, log::TOPIC, store::Client, world::World};

/// Accepts every gap that a lane has halted for, as far as log and store answer.
pub async fn accept_gaps(world: &mut World) {
    let client = Client::new(world.servers.clone(), Gate::new(), 0);
    let Ok(halts) = client.halts(TOPIC).await else { return };
    for halt in halts.iter().filter(|halt| matches!(halt.kind.as_str(), "gap" | "missing")) {
        let (lane, partition) = (halt.lane, halt.lane.partition);
        let (Ok(rows), Ok(epochs), Ok(remedies)) =
            (client.lanes(TOPIC).await, client.epochs(TOPIC).await, client.remedies(TOPIC).await)
        else {
            return;
        };
        if lane != world.lane(partition) {
            continue;
        }
        let (bounds, now_ms) = (world.broker.bounds_of(partition), world.sim.now_ms());
        let row = rows.iter().find(|row| row.lane == lane);
        let accepted = Accepted::of(lane, &remedies);
        let scene = Scene { lane, bounds, row, epochs: &epochs, accepted: &accepted, halt: Some(halt), now_ms };
        let decided = plan::gap(&scene, None);
        world.sim.note(|| format!("lane {partition}: the operator looks at {halt:?}: {decided:?}"));
        let Ok(plan) = decided else { continue };
        for what in &plan.remedies {
            let Remedy::Gap { from, to, floor, .. } = *what else { continue };
            let stored = row.and_then(|row| row.stored).map_or(from, |stored| from.max(stored.next()));
            let gap = Gap { from, to, floor };
            world.gives_up(lane, halt.kind == "missing", GivenUp::new(lane, epochs.clone(), bounds.start, stored, gap));
        }
        record(world, &plan);
    }
}

/// Accepts every claim that a lane has halted for.
pub async fn accept_claims(world: &mut World) {
    let client = Client::new(world.servers.clone(), Gate::new(), 0);
    let Ok(halts) = client.halts(TOPIC).await else { return };
    for halt in &halts {
        let decided = plan::claim(halt.lane, Some(halt), None);
        world.sim.note(|| format!("the operator looks at {halt:?}: {decided:?}"));
        if let Ok(plan) = decided {
            world.remedies(halt.lane.partition, vec!["Claim"]);
            record(world, &plan);
        }
    }
}

/// What was decided is there at once, as the lanes will see it.
fn record(world: &World, plan: &Plan) {
    for what in plan.remedies.iter().copied() {
        let (id, says) = (world.sim.chance.bytes(), plan.says.join(" "));
        let (at_ms, topic_id, who, why) = (world.sim.now_ms(), plan.topic_id, String::new(), String::new());
        world.servers.desk.lock().unwrap().record(RemedyRow { at_ms, id, topic_id, what, who, why, says });
    }
}
