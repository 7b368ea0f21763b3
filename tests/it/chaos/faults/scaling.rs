//! From one worker to three and back, under load: what each lane stands still for meanwhile.

use std::{thread::sleep, time::Duration};

use super::{
    super::{
        cluster::{Cluster, holds},
        pace::Pace,
        row::Row,
        site::{PATIENCE, Plan, Site},
    },
    rebalances,
};

/// Of the group at rest, between two changes.
const REST: Duration = Duration::from_secs(3);

/// Workers come and go: one site, a row each.
pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan { workers: 1, ..Plan::new(cluster, pace, "scaling") })?;
    let rows = vec![
        site.row("1 to 3 to 1 workers", up_and_down),
        site.row("rebalances", |site| {
            (0..2).for_each(|_| site.add_worker());
            site.all_have_lanes()?;
            rebalances::once_a_second(site, pace)
        }),
    ];
    Ok(site.rows(rows))
}

fn up_and_down(site: &mut Site) -> Result<(), String> {
    for _ in 0..2 {
        site.add_worker();
        let shared = site.all_have_lanes();
        site.expect(shared);
        sleep(REST);
    }
    pauses(site, "1 to 3");
    for _ in 0..2 {
        let leaving = site.workers.remove(0);
        let status = leaving.stop();
        site.expect(holds(status.success(), || format!("a worker left with {status}")));
        let all = site.lanes_run(PATIENCE);
        site.expect(all.map(drop));
        sleep(REST);
    }
    pauses(site, "3 to 1");
    Ok(())
}

/// Notes how long each lane stored nothing, beside `worker.flush_age` that it always takes, and begins anew.
fn pauses(site: &mut Site, what: &str) {
    let seconds = |pause: &Duration| format!("{:.1}", pause.as_secs_f64());
    let pauses: Vec<String> = site.watch.pauses().iter().map(seconds).collect();
    site.notes.push(format!("{what} workers: the lanes paused for {} s", pauses.join(", ")));
    site.watch.forget();
}
