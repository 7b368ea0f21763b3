//! The tables: printing, making and checking them.
//!
//! `schemas/scylla/` is the schema, in numbered files; a file's number is the version that the schema has after it, and the
//! keyspace keeps the versions that it has gone through in `schema_versions`. Applying runs the files that the keyspace does
//! not have yet, in order; every statement may be repeated, so an apply that was cut short is begun again. A keyspace that is
//! ahead of this program is left alone. Starting asks for this program's version or a later one: tables only gain.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use scylla::client::session::Session;

use crate::{
    retry::Kind,
    store::{Error, Options},
    url::Servers,
};

use super::{connect, fault};

mod text;

use text::statements;

/// A file of the schema.
struct File {
    name: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal,)*) => {
        &[
            $(File { name: $name, text: include_str!(concat!("../../../schemas/scylla/", $name)) },)*
            #[cfg(feature = "next")]
            File { name: "next.cql", text: include_str!("../../../tests/fixtures/next.cql") },
        ]
    };
}

/// The schema, in the order of its versions.
const FILES: &[File] =
    files!["01_counters.cql", "02_events.cql", "03_lanes.cql", "04_versions.cql", "07_control_totals.cql",];
/// The table that says which of them a keyspace has.
const VERSIONS: &str = "schema_versions";
/// The file that makes it; the files before it are noted when it is there.
const VERSIONS_SINCE: i32 = 4;

/// The version of the schema that this program works with.
pub const VERSION: i32 = FILES[FILES.len() - 1].version();

impl File {
    /// The version that the schema has after it: the two digits that its name begins with; the tests' next is past them all.
    const fn version(&self) -> i32 {
        match self.name.as_bytes() {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] => ((*tens - b'0') * 10 + *ones - b'0') as i32,
            _ => 98,
        }
    }
}

/// What an apply has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version before; 0: there were no tables.
    pub from: i32,
    /// The version after.
    pub to: i32,
    /// Every statement, in order; none: there was nothing to do.
    pub statements: Vec<String>,
    /// What should be looked at all the same.
    pub warnings: Vec<String>,
}

/// The CQL that makes everything in an empty cluster.
pub fn print(keyspace: &str, options: &Options) -> String {
    let keyspace = format!("\"{keyspace}\"");
    let mut text = format!("{};\n\nUSE {keyspace};\n", create_keyspace(&keyspace, options));
    for file in FILES {
        text.push_str(&format!("\n-- schemas/scylla/{}\n{}\n", file.name, file.text.trim_end()));
        for noted in noted_after(file.version()) {
            text.push_str(&format!("{};\n", note(&keyspace, noted)));
        }
    }
    text
}

/// Makes the keyspace if it is not there, and brings its tables up to this program's version; with `dry_run` only says how.
///
/// # Errors
/// [`Kind::Transient`] when no server answers in time; [`Kind::Permanent`] when the keyspace is ahead of this program, or
/// there are fewer servers than copies.
pub async fn apply(servers: &Servers, options: &Options, dry_run: bool) -> Result<Applied, Error> {
    // Servers agree on each table before they answer.
    const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
    let (session, _) = connect::in_time(servers, connect::connect(servers, options, TIMEOUT)).await?;
    let keyspace = connect::keyspace(servers);
    let found = find(&session, servers).await?;
    let mut applied = Applied { from: 0, to: VERSION, statements: Vec::new(), warnings: Vec::new() };
    match &found {
        None => {
            enough_servers(&session, options)?;
            applied.statements.push(create_keyspace(&keyspace, options));
        }
        Some(found) => {
            applied.from = found.version;
            applied.warnings.extend(found.warning(servers, options));
        }
    }
    if applied.from > VERSION {
        let message = format!(
            "keyspace `{}` has schema version {}, and this program's is {VERSION}: apply goes forward only; use the newer tallymark",
            servers.path, applied.from
        );
        return Err(Error::new(Kind::Permanent, message));
    }
    let has = |version: i32| found.as_ref().is_some_and(|found| found.versions.contains(&version));
    for file in FILES.iter().filter(|file| !has(file.version())) {
        let qualify = |statement: String| match added_column(&statement) {
            Some(_) => statement.replacen(ADD.0, &format!("{}{keyspace}.", ADD.0), 1),
            None => statement.replacen("IF NOT EXISTS ", &format!("IF NOT EXISTS {keyspace}."), 1),
        };
        applied.statements.extend(statements(file.text).into_iter().map(qualify));
        applied.statements.extend(noted_after(file.version()).map(|version| note(&keyspace, version)));
    }
    if !dry_run {
        for statement in &applied.statements {
            if let Some((table, column)) = added_column(statement)
                && has_column(&session, servers, table, column).await?
            {
                continue;
            }
            session.query_unpaged(statement.as_str(), ()).await.map_err(|error| {
                let mut error = fault::told(error);
                let first = statement.lines().next().unwrap_or_default();
                error.message =
                    format!("`{first} …`: {}; what was done before it stays: apply it again", error.message);
                error
            })?;
        }
    }
    Ok(applied)
}

/// What a statement that adds a column begins with, and what it has between its table and its column.
const ADD: (&str, &str) = ("ALTER TABLE ", " ADD ");

/// The table and the column that a statement adds. Neither server has an `IF NOT EXISTS` for it that the other takes, so
/// whoever applies it looks first.
fn added_column(statement: &str) -> Option<(&str, &str)> {
    let (table, column) = statement.strip_prefix(ADD.0)?.split_once(ADD.1)?;
    Some((table.rsplit('.').next().unwrap_or(table), column.split(' ').next().unwrap_or(column)))
}

async fn has_column(session: &Session, servers: &Servers, table: &str, column: &str) -> Result<bool, Error> {
    const COLUMN: &str = "SELECT column_name FROM system_schema.columns \
                          WHERE keyspace_name = ? AND table_name = ? AND column_name = ?";
    let rows = session.query_unpaged(COLUMN, (servers.path.as_str(), table, column)).await.map_err(fault::told)?;
    Ok(rows.into_rows_result().map_err(fault::damaged)?.rows_num() > 0)
}

/// Checks that the tables are there and not older than this program.
pub(super) async fn check(session: &Session, servers: &Servers, options: &Options) -> Result<(), Error> {
    let (keyspace, url) = (&servers.path, connect::url(servers));
    let remedy = format!("run `tallymark schema apply --store {url}`");
    let fatal = |message| Err(Error::new(Kind::Fatal, message));
    let Some(found) = find(session, servers).await? else {
        return fatal(format!("the store has no keyspace `{keyspace}`: {remedy}"));
    };
    match found.version {
        0 => return fatal(format!("keyspace `{keyspace}` has no tables of tallymark: {remedy}")),
        older if older < VERSION || FILES.iter().any(|file| !found.versions.contains(&file.version())) => {
            return fatal(format!(
                "keyspace `{keyspace}` has schema version {older}, and this program needs {VERSION}: {remedy}"
            ));
        }
        _ => {}
    }
    if let Some(warning) = found.warning(servers, options) {
        tracing::warn!(keyspace = keyspace.as_str(), "{warning}");
    }
    Ok(())
}

/// A keyspace as it is.
struct Found {
    /// The highest of its versions; 0: there are no tables.
    version: i32,
    versions: BTreeSet<i32>,
    durable_writes: bool,
    /// Copies by datacenter, or under `replication_factor`.
    copies: BTreeMap<String, u32>,
}

impl Found {
    /// What is wrong with the keyspace and does not stop anything.
    fn warning(&self, servers: &Servers, options: &Options) -> Option<String> {
        let keyspace = &servers.path;
        if !self.durable_writes {
            return Some(format!(
                "keyspace `{keyspace}` does without the commit log, and a restarted server has lost rows: ALTER KEYSPACE {keyspace} WITH durable_writes = true"
            ));
        }
        let (name, copies) = self.copies.iter().min_by_key(|(_, copies)| **copies)?;
        (*copies < options.replication).then(|| {
            format!(
                "keyspace `{keyspace}` keeps {copies} copies of a row ({name}) and store.replication is {}: ALTER KEYSPACE and repair, or set store.replication={copies}",
                options.replication
            )
        })
    }
}

/// The keyspace, if it is there.
async fn find(session: &Session, servers: &Servers) -> Result<Option<Found>, Error> {
    const KEYSPACE: &str = "SELECT replication, durable_writes FROM system_schema.keyspaces WHERE keyspace_name = ?";
    const TABLE: &str = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let keyspace = servers.path.as_str();
    let rows = session.query_unpaged(KEYSPACE, (keyspace,)).await.map_err(fault::told)?;
    let rows = rows.into_rows_result().map_err(fault::damaged)?;
    let Some((replication, durable_writes)) =
        rows.maybe_first_row::<(HashMap<String, String>, bool)>().map_err(fault::damaged)?
    else {
        return Ok(None);
    };
    let copies = replication.into_iter().filter(|(name, _)| name != "class");
    let copies = copies.filter_map(|(name, copies)| Some((name, copies.parse().ok()?))).collect();
    let mut found = Found { version: 0, versions: BTreeSet::new(), durable_writes, copies };

    let table = session.query_unpaged(TABLE, (keyspace, VERSIONS)).await.map_err(fault::told)?;
    if table.into_rows_result().map_err(fault::damaged)?.rows_num() > 0 {
        let versions =
            format!("SELECT version FROM {}.{VERSIONS} WHERE part = 'tallymark'", connect::keyspace(servers));
        let rows = session.query_unpaged(versions, ()).await.map_err(fault::told)?;
        let rows = rows.into_rows_result().map_err(fault::damaged)?;
        for row in rows.rows::<(i32,)>().map_err(fault::damaged)? {
            found.versions.insert(row.map_err(fault::damaged)?.0);
        }
    }
    found.version = found.versions.last().copied().unwrap_or(0);
    Ok(Some(found))
}

/// Refuses copies that there are no servers for: no quorum would ever answer.
fn enough_servers(session: &Session, options: &Options) -> Result<(), Error> {
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for node in session.get_cluster_state().get_nodes_info() {
        *servers.entry(node.datacenter.clone().unwrap_or_default()).or_default() += 1;
    }
    let in_question = |name: &str| connect::named_datacenter(options).is_none_or(|named| named == name);
    match servers.into_iter().find(|(name, servers)| in_question(name) && *servers < options.replication) {
        None => Ok(()),
        Some((name, servers)) => {
            let message = format!(
                "store.replication is {} and datacenter `{name}` has {servers} server(s): a quorum of copies would never answer; add servers, or, for a trial, --set store.replication={servers}",
                options.replication
            );
            Err(Error::new(Kind::Permanent, message))
        }
    }
}

fn create_keyspace(keyspace: &str, options: &Options) -> String {
    // Without a datacenter's name: so many copies in each that there is.
    let datacenter = connect::named_datacenter(options).unwrap_or("replication_factor").replace('\'', "''");
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{datacenter}': {}}}",
        options.replication
    )
}

/// The versions that are noted after this file.
fn noted_after(version: i32) -> std::ops::RangeInclusive<i32> {
    match version {
        VERSIONS_SINCE => 1..=VERSIONS_SINCE,
        #[expect(clippy::reversed_empty_ranges, reason = "none: the table is not there yet")]
        earlier if earlier < VERSIONS_SINCE => 1..=0,
        later => later..=later,
    }
}

fn note(keyspace: &str, version: i32) -> String {
    let file = FILES.iter().find(|file| file.version() == version);
    let name = file.expect("only files' versions are noted").name;
    format!(
        "INSERT INTO {keyspace}.{VERSIONS} (part, version, file, program, applied) \
         VALUES ('tallymark', {version}, '{name}', 'tallymark {}', toTimestamp(now()))",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_part_of_the_schema_and_numbered_in_order() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/scylla");
        let mut there: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        assert_eq!(there, FILES.iter().map(|file| file.name).collect::<Vec<_>>());
        for file in FILES {
            assert!(file.name.starts_with(&format!("{:02}_", file.version())), "{}", file.name);
        }
        assert!(FILES.is_sorted_by(|a, b| a.version() < b.version()));
        assert!(FILES[VERSIONS_SINCE as usize - 1].text.contains(&format!("CREATE TABLE IF NOT EXISTS {VERSIONS} (")));
    }

    #[test]
    fn every_statement_may_be_repeated() {
        for file in FILES {
            for statement in statements(file.text) {
                // One column each: an apply that was cut short goes on at the next one.
                let adds_one = added_column(&statement).is_some() && !statement.contains([',', '(']);
                assert!(statement.contains("IF NOT EXISTS ") || adds_one, "{}: {statement}", file.name);
            }
        }
    }

    #[test]
    fn what_is_printed_makes_the_keyspace_and_notes_every_version() {
        let options = Options { replication: 5, ..Options::default() };
        let printed = print("tally", &options);
        assert!(printed.contains(r#"CREATE KEYSPACE IF NOT EXISTS "tally" WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 5};"#), "{printed}");
        for file in FILES {
            assert!(printed.contains(file.text.trim_end()), "{}", file.name);
            let noted = format!("VALUES ('tallymark', {}, '{}'", file.version(), file.name);
            assert!(printed.contains(&noted), "{printed}");
        }
        let here = Options { datacenter: "dc'1".to_owned(), ..options };
        assert!(print("tally", &here).contains("'dc''1': 5"));
    }
}
