//! The CQL store for tests: one that all share, and keyspaces of a test's own.

use std::sync::{Arc, LazyLock};

use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    deserialize::row::DeserializeRow,
};
use tallymark::{
    store::{
        Options,
        scylla::{Scylla, schema},
    },
    url::{Servers, StoreUrl},
};

use crate::stack;

/// One copy of a row: the tests' store may be of one node.
pub fn options() -> Options {
    Options { replication: 1, ..Options::default() }
}

/// The URL of a keyspace of the tests' store.
pub fn url(keyspace: &str) -> String {
    format!("scylla://{}/{keyspace}", stack::scylla())
}

/// What a URL names.
pub fn servers(url: &str) -> Servers {
    match url.parse() {
        Ok(StoreUrl::Scylla { servers }) => servers,
        other => panic!("{url}: {other:?}"),
    }
}

/// The store that all tests of this process share. Its keyspace is named after the schema, and outlives the run.
pub fn shared() -> Arc<Scylla> {
    static SHARED: LazyLock<Arc<Scylla>> = LazyLock::new(|| {
        // A session lives on the runtime that it was made on: this one outlives every test's.
        let opening = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let store = runtime.block_on(async {
                let mark = blake3::hash(schema::print("", &options()).as_bytes()).to_hex();
                let servers = servers(&url(&format!("contract_{}", &mark[..16])));
                schema::apply(&servers, &options(), false).await.unwrap();
                Scylla::open(&servers, &options()).await.unwrap()
            });
            std::mem::forget(runtime);
            Arc::new(store)
        };
        std::thread::spawn(opening).join().expect("the tests' store opens")
    });
    SHARED.clone()
}

/// Runs plain CQL that answers no rows.
pub async fn run(cql: &str) {
    let nodes = stack::scylla();
    let session = SessionBuilder::new().known_nodes(nodes.split(',')).build().await.unwrap();
    session.query_unpaged(cql, ()).await.unwrap();
}

/// The rows that plain CQL answers.
pub async fn rows<Row>(cql: &str) -> Vec<Row>
where
    Row: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
{
    let nodes = stack::scylla();
    let session = SessionBuilder::new().known_nodes(nodes.split(',')).build().await.unwrap();
    let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    answer.rows::<Row>().unwrap().map(Result::unwrap).collect()
}

/// A keyspace of a test's own, and plain CQL to look into it.
pub struct Keyspace {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub servers: Servers,
    /// Plain CQL.
    pub cql: Session,
}

impl Keyspace {
    /// A name that nobody has; nothing is made yet.
    pub async fn new() -> Self {
        let name = format!("test_{:016x}", rand::random::<u64>());
        let servers = servers(&url(&name));
        let hosts = servers.hosts.iter().map(ToString::to_string);
        let cql = SessionBuilder::new().known_nodes(hosts).build().await.unwrap();
        Self { name, servers, cql }
    }

    /// The same with the tables in it.
    pub async fn applied() -> Self {
        let keyspace = Self::new().await;
        schema::apply(&keyspace.servers, &options(), false).await.unwrap();
        keyspace
    }

    /// Runs plain CQL; `{ks}` is this keyspace.
    pub async fn run(&self, cql: &str) {
        self.cql.query_unpaged(cql.replace("{ks}", &self.name), ()).await.unwrap();
    }

    /// Takes it away again.
    pub async fn drop(self) {
        self.run("DROP KEYSPACE IF EXISTS {ks}").await;
    }
}
