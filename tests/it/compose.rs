//! `docker-compose.yml` and `deploy/`: there is no Docker engine where the tests run, so everything that they pass to the
//! program is held against the program, and what they say to each other against each other.

mod files;
mod image;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;
use tallymark::units::Span;

use files::{Service, image_variables, ours, path, service, services, yaml};

/// The binary in an empty folder, with these variables and none of ours besides.
fn tallymark(arguments: &[String], variables: &BTreeMap<String, String>) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALLYMARK_")) {
        command.env_remove(name);
    }
    let output = command.current_dir(dir.path()).args(arguments).envs(variables).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("what is printed is UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

/// What a process of this service sees: the image's variables, under the service's own.
fn environment(service: &Service) -> BTreeMap<String, String> {
    image_variables().into_iter().chain(service.variables()).collect()
}

/// The settings of a service as the program reads them.
fn settings(service: &Service) -> Value {
    let role = service.role().unwrap_or_else(|| "all".to_owned());
    let (code, out, err) = tallymark(&words(&format!("config show --json --role {role}")), &environment(service));
    assert_eq!(code, 0, "{}: {err}", service.name);
    serde_json::from_str(&out).expect("it is JSON")
}

#[test]
fn the_program_takes_every_command_and_flag_that_a_service_gives_it() {
    for service in ours() {
        let command = service.words("command");
        assert!(!command.is_empty(), "{} has a command of its own", service.name);
        let (code, out, err) = tallymark(&[command.clone(), words("--help")].concat(), &BTreeMap::new());
        assert_eq!(code, 0, "{}: {err}", service.name);
        let verbs = command.iter().take_while(|word| !word.starts_with('-'));
        let verbs: Vec<_> =
            verbs.filter(|word| !["all", "ingest", "worker"].contains(&word.as_str())).cloned().collect();
        let usage = format!("Usage: tallymark {}", verbs.join(" "));
        assert!(out.contains(&usage), "{}: {command:?} is read as another command: {out}", service.name);
    }
}

#[test]
fn every_setting_of_a_service_is_in_force_and_fit_for_its_role() {
    for service in ours() {
        let shown = settings(&service);
        let settings = shown.as_object().unwrap().values();
        let sources: BTreeSet<_> = settings.filter_map(|setting| setting["source"].as_str()).collect();
        for name in environment(&service).keys().filter(|name| name.starts_with("TALLYMARK_")) {
            assert!(sources.contains(name.as_str()), "{}: {name} sets nothing", service.name);
        }
        // What `topic create` and `schema apply` make is made for the processes that use it.
        let role = service.role().unwrap_or_else(|| "ingest".to_owned());
        let (code, out, err) =
            tallymark(&words(&format!("validate --no-connect --role {role}")), &environment(&service));
        assert_eq!(code, 0, "{}: {err}{out}", service.name);
    }
}

#[test]
fn every_process_is_told_the_same_and_all_roles_run() {
    let ours = ours();
    for service in &ours {
        assert_eq!(service.variables(), ours[0].variables(), "{} and {}", service.name, ours[0].name);
    }
    let roles: BTreeSet<_> = ours.iter().filter_map(Service::role).collect();
    assert_eq!(roles.into_iter().collect::<Vec<_>>(), ["ingest", "worker"]);
    let once: BTreeSet<_> =
        ours.iter().filter(|service| service.role().is_none()).map(|service| service.words("command")).collect();
    assert_eq!(once.into_iter().collect::<Vec<_>>(), [words("schema apply"), words("topic create")]);
}

/// `scheme://host:port[,host:port][/path]` → the hosts with their ports.
fn servers(url: &str) -> Vec<(String, String)> {
    let rest = url.split_once("://").unwrap_or_else(|| panic!("{url}")).1;
    let hosts = rest.rsplit('@').next().unwrap().split('/').next().unwrap().split(',');
    hosts.map(|host| host.split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).expect(url)).collect()
}

#[test]
fn each_backend_is_a_service_that_listens_there() {
    let settings = settings(&ours()[0]);
    let url = |name: &str| settings[name]["value"].as_str().unwrap().to_owned();
    for (host, port) in servers(&url("log.url")) {
        let kafka = service(&host);
        assert!(kafka.value["image"].as_str().unwrap().starts_with("apache/kafka:"), "{host}");
        let variables = kafka.variables();
        let advertised = &variables["KAFKA_ADVERTISED_LISTENERS"];
        assert!(advertised.split(',').any(|to| to.ends_with(&format!("://{host}:{port}"))), "{host}: {advertised}");
        let listeners = &variables["KAFKA_LISTENERS"];
        assert!(listeners.split(',').any(|on| on.ends_with(&format!("://:{port}"))), "{host}: {listeners}");
    }
    for (setting, image, usual) in [("store.url", "scylladb/scylla:", "9042"), ("hot.url", "redis:", "6379")] {
        for (host, port) in servers(&url(setting)) {
            let image_of = service(&host).value["image"].as_str().unwrap().to_owned();
            assert!(image_of.starts_with(image), "{setting} names {host}, which runs {image_of}");
            assert_eq!(port, usual, "{setting}: {host} listens on its usual port");
        }
    }
    // As many copies as there are servers to hold them, up to three.
    for (setting, copies) in [("log.url", "log.replication"), ("store.url", "store.replication")] {
        let servers = servers(&url(setting)).len().min(3);
        assert_eq!(settings[copies]["value"], servers, "{copies}, with what {setting} names");
    }
}

#[test]
fn kafka_is_set_up_as_the_topic_needs_it() {
    let settings = settings(&ours()[0]);
    for (host, _) in servers(settings["log.url"]["value"].as_str().unwrap()) {
        let variables = service(&host).variables();
        let is = |name: &str, value: &str| {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{host}: {name}")
        };
        // A topic that makes itself has the wrong settings.
        is("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false");
        is("KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE", "false");
        // `topic create` sets these on the topic; a broker that says otherwise would only mislead.
        for name in [
            "LOG_MESSAGE_TIMESTAMP_TYPE",
            "LOG_CLEANUP_POLICY",
            "LOG_RETENTION_MS",
            "LOG_RETENTION_BYTES",
            "MIN_INSYNC_REPLICAS",
        ] {
            assert!(
                !variables.contains_key(&format!("KAFKA_{name}")),
                "{host}: KAFKA_{name} is for `topic create` to set"
            );
        }
        // Data outlives the container, and one copy outlives a power cut.
        let logs = &variables["KAFKA_LOG_DIRS"];
        assert!(
            service(&host).words("volumes").iter().any(|volume| volume.ends_with(&format!(":{logs}"))),
            "{host}: {logs}"
        );
        is("KAFKA_LOG_FLUSH_INTERVAL_MESSAGES", "1");
        // With one broker, more copies than one of Kafka's own topics can never be made.
        for name in [
            "OFFSETS_TOPIC_REPLICATION_FACTOR",
            "TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
            "TRANSACTION_STATE_LOG_MIN_ISR",
        ] {
            is(&format!("KAFKA_{name}"), "1");
        }
        // Every listener has a protocol, and the controller's quorum is itself.
        let protocols = &variables["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"];
        let named = |list: &str| {
            list.split(',').map(|listener| listener.split(':').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(named(protocols), named(&variables["KAFKA_LISTENERS"]), "{host}");
        let controller = &variables["KAFKA_CONTROLLER_LISTENER_NAMES"];
        let advertised = named(&variables["KAFKA_ADVERTISED_LISTENERS"]);
        assert!(!advertised.contains(controller) && advertised.is_subset(&named(protocols)), "{host}: {advertised:?}");
        let (node, quorum) = (&variables["KAFKA_NODE_ID"], &variables["KAFKA_CONTROLLER_QUORUM_VOTERS"]);
        let port = quorum.strip_prefix(&format!("{node}@localhost:")).unwrap_or_else(|| panic!("{host}: {quorum}"));
        assert!(variables["KAFKA_LISTENERS"].contains(&format!("{controller}://:{port}")), "{host}: {quorum}");
    }
}

/// What a service waits for.
fn waits_for(service: &Service) -> Vec<(String, String)> {
    let Some(all) = service.value["depends_on"].as_object() else { return Vec::new() };
    all.iter().map(|(name, how)| (name.clone(), how["condition"].as_str().expect("a condition").to_owned())).collect()
}

#[test]
fn nothing_starts_before_what_it_needs() {
    for dependent in services() {
        for (name, condition) in waits_for(&dependent) {
            let needed = service(&name);
            match condition.as_str() {
                "service_healthy" => assert!(!needed.health_check().is_empty(), "{name} has a health check"),
                "service_completed_successfully" => {
                    assert!(needed.is_ours() && needed.role().is_none(), "{name} ends by itself");
                    assert_eq!(needed.value["restart"], "no", "{name} runs once");
                    assert_eq!(
                        needed.value["healthcheck"]["disable"], true,
                        "{name} serves nothing that could be asked"
                    );
                }
                other => panic!("{} waits for {name} with {other}", dependent.name),
            }
        }
        let needs = |name: &str| waits_for(&dependent).iter().any(|(needed, _)| needed == name);
        match dependent.words("command").first().map(String::as_str) {
            Some("topic") if dependent.is_ours() => assert!(needs("kafka")),
            Some("schema") if dependent.is_ours() => assert!(needs("scylla")),
            Some("run") if dependent.is_ours() => {
                let prepared = ours().into_iter().filter(|service| service.role().is_none());
                prepared.for_each(|step| assert!(needs(&step.name), "{} waits for {}", dependent.name, step.name));
            }
            _ => {}
        }
    }
}

#[test]
fn a_drain_is_given_the_time_that_it_may_take() {
    for service in ours().iter().filter(|service| service.role().is_some()) {
        let time = |text: &Value| text.as_str().unwrap().parse::<Span>().unwrap();
        let deadline = time(&settings(service)["shutdown.deadline"]["value"]);
        assert!(
            time(&service.value["stop_grace_period"]) > deadline,
            "{}: it would be killed while it drains",
            service.name
        );
    }
}

#[test]
fn every_port_is_published_on_loopback_alone_and_none_twice() {
    let mut published = BTreeSet::new();
    for service in services() {
        for port in service.words("ports") {
            let [host, outer, inner] = port.split(':').collect::<Vec<_>>()[..] else {
                panic!("{}: {port} is not host:port:port", service.name)
            };
            assert_eq!(host, "127.0.0.1", "{}: {port} can be reached from other machines", service.name);
            assert!(published.insert(outer.to_owned()), "{}: {outer} is published twice", service.name);
            if service.is_ours() {
                let listens = |name: &str| image_variables()[name].ends_with(&format!(":{inner}"));
                assert!(listens("TALLYMARK_LISTEN") || listens("TALLYMARK_ADMIN_LISTEN"), "{}: {port}", service.name);
            }
        }
    }
    assert!(published.len() > 5, "{published:?}");
    // Programs on the host are told where Kafka is by Kafka itself.
    let kafka = service("kafka");
    let outside = kafka.variables()["KAFKA_ADVERTISED_LISTENERS"].clone();
    let port = kafka.words("ports")[0].split(':').nth(1).unwrap().to_owned();
    assert!(outside.split(',').any(|to| to.ends_with(&format!("://localhost:{port}"))), "{outside}");
}

#[test]
fn images_are_pinned_and_what_is_mounted_is_there() {
    let named = yaml("docker-compose.yml")["volumes"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut used = BTreeSet::new();
    for service in services() {
        let image = service.value["image"].as_str().unwrap();
        if service.is_ours() {
            let build = &service.value["build"];
            assert!(path(build["dockerfile"].as_str().unwrap()).is_file() && build["context"] == ".", "{build}");
        } else {
            let tag = image.split_once(':').unwrap_or_else(|| panic!("{image} has a tag")).1;
            assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image} is not a version");
        }
        for volume in service.words("volumes") {
            let (source, target) = volume.split_once(':').expect("source:target");
            if let Some(file) = source.strip_prefix("./") {
                assert!(path(file).exists(), "{}: {file} is not in the repository", service.name);
                assert!(target.ends_with(":ro"), "{}: {volume} could be written to", service.name);
            } else {
                assert!(named.contains(source), "{}: no volume `{source}`", service.name);
                used.insert(source.to_owned());
            }
        }
    }
    assert_eq!(used, named, "every volume is used");
}
