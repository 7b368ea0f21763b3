//! Schedules that have names, of lanes that halt and of what an operator does about it.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    halts::Expected,
    ingest::Item,
    named::{play, secs, shape},
    operator,
    world::World,
};

impl World {
    /// Retention takes what is below `start`, read or not.
    fn overtaken(&mut self, start: u64) {
        self.sim.taint(self.lane(0));
        self.broker.remove_front(0, start);
        self.damaged.insert(0, Expected { kinds: vec!["Gap", "Log"], must: false, ..Expected::default() });
        self.has_operator = true;
    }

    /// What has halted is remedied, and lanes find that.
    async fn remedied(&mut self) {
        sleep(secs(10)).await;
        operator::accept_gaps(self).await;
        sleep(secs(10)).await;
    }
}

#[test]
fn a_topic_made_anew_whose_epoch_an_operator_begins() {
    play(5, &shape(), async |world| {
        world.start();
        (0..6).for_each(|series| world.add(series, 2));
        world.checkpointed().await;
        world.crash(0).await;
        world.broker.recreate();
        (0..2).for_each(|at| world.intake.restart(at));
        world.is_recreated = true;
        world.damaged.insert(0, Expected { kinds: vec!["Recreated"], must: true, ..Expected::default() });
        (0..6).for_each(|series| world.add(series, 3));
        world.start();
        world.halted().await;
        // `end` begins the epoch, and has the lanes go on from 0.
    });
}

#[test]
fn a_gap_that_an_operator_accepts_while_packs_go_on() {
    play(20, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        world.checkpointed().await;
        let stored = world.sim.chance.below(4);
        for n in 0..8 {
            if n == stored {
                world.stored().await;
                world.crash(0).await;
            }
            world.add(n as usize % 6, 10);
            sleep(Duration::from_millis(50)).await;
        }
        world.overtaken(world.sim.chance.between(2, 8));
        world.start();
        world.halted().await;
        world.remedied().await;
        (0..6).for_each(|series| world.add(series, 100));
        if world.sim.chance.permille(500) {
            world.crash(0).await;
            world.start();
        }
        world.stored().await;
    });
}

#[test]
fn a_retry_across_a_gap_in_the_midst_of_the_log() {
    play(20, &shape(), async |world| {
        world.has_operator = true;
        world.start();
        let items = world.once(0, 5);
        world.stored().await;
        world.broker.lose_one(0);
        world.intake.ask(1, items.clone());
        world.add(1, 1);
        world.halted().await;
        world.remedied().await;
        world.intake.ask(0, items.clone());
        if world.sim.chance.permille(500) {
            world.crash(0).await;
            world.start();
        }
        world.checkpointed().await;
        world.crash(0).await;
        world.intake.ask(1, items);
        world.start();
        world.checkpointed().await;
    });
}

#[test]
fn a_zombie_that_knows_nothing_of_a_remedy_moves_the_checkpoint_beyond_it() {
    play(20, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        world.checkpointed().await;
        (0..6).for_each(|series| world.add(series, 10));
        world.stored().await;
        let end = world.broker.bounds_of(0).end.0;
        // It reads on, and another one takes the lane over, whose log lacks what this one has read.
        world.deafen(0);
        world.overtaken(end - 1);
        world.start();
        world.halted().await;
        world.remedied().await;
        (0..6).for_each(|series| world.add(series, 100));
        world.stored().await;
        world.crash(1).await;
        for _ in 0..world.sim.chance.below(5) {
            world.intake.ask(0, vec![Item::Increment { series: 0, amount: 1000, id: None }]);
            sleep(secs(9)).await;
        }
        world.start();
        world.stored().await;
    });
}

#[test]
fn a_claim_that_an_operator_accepts() {
    play(10, &shape(), async |world| {
        world.start();
        (0..6).for_each(|series| world.add(series, 1));
        world.checkpointed().await;
        world.crash(0).await;
        // What nobody has read is lost, and the ingest that was acknowledged lives to tell of it.
        let end = world.broker.bounds_of(0).end.0;
        for series in 0..3 {
            world.add(series, 10);
            sleep(secs(1)).await;
        }
        let cut = end + world.sim.chance.between(0, 2);
        world.broker.cut(0, cut);
        world.watcher.forget(world.lane(0));
        world.is_loose = true;
        world.damaged.insert(0, Expected { kinds: vec!["Claim"], must: true, ..Expected::default() });
        (0..6).for_each(|series| world.add(series, 100));
        world.start();
        world.halted().await;
        for _ in 0..4 {
            sleep(secs(10)).await;
            operator::accept_claims(world).await;
        }
        // Only a publish takes what was lost out of the view.
        world.touch_all();
        world.checkpointed().await;
    });
}
