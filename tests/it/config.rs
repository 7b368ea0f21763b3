//! The configuration: layers, sources, and what is said about wrong values.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use tallymark::{
    config::{Config, Error, Key, Kind, Layers, Role, Source, keys, reference, show_json, show_text},
    url::{HotUrl, LogUrl, StoreUrl},
};

fn load(layers: Layers) -> Result<Config, Error> {
    Config::load(layers, Role::All)
}

fn only_problem(layers: Layers) -> String {
    let error = load(layers).expect_err("it is wrong");
    assert_eq!(error.problems.len(), 1, "{error:?}");
    error.problems[0].message.clone()
}

fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tally.toml");
    fs::write(&path, text).unwrap();
    (dir, Layers::new().file(path))
}

fn variables(all: &[(&str, &str)]) -> Layers {
    Layers::new().variables(all.iter().copied())
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let config = load(Layers::new()).unwrap();
    assert_eq!(config.log.url, LogUrl::Embedded { dir: "./tallymark-data".into() });
    assert_eq!(config.store.url, StoreUrl::Embedded { dir: "./tallymark-data".into() });
    assert_eq!(config.hot.url, HotUrl::Memory);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.namespace.to_string(), "default");
    assert_eq!(config.namespace_if_set(), None);
    assert_eq!(config.store.options.shards, 256);
    assert_eq!(config.shutdown.deadline.to_string(), "25s");
    assert_eq!(config.ingest, tallymark::ingest::Options::default());
    assert_eq!(config.worker, tallymark::worker::Options::default());
    assert!(config.check_runnable().is_ok());
    assert!(config.settings().iter().all(|(_, setting)| setting.source == Source::Default));
}

#[test]
fn a_file_is_read_in_every_way_that_toml_writes_it() {
    for text in [
        "log = 'embedded:/d'\nworker.flush_age = '2s'",
        "[log]\nurl = 'embedded:/d'\n[worker]\nflush_age = '2s'",
        "log = { url = 'embedded:/d' }\n\"worker\".\"flush_age\" = '2000ms'",
        "log.url = 'embedded:/d'\nworker = { flush_age = '2s' }\n[query]\n",
    ] {
        let (_dir, layers) = file(text);
        let config = load(layers).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(config.log.url, LogUrl::Embedded { dir: "/d".into() }, "{text}");
        assert_eq!(config.worker.flush_age.to_string(), "2s", "{text}");
    }
}

#[test]
fn each_value_says_where_it_came_from() {
    let (dir, layers) = file("listen = '127.0.0.1:1'\n\n[store]\nshards = 64\nbatch_rows = 7\n");
    let layers = layers
        .variables([("TALLYMARK_STORE__SHARDS", "65"), ("TALLYMARK_LOG", "embedded:/x"), ("OTHER", "1")])
        .flag("--listen", "listen", "127.0.0.1:2")
        .set("ingest.grains=minute, day");
    let config = load(layers).unwrap();
    let source = |name: &str| config.settings().get(name).source.to_string();
    let path = dir.path().join("tally.toml");
    assert_eq!(source("store.batch_rows"), format!("{}:5", path.display()));
    assert_eq!(source("store.shards"), "TALLYMARK_STORE__SHARDS");
    assert_eq!(source("log.url"), "TALLYMARK_LOG");
    assert_eq!(source("listen"), "--listen");
    assert_eq!(source("ingest.grains"), "--set ingest.grains");
    assert_eq!(source("store.in_flight"), "default");
    assert_eq!((config.store.options.shards, config.store.options.batch_rows), (65, 7));
    assert_eq!(config.ingest.grains, ["minute", "day"]);
    assert_eq!(config.listen.port, 2);
    let named = load(variables(&[("TALLYMARK_NAMESPACE", "shop")])).unwrap();
    assert_eq!(named.namespace_if_set().map(ToString::to_string).as_deref(), Some("shop"));
}

#[test]
fn variables_that_name_the_tests_servers_are_nobodys_setting() {
    let layers = variables(&[("TALLYMARK_TEST_KAFKA", "127.0.0.1:9092")]);
    assert!(Config::load(layers, Role::All).is_ok());
}

#[test]
fn a_file_may_be_named_by_a_variable_and_the_flag_is_above_it() {
    let (dir, layers) = file("store.shards = 2");
    let other = dir.path().join("other.toml");
    fs::write(&other, "store.shards = 3").unwrap();
    let named = [("TALLYMARK_CONFIG", other.to_str().unwrap())];
    assert_eq!(load(Layers::new().variables(named)).unwrap().store.options.shards, 3);
    assert_eq!(load(layers.variables(named)).unwrap().store.options.shards, 2);
}

/// A value of this kind that differs per layer, as text and as TOML.
fn sample(key: &Key, layer: usize) -> Option<(String, String)> {
    let n = layer + 1;
    match key.kind {
        Kind::Duration => Some((format!("{n}h"), format!("'{n}h'"))),
        Kind::Size => Some((format!("{n}MiB"), format!("'{n}MiB'"))),
        Kind::Integer if key.name == "ingest.format" => None,
        Kind::Integer => Some((n.to_string(), n.to_string())),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_highest_layer_that_sets_a_key_wins(picks in prop::collection::vec(0_u8..8, keys().len())) {
        let mut toml = String::new();
        let (mut environment, mut sets) = (Vec::new(), Vec::new());
        let mut expected = BTreeMap::new();
        for (key, pick) in keys().iter().zip(picks) {
            for layer in 0..3 {
                let Some((text, in_file)) = sample(key, layer) else { continue };
                if pick & (1 << layer) == 0 {
                    continue;
                }
                let source = match layer {
                    0 => {
                        toml.push_str(&format!("{} = {in_file}\n", key.name));
                        format!("tally.toml:{}", toml.lines().count())
                    }
                    1 => {
                        environment.push((key.variable(), text.clone()));
                        key.variable()
                    }
                    _ => {
                        sets.push(format!("{}={text}", key.name));
                        format!("--set {}", key.name)
                    }
                };
                expected.insert(key.name.as_str(), (text, source));
            }
        }
        let (_dir, layers) = file(&toml);
        let (resolved, problems) = sets.into_iter().fold(layers.variables(environment), Layers::set).resolve(Role::All);
        prop_assert!(problems.is_empty(), "{problems:?}");
        for (key, setting) in resolved.iter() {
            match expected.get(key.name.as_str()) {
                Some((text, source)) => {
                    let value = setting.value.to_string();
                    prop_assert_eq!(value.trim_matches('"'), text, "{}", key.name);
                    prop_assert!(setting.source.to_string().ends_with(source.as_str()), "{}: {}", key.name, setting.source);
                }
                None => prop_assert_eq!(&setting.source, &Source::Default),
            }
        }
    }

    #[test]
    fn no_input_panics(text in "\\PC{0,60}", value in "\\PC{0,20}", pick in any::<prop::sample::Index>()) {
        let _ = load(Layers::new().set(text.clone()));
        let (_dir, layers) = file(&text);
        let _ = load(layers);
        let key = &keys()[pick.index(keys().len())];
        let _ = load(Layers::new().set(format!("{}={value}", key.name)));
        let _ = load(Layers::new().variables([(format!("TALLYMARK_{text}"), value)]));
    }
}

#[test]
fn an_unknown_name_is_refused_with_its_place_and_the_nearest_known_one() {
    let (_dir, layers) = file("[worker]\nflush_rows = 1\nflushage = '1s'\n");
    let message = only_problem(layers);
    assert!(message.contains("`worker.flushage`") && message.contains("tally.toml:3"), "{message}");
    assert!(message.ends_with("`worker.flush_age`"), "{message}");

    let (_dir, layers) = file("[wroker]\n");
    assert!(only_problem(layers).starts_with("unknown setting `wroker`"));
    let (_dir, layers) = file("[stroe]\nshards = 2\n");
    assert!(only_problem(layers).ends_with("`store.shards`"));

    let message = only_problem(variables(&[("TALLYMARK_STROE", "embedded:x")]));
    assert_eq!(message, "unknown environment variable TALLYMARK_STROE; the nearest known one is TALLYMARK_STORE");
    let message = only_problem(variables(&[("TALLYMARK_WORKER_FLUSH_AGE", "1s")]));
    assert!(message.ends_with("TALLYMARK_WORKER__FLUSH_AGE"), "{message}");
    let message = only_problem(variables(&[("TALLYMARK_PORT_8080_TCP", "tcp://10.0.0.1:8080")]));
    assert!(message.contains("enableServiceLinks"), "{message}");

    let message = only_problem(Layers::new().set("ingest.linge=1ms"));
    assert_eq!(message, "unknown setting `ingest.linge` (--set); the nearest known one is `ingest.linger`");
    assert!(only_problem(Layers::new().set("nonsense")).contains("section.key=value"));
}

#[test]
fn a_wrong_value_is_named_with_its_setting_its_source_and_what_is_expected() {
    for (assignment, expected) in [
        ("worker.flush_age=5 parsecs", "write one like `250ms`"),
        ("worker.flush_age=0s", "longer than nothing"),
        ("worker.checkpoint_delay=200years", "at most 100 years"),
        ("ingest.max_body=big", "write one like `256KiB`"),
        ("ingest.buffer=0", "more than nothing"),
        ("ingest.pack_bytes=65MiB", "from 1 to 64MiB"),
        ("store.shards=many", "a whole number from 1 to 2147483647"),
        ("store.shards=0", "a whole number from 1 to 2147483647"),
        ("store.shards=2147483648", "a whole number from 1 to 2147483647"),
        ("store.shards=-1", "a whole number from 1"),
        ("store.shards=1.5", "a whole number from 1"),
        ("ingest.in_flight=0", "a whole number from 1 to 1024"),
        ("ingest.format=99", "a whole number from 1 to 1"),
        ("ingest.grains=hour,week", "some of minute, hour, day"),
        ("ingest.grains=hour,hour", "twice"),
        ("log.partitions=9223372036854775808", "a whole number"),
        ("listen=8080", "host:port"),
        ("listen=", "empty"),
        ("log_format=xml", "one of auto, text, json"),
        ("log_level=inof", "`inof` is not a log level"),
        ("namespace=Big One", "[a-z0-9]"),
        ("log.url=postgres://h:1/t", "`kafka://[user:password@]host:port[,host:port]/topic`"),
        ("store=embedded:", "names no folder"),
        ("hot.url=redis", "`memory:`"),
        ("retry.max=1ms", "at least retry.initial, which is \"50ms\" (default)"),
        ("admin_listen=127.0.0.1:8080", "listen is the same address"),
    ] {
        let message = only_problem(Layers::new().set(assignment));
        let key = assignment.split('=').next().unwrap();
        assert!(message.starts_with(key), "{assignment}: {message}");
        assert!(message.contains("(--set ") && message.contains(expected), "{assignment}: {message}");
        assert!(!message.contains('\n') && !message.contains("Error"), "{assignment}: {message}");
    }
}

#[test]
fn a_wrong_type_in_a_file_is_named_with_its_line() {
    for (line, expected) in [
        ("store.shards = '64'", "a whole number"),
        ("store.shards = 1e3", "a whole number"),
        ("store.shards = 99999999999999999999", "a whole number"),
        ("worker.flush_age = 5", "a duration like"),
        ("ingest.max_body = true", "a size like"),
        ("ingest.grains = 'hour'", "a list like"),
        ("ingest.grains = [1]", "some of minute"),
        ("listen = 8080", "text in quotes"),
        ("listen = { port = 1 }", "text in quotes"),
        ("worker = 3", "unknown setting `worker`"),
        ("log = 3", "text in quotes"),
    ] {
        let (_dir, layers) = file(&format!("# a comment\n{line}\n"));
        let message = only_problem(layers);
        assert!(message.contains("tally.toml:2") && message.contains(expected), "{line}: {message}");
    }
    let (_dir, layers) = file("a = 1\nb = = 2\n");
    let message = only_problem(layers);
    assert!(message.contains("tally.toml:2: not TOML"), "{message}");
    let message = only_problem(Layers::new().file("/nowhere/tally.toml"));
    assert_eq!(message, "configuration file /nowhere/tally.toml (--config): there is no such file");
}

#[test]
fn one_setting_from_two_places_of_one_layer_is_refused() {
    let both = variables(&[("TALLYMARK_LOG", "embedded:a"), ("TALLYMARK_LOG__URL", "embedded:b")]);
    assert_eq!(only_problem(both), "log.url is set by both TALLYMARK_LOG and TALLYMARK_LOG__URL: unset one of them");
    let both = Layers::new().flag("--log", "log.url", "embedded:a").set("log.url=embedded:b");
    assert!(only_problem(both).contains("both --log and --set"));
    let config = load(Layers::new().set("store.shards=2").set("store.shards=3")).unwrap();
    assert_eq!(config.store.options.shards, 3);
}

#[test]
fn every_problem_is_found_and_the_error_says_the_first_in_two_lines() {
    let layers = variables(&[("TALLYMARK_NOPE", "1"), ("TALLYMARK_STORE__SHARDS", "x")]).set("listen=x").set("a=b");
    let error = load(layers).unwrap_err();
    assert_eq!(error.problems.len(), 4, "{error:?}");
    assert_eq!(error.to_string().lines().count(), 2);
    assert!(error.to_string().contains("3 more"));
}

#[test]
fn a_role_alone_refuses_what_lives_in_one_process_and_says_why() {
    for role in [Role::Ingest, Role::Worker] {
        let config = Config::load(Layers::new(), role).unwrap();
        assert_eq!(config.hot.url, HotUrl::None);
        let source = config.settings().get("hot.url").source.to_string();
        assert_eq!(source, format!("default of the role {role}"));
        let problems = config.check_runnable().unwrap_err().problems;
        let keys: Vec<_> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
        assert_eq!(keys, ["log.url", "store.url"]);
        assert!(problems.iter().all(|problem| problem.message.contains("one process owns it")), "{problems:?}");

        let memory = Config::load(Layers::new().set("hot=memory:"), role).unwrap();
        let problems = memory.check_runnable().unwrap_err().problems;
        assert!(problems[2].message.contains("its own memory"), "{problems:?}");
    }
}

#[test]
fn every_role_runs_on_servers_that_processes_share() {
    for role in [Role::All, Role::Ingest, Role::Worker] {
        let layers = Layers::new().set("log=kafka://h:9092/t").set("store=scylla://h:9042/k").set("hot=redis://h");
        Config::load(layers, role).unwrap().check_runnable().unwrap();
    }
    // One process may also keep some of it on its own disk.
    let mixed = load(Layers::new().set("log=kafka://h:9092/t").set("hot=memory:")).unwrap();
    mixed.check_runnable().unwrap();
}

#[test]
fn passwords_are_shown_nowhere() {
    let (_dir, layers) = file("[store]\nurl = 'scylla://app:hunter2@n1:9042/k'\n");
    let layers = layers.variables([("TALLYMARK_HOT", "redis://:hunter2@cache:6379")]);
    let config = load(layers).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for text in [show_text(config.settings()), show_json(config.settings())] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("scylla://app:***@n1:9042/k") && text.contains("redis://:***@cache:6379"), "{text}");
    }
    for wrong in ["store=scylla://app:hunter2@n1:9042/", "hot=rediss://:hunter2@h/x", "log=kafka://u:hunter2@h:1"] {
        let message = only_problem(Layers::new().set(wrong));
        assert!(!message.contains("hunter2"), "{message}");
    }
    // The addresses alone are shown when a host is wrong, whatever the user wrote before them.
    assert!(!only_problem(Layers::new().set("store=scylla://app:hunter2@n1/k")).contains("hunter2"));
}

#[test]
fn what_is_shown_can_be_pasted_into_a_file() {
    let shown =
        load(Layers::new().set("store.shards=9").set("worker.flush_age=90s").set("ingest.grains=minute")).unwrap();
    let (_dir, layers) = file(&show_text(shown.settings()));
    let read = load(layers).unwrap();
    assert_eq!((&read.ingest, &read.worker, &read.store), (&shown.ingest, &shown.worker, &shown.store));
    assert_eq!((&read.hot, &read.listen, &read.http), (&shown.hot, &shown.listen, &shown.http));
    // What depends on the backend is shown as it is in force.
    assert_eq!(read.log.options.partitions, 4);

    let json: serde_json::Value = serde_json::from_str(&show_json(shown.settings())).unwrap();
    assert_eq!(json["store.shards"], serde_json::json!({"value": 9, "source": "--set store.shards"}));
    assert_eq!(json["log.partitions"]["value"], 4);
    assert_eq!(json["ingest.grains"]["value"], serde_json::json!(["minute"]));
    assert_eq!(json.as_object().unwrap().len(), keys().len());
}

#[test]
fn the_documentation_lists_what_the_code_knows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = "<!-- generated by the tests from the code: BLESS=1 cargo test --release --test it config -->\n";
    let end = "<!-- end of the generated part -->";
    let (before, rest) = text.split_once(begin).expect("the page has a generated part");
    let (_, after) = rest.split_once(end).expect("the generated part ends");
    let generated = format!("{before}{begin}\n{}\n{end}{after}", reference());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, generated).unwrap();
    } else {
        assert!(text == generated, "docs/configuration.md is not what the code says; run the tests with BLESS=1");
    }
}
