//! Prometheus and Grafana: every metric and label that they name is one of the catalogue's, and they find the processes.

use std::collections::BTreeSet;

use serde_json::Value;
use tallymark::metrics::{CATALOGUE, Metric, Shape};

use super::files::{Service, image_variables, ours, path, read, service, words, yaml};

/// An expression with the object that it is part of.
struct Expression {
    text: String,
    around: Value,
}

/// Every `expr` anywhere in a file.
fn expressions(value: &Value) -> Vec<Expression> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            if let Some(text) = fields.get("expr").and_then(Value::as_str) {
                found.push(Expression { text: text.to_owned(), around: value.clone() });
            }
            found.extend(fields.values().flat_map(expressions));
        }
        Value::Array(values) => found.extend(values.iter().flat_map(expressions)),
        _ => {}
    }
    found
}

/// The names in a text, with where each begins.
fn names(text: &str) -> Vec<(usize, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = Vec::new();
    let mut rest = 0;
    while let Some(start) = text[rest..].find(part).map(|at| rest + at) {
        let end = text[start..].find(|c| !part(c)).map_or(text.len(), |at| start + at);
        names.push((start, &text[start..end]));
        rest = end;
    }
    names
}

/// The metric behind a series' name: a histogram has three series, none of them of its own name.
fn metric(series: &str) -> &'static Metric {
    let with = |suffix: &str| {
        let of = series.strip_suffix(suffix)?;
        CATALOGUE.iter().find(|metric| metric.name == of && matches!(metric.shape, Shape::Histogram(_)))
    };
    let plain = CATALOGUE.iter().find(|metric| metric.name == series && !matches!(metric.shape, Shape::Histogram(_)));
    let found = plain.or_else(|| ["_bucket", "_sum", "_count"].into_iter().find_map(with));
    found.unwrap_or_else(|| panic!("`{series}` is no series of the catalogue in src/metrics.rs"))
}

/// Checks one expression, and what is written with its labels.
fn check(file: &str, expression: &Expression) {
    let text = &expression.text;
    let series: Vec<_> = names(text).into_iter().filter(|(_, name)| name.starts_with("tallymark_")).collect();
    assert!(!series.is_empty(), "{file}: `{text}` names no metric of ours");
    let mut labels: BTreeSet<_> = BTreeSet::from(["instance", "job"]);
    for (at, name) in &series {
        let metric = metric(name);
        labels.extend(metric.labels);
        if name.ends_with("_bucket") {
            labels.insert("le");
        }
        if metric.shape != Shape::Gauge {
            let risen = ["rate(", "increase("].iter().any(|call| text[..*at].ends_with(call));
            assert!(risen, "{file}: {name} only rises; `{text}` shows it without rate or increase");
        }
    }
    let mut used = BTreeSet::new();
    for list in text.split("by (").skip(1) {
        used.extend(list.split(')').next().unwrap().split(',').map(|label| label.trim().to_owned()));
    }
    for selector in text.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        used.extend(selector.split(',').map(|pair| pair.split(['=', '!']).next().unwrap().trim().to_owned()));
    }
    let legend = expression.around["legendFormat"].as_str().unwrap_or_default();
    used.extend(legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim().to_owned()));
    let notes = expression.around["annotations"].to_string();
    used.extend(notes.split("$labels.").skip(1).map(|rest| names(rest)[0].1.to_owned()));
    for label in used {
        assert!(labels.contains(label.as_str()), "{file}: `{text}` has no label `{label}`; it has {labels:?}");
    }
}

/// The dashboards, by the name of their file.
fn dashboards() -> Vec<(String, Value)> {
    let folder = std::fs::read_dir(path("deploy/grafana/dashboards")).unwrap();
    let dashboards: Vec<_> = folder
        .map(|entry| format!("deploy/grafana/dashboards/{}", entry.unwrap().file_name().to_string_lossy()))
        .map(|name| {
            (name.clone(), serde_json::from_str(&read(&name)).unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    assert!(!dashboards.is_empty());
    dashboards
}

#[test]
fn every_metric_of_the_dashboards_and_alerts_exists_with_those_labels() {
    let mut files = dashboards();
    files.push(("deploy/alerts.yml".to_owned(), yaml("deploy/alerts.yml")));
    for (name, value) in files {
        let expressions = expressions(&value);
        assert!(expressions.len() > 2, "{name} has expressions");
        expressions.iter().for_each(|expression| check(&name, expression));
    }
}

#[test]
#[should_panic(expected = "tallymark_http_request_seconds` is no series")]
fn a_histogram_has_no_series_of_its_own_name() {
    check("a test", &Expression { text: "rate(tallymark_http_request_seconds[1m])".to_owned(), around: Value::Null });
}

#[test]
#[should_panic(expected = "no label `counter`")]
fn a_label_that_no_metric_has_is_found() {
    let text = "sum by (counter) (rate(tallymark_ingest_items_total[1m]))".to_owned();
    check("a test", &Expression { text, around: Value::Null });
}

#[test]
fn prometheus_asks_the_admin_port_of_every_process() {
    let port = image_variables()["TALLYMARK_ADMIN_LISTEN"].rsplit(':').next().unwrap().parse::<u64>().unwrap();
    let config = yaml("deploy/prometheus.yml");
    let mut asked = BTreeSet::new();
    for job in config["scrape_configs"].as_array().unwrap() {
        assert!(job["metrics_path"].is_null(), "it is /metrics");
        for found in job["dns_sd_configs"].as_array().unwrap() {
            assert_eq!((&found["type"], found["port"].as_u64()), (&Value::from("A"), Some(port)));
            asked.extend(words(&found["names"], "names"));
        }
    }
    let serving: BTreeSet<_> =
        ours().iter().filter(|ours| ours.role().is_some()).map(|ours| ours.name.clone()).collect();
    assert_eq!(asked, serving);
    for rules in words(&config["rule_files"], "rule_files") {
        assert!(mounts(&service("prometheus")).iter().any(|(_, inside)| *inside == rules), "{rules} is not mounted");
    }
}

/// The files and folders that a service is given: where they are here, and where there.
fn mounts(service: &Service) -> Vec<(String, String)> {
    let mounts = service.words("volumes").into_iter().filter_map(|volume| {
        let [here, there, _] = volume.strip_prefix("./")?.split(':').collect::<Vec<_>>()[..] else {
            panic!("{volume}")
        };
        Some((here.to_owned(), there.to_owned()))
    });
    mounts.collect()
}

#[test]
fn grafana_finds_prometheus_and_the_dashboard() {
    let grafana = service("grafana");
    let there = |file: &str| {
        let mounts = mounts(&grafana);
        let (here, there) = mounts
            .iter()
            .find(|(here, _)| file.starts_with(here.as_str()))
            .unwrap_or_else(|| panic!("{file} is not mounted"));
        format!("{there}{}", &file[here.len()..])
    };
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let [source] = sources["datasources"].as_array().unwrap().as_slice() else { panic!("{sources}") };
    let url = source["url"].as_str().unwrap();
    let (host, port) = url.strip_prefix("http://").unwrap().split_once(':').unwrap();
    assert!(service(host).words("ports").iter().any(|ports| ports.ends_with(&format!(":{port}"))), "{url}");
    assert_eq!(
        there("deploy/grafana/provisioning/datasources/prometheus.yml"),
        "/etc/grafana/provisioning/datasources/prometheus.yml"
    );

    let providers = yaml("deploy/grafana/provisioning/dashboards/tallymark.yml");
    assert_eq!(
        there("deploy/grafana/provisioning/dashboards/tallymark.yml"),
        "/etc/grafana/provisioning/dashboards/tallymark.yml"
    );
    let folder = providers["providers"][0]["options"]["path"].as_str().unwrap().to_owned();
    for (name, dashboard) in dashboards() {
        assert!(there(&name).starts_with(&folder), "{name} is not in {folder}");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: two panels are {}", panel["id"]);
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], source["uid"], "{name}: {}", panel["title"]);
            }
        }
    }
    let home = &grafana.variables()["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert!(dashboards().iter().any(|(name, _)| there(name) == *home), "{home}");
}
