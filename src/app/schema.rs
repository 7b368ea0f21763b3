//! The store's tables: which backend has any that must be made beforehand.

use super::backends;
use crate::{
    config::Config,
    exit::Failure,
    store::scylla::schema::{self, Applied},
    url::StoreUrl,
};

/// The keyspace of what is printed when the configuration names none.
const KEYSPACE: &str = "tallymark";

/// The CQL that makes the store's tables.
pub fn print(config: &Config) -> String {
    let keyspace = match &config.store.url {
        StoreUrl::Scylla { servers } => &servers.path,
        StoreUrl::Embedded { .. } => KEYSPACE,
    };
    schema::print(keyspace, &config.store.options)
}

/// Makes the store's tables, or brings them up to date; with `dry_run` only says how.
///
/// # Errors
/// The store has no tables of its own, cannot be reached, or refuses.
pub async fn apply(config: &Config, dry_run: bool) -> Result<Applied, Failure> {
    match &config.store.url {
        StoreUrl::Scylla { servers } => {
            schema::apply(servers, &config.store.options, dry_run).await.map_err(backends::store_failure)
        }
        StoreUrl::Embedded { .. } => Err(Failure::usage(
            "store.url: an embedded store makes its tables itself; name the servers with --store scylla://host:port/keyspace",
        )),
    }
}
