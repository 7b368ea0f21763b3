//! The hot view on a cluster: every entry on the server of its slot, also while slots move.

use std::time::Duration;

use tallymark::hot::{Base, Delta, HotView as _, Published};

use super::{HotKey, Seq, Server, add, counter, fresh, lane, load, open, options, publish, read, reads, series};

/// Three servers that share the slots.
struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    async fn start() -> Self {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await);
        }
        for (server, slots) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            let () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        }
        for other in &servers[1..] {
            let () = servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]).await;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        for server in &servers {
            loop {
                let info: String = server.ask(&["CLUSTER", "INFO"]).await;
                if info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "the cluster does not come up: {info}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Self { servers }
    }
}

#[tokio::test]
async fn entries_are_spread_over_a_cluster_and_follow_their_slots() {
    tokio::time::timeout(Duration::from_secs(60), async {
        let cluster = Cluster::start().await;
        let view = open(&format!("redis-cluster://{}", cluster.servers[1].address()), &options());
        let keys: Vec<HotKey> =
            (0..60).map(|n| if n % 2 == 0 { counter(&n.to_string()) } else { series(&n.to_string()) }).collect();
        for key in &keys {
            assert!(load(&view, key, (1, 1), None).await.unwrap());
        }
        let deltas = keys.iter().map(|key| Delta { key: key.clone(), amount: 1 });
        view.add(lane(0), Seq(2), deltas.collect()).await.unwrap();
        assert!(view.read(&keys).await.unwrap().into_iter().all(|seen| seen == fresh(2)));
        let bases: Vec<_> = keys.iter().map(|key| Base { key: key.clone(), total: 2 }).collect();
        assert_eq!(view.publish(lane(0), Seq(2), &bases).await.unwrap(), Published { written: 60, drifted: 0 });
        assert!(view.known(&keys).await.unwrap().into_iter().all(|known| known));
        for server in &cluster.servers {
            assert!(server.ask::<i64>(&["DBSIZE"]).await > 10);
        }

        // A slot is being moved: what is not there yet is asked for elsewhere.
        let new = counter("new");
        let name = view.key_of(&new);
        let slot: u16 = keyslot(&cluster, &name).await;
        let from = usize::from(slot / 5461).min(2);
        let (from, to) = (&cluster.servers[from], &cluster.servers[(from + 1) % 3]);
        let (from_id, to_id): (String, String) =
            (from.ask(&["CLUSTER", "MYID"]).await, to.ask(&["CLUSTER", "MYID"]).await);
        let slot = slot.to_string();
        let () = to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        let () = from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        add(&view, &new, 3, 5).await;
        let () = to.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        let () = from.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        // It has moved: it is asked for where it was, and found where it is.
        assert_eq!(view.known(std::slice::from_ref(&new)).await.unwrap(), [true]);
        assert!(load(&view, &new, (0, 2), None).await.unwrap());
        assert_eq!(read(&view, &new).await.unwrap(), fresh(5));
        publish(&view, &new, 3, 5).await.unwrap();
        let there: i64 = to.ask_of("HLEN", &name, &[]).await;
        assert_eq!(there, 2, "a base, and full");
    })
    .await
    .expect("a cluster of three takes less than a minute");
}

async fn keyslot(cluster: &Cluster, key: &[u8]) -> u16 {
    let mut command = ::redis::cmd("CLUSTER");
    command.arg("KEYSLOT").arg(key);
    cluster.servers[0].query(command).await
}

#[tokio::test]
async fn a_server_of_a_cluster_that_is_away_takes_only_its_slots_with_it() {
    tokio::time::timeout(Duration::from_secs(60), async {
        let mut cluster = Cluster::start().await;
        for server in &cluster.servers {
            let () = server.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
        }
        let url = format!("redis-cluster://{},{}", cluster.servers[0].address(), cluster.servers[1].address());
        let view = open(&url, &options());
        // The server that holds the marks is not the one that goes.
        let marks = usize::from(keyslot(&cluster, b"tallymark:{lanes}:marks").await / 5461).min(2);
        let gone = (marks + 1) % 3;
        let keys: Vec<HotKey> = (0..30).map(|n| counter(&n.to_string())).collect();
        let mut away = Vec::new();
        for key in &keys {
            assert!(load(&view, key, (1, 1), None).await.unwrap());
            away.push(usize::from(keyslot(&cluster, &view.key_of(key)).await / 5461).min(2) == gone);
        }
        assert!(away.contains(&true) && away.contains(&false));
        cluster.servers[gone].kill();
        let seen = view.read(&keys).await.unwrap();
        for (seen, away) in seen.into_iter().zip(&away) {
            assert_eq!(seen, if *away { tallymark::hot::View::Miss } else { fresh(1) });
        }
        cluster.servers[gone].start_again().await;
        // It comes back empty.
        for (key, away) in keys.iter().zip(&away) {
            if *away {
                reads(&view, key, tallymark::hot::View::Miss).await;
                super::healed("its slots are served", async || load(&view, key, (1, 1), None).await).await;
            }
            reads(&view, key, fresh(1)).await;
        }
    })
    .await
    .expect("a cluster of three takes less than a minute");
}
