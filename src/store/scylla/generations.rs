//! Which of its lives each server is in (S6): its gossip generation, which it takes from its clock at every start and
//! keeps on disk, so that it is never the same twice.
//!
//! A server tells its own only (`system.peers` has none), so each is asked by itself, past the policy that spreads
//! requests. The servers of our datacenter are: their quorum is what an acknowledgement stands for.

use std::sync::Arc;

use futures_util::future::join_all;
use scylla::{
    client::session::Session,
    cluster::Node,
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::{Consistency, Statement},
};

use crate::store::{Error, Generation, Generations};

use super::{Scylla, fault};

const QUESTION: &str = "SELECT gossip_generation FROM system.local WHERE key = 'local'";

/// Asks every server, by its host id, which it keeps when its address changes.
pub async fn read(store: &Scylla) -> Generations {
    let state = store.session.get_cluster_state();
    let ours = |node: &&Arc<Node>| store.datacenter.is_none() || node.datacenter == store.datacenter;
    let asked = state.get_nodes_info().iter().filter(ours).map(|node| async {
        let told = ask(&store.session, node.clone()).await;
        (node.host_id.to_string(), told)
    });
    join_all(asked).await.into_iter().collect()
}

async fn ask(session: &Session, node: Arc<Node>) -> Result<Generation, Error> {
    let mut question = Statement::new(QUESTION);
    question.set_consistency(Consistency::One);
    question.set_is_idempotent(true);
    question.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node), None)));
    let answer = session.query_unpaged(question, ()).await.map_err(fault::told)?;
    let row = answer.into_rows_result().map_err(fault::damaged)?;
    let (generation,) = row.single_row::<(i32,)>().map_err(fault::damaged)?;
    Ok(Generation(generation.into()))
}
