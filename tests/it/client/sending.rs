//! `send`: retries, refusals, bounds, and what it says.

use std::{
    collections::HashSet,
    io::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tallymark::{
    client::{
        Console,
        send::{Input, Options, run},
    },
    item::Seq,
    receipt::Receipt,
};

use super::{
    Shared, eventually, file, increments, nobody, options, send,
    server::{Action, Request, Server},
};

#[tokio::test]
async fn every_line_reaches_its_endpoint_and_the_summary_counts_it() {
    let server = Server::start(Action::accept).await;
    let text = increments(1200) + "\n" + "{\"name\":\"signup\",\"subject\":\"user-17\"}\n";
    let (_folder, path) = file("items.ndjson", text);
    let mut options = options(path, &server.url);
    options.namespace = Some("tenant".to_owned());
    options.json = true;
    let ran = send(&options).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.lines, summary.items, summary.accepted, summary.exit_code()), (1201, 1201, 1201, 0));
    let requests = server.requests();
    assert_eq!((summary.requests, summary.retries), (requests.len() as u64, 0));
    assert!(requests.iter().all(|request| request.headers["tallymark-namespace"] == "tenant"));
    assert!(requests.iter().all(|request| request.headers["content-type"] == "application/x-ndjson"));
    assert!(requests.iter().all(|request| request.items().len() <= 500));
    let events = requests.iter().filter(|request| request.target == "/v1/events?partial=true").count();
    let rest = requests.iter().filter(|request| request.target == "/v1/increments?partial=true").count();
    assert_eq!((events, rest), (1, requests.len() - 1));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["accepted"], &json["rejected"], &json["bad_lines"]), (&json!(1201), &json!(0), &json!(0)));
    let receipt = Receipt::parse(json["receipt"].as_str().unwrap()).unwrap();
    assert_eq!(receipt.packs, [(0, Seq(requests.len() as u64 - 1))]);
    assert_eq!(ran.err, "");
}

#[tokio::test]
async fn a_progress_bar_changes_nothing_in_what_is_written() {
    let server = Server::start(Action::accept).await;
    let (_folder, path) = file("items.ndjson", "garbage\n".to_owned() + &increments(10));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, err: &mut err, progress: true };
    assert_eq!(run(&options(path, &server.url), &mut console).await.unwrap().accepted, 10);
    assert!(String::from_utf8(err).unwrap().starts_with("line 1: not a JSON object"));
    assert!(String::from_utf8(out).unwrap().starts_with("11 lines: 10 items accepted"));
}

#[tokio::test]
async fn bodies_can_be_compressed() {
    let server = Server::start(Action::accept).await;
    let (_folder, path) = file("items.ndjson", increments(10));
    let options = Options { gzip: true, ..options(path, &server.url) };
    assert_eq!(send(&options).await.result.unwrap().accepted, 10);
    assert_eq!(server.requests()[0].headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn an_overloaded_ingest_is_asked_again_after_its_retry_after_with_the_same_items() {
    let server = Server::start(|request: &Request| match request.index {
        0 => Action::Answer(503, vec![("retry-after", "1".to_owned())], json!({"detail": "the log is away"})),
        1 => Action::Answer(429, vec![], json!(null)),
        _ => Action::accept(request),
    })
    .await;
    let (_folder, path) = file("items.ndjson", increments(3));
    let summary = send(&options(path, &server.url)).await.result.unwrap();
    assert_eq!((summary.accepted, summary.requests, summary.retries), (3, 3, 2));
    let requests = server.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
    assert!(requests.windows(2).all(|pair| pair[0].body == pair[1].body));
}

#[tokio::test]
async fn broken_connections_cut_answers_and_silence_are_retried_with_the_same_ids() {
    let server = Server::start(|request: &Request| match request.index % 8 {
        0 | 5 => Action::Reset,
        1 => Action::Cut,
        2 => Action::Hang,
        3 => Action::status(500),
        _ => Action::accept(request),
    })
    .await;
    let (_folder, path) = file("items.ndjson", increments(2000));
    let mut options = options(path, &server.url);
    options.batch = 100;
    options.request_timeout = Duration::from_millis(200);
    let summary = send(&options).await.result.unwrap();
    assert_eq!((summary.accepted, summary.rejected), (2000, 0));
    assert!(summary.retries >= 20);
    let items = server.items();
    assert!(items.len() > 2000, "some were sent again");
    let by_id: HashSet<String> = items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    let whole: HashSet<String> = items.iter().map(ToString::to_string).collect();
    assert_eq!((by_id.len(), whole.len()), (2000, 2000));
}

#[tokio::test]
async fn an_ingest_that_starts_late_gets_everything() {
    let (socket, url) = nobody();
    let (_folder, path) = file("items.ndjson", increments(1));
    let options = options(path, &url);
    let err = Shared::default();
    let sending = {
        let (options, mut err) = (options, err.clone());
        tokio::spawn(async move {
            let mut console = Console { out: &mut std::io::sink(), err: &mut err, progress: false };
            run(&options, &mut console).await
        })
    };
    eventually("the trouble is told", || err.text().contains("accepts nothing")).await;
    let listener = socket.listen(16).unwrap();
    let answering = tokio::spawn(async move {
        let routes = axum::Router::new().route(
            "/v1/increments",
            axum::routing::post(async || (axum::http::StatusCode::ACCEPTED, r#"{"accepted":1,"receipt":"x"}"#)),
        );
        axum::serve(listener, routes).await
    });
    let summary = sending.await.unwrap().unwrap();
    answering.abort();
    assert_eq!((summary.accepted, summary.receipt.as_deref()), (1, None));
    assert!(summary.retries > 0);
    let err = err.text();
    assert_eq!(err.matches("accepts nothing").count(), 1, "{err}");
    assert!(err.contains("connection refused") && err.contains("accepts items again"), "{err}");
}

#[tokio::test]
async fn who_never_answers_is_given_up_with_exit_code_3() {
    let (_socket, gone) = nobody();
    let silent = Server::start(|_: &Request| Action::Hang).await;
    let overloaded =
        Server::start(|_: &Request| Action::Answer(429, vec![("retry-after", "60".to_owned())], json!(null))).await;
    let (_folder, path) = file("items.ndjson", increments(200_000));
    for (url, reason) in [(&gone, "connection refused"), (&silent.url, "no answer in time"), (&overloaded.url, "429")] {
        let mut options = options(&path, url);
        options.timeout = Duration::from_millis(300);
        options.first_contact = Duration::from_millis(300);
        let began = Instant::now();
        let ran = send(&options).await;
        let error = ran.result.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(error.exit_code(), 3, "{error}");
        let text = error.to_string();
        assert!(text.contains(url.as_str()) && text.contains(reason) && text.contains("counts once"), "{text}");
        // What was read by then is what fits into the requests under way and the reader's chunks.
        let lines: usize = ran.err.split_whitespace().next().unwrap().parse().unwrap();
        assert!(lines <= 4000, "{}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[tokio::test]
async fn refused_items_are_reported_by_line_and_do_not_hold_up_their_siblings() {
    let server = Server::start(|request: &Request| {
        let items = request.items();
        let bad = |(_, item): &(usize, &serde_json::Value)| item["amount"] == json!("x");
        let error =
            |(index, _)| json!({"index": index, "field": "amount", "code": "type", "message": "must be an\ninteger"});
        let rejected: Vec<_> = items.iter().enumerate().filter(bad).map(error).collect();
        match items.len() - rejected.len() {
            0 => Action::Answer(400, vec![], json!({"code": "invalid", "errors": rejected})),
            accepted => {
                Action::Answer(202, vec![], json!({"accepted": accepted, "receipt": "AA", "rejected": rejected}))
            }
        }
    })
    .await;
    let bad = "{\"counter\":\"c\",\"amount\":\"x\"}\n";
    let text = format!("{}{bad}{}not json\n{{\"name\":\"e\",\"amount\":\"x\"}}\n", increments(3), increments(2));
    let (_folder, path) = file("items.ndjson", &text);
    let ran = send(&options(path, &server.url)).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.accepted, summary.rejected, summary.bad_lines, summary.exit_code()), (5, 2, 1, 1));
    for line in [
        "line 4: increment refused: `amount`: must be an integer\n",
        "line 7: not a JSON object: each line is one increment or one event\n",
        "line 8: event refused: `amount`: must be an integer\n",
    ] {
        assert!(ran.err.contains(line), "{}", ran.err);
    }
    assert!(ran.out.starts_with("8 lines: 5 items accepted, 2 refused, 1 lines not understood"), "{}", ran.out);
}

#[tokio::test]
async fn many_bad_lines_are_named_up_to_a_bound_and_counted_beyond_it() {
    let server = Server::start(|request: &Request| {
        let errors: Vec<_> =
            (0..request.items().len().min(100)).map(|index| json!({"index": index, "message": "no"})).collect();
        Action::Answer(400, vec![], json!({"errors": errors}))
    })
    .await;
    let (_folder, path) = file("items.ndjson", "garbage\n".repeat(50) + &increments(150));
    let ran = send(&options(path, &server.url)).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.bad_lines, summary.rejected, summary.accepted), (50, 150, 0));
    assert!(ran.err.contains("and 30 more lines not understood"), "{}", ran.err);
    assert!(ran.err.contains("and 130 more items refused"), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 42);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let server = Server::start(|request: &Request| match request.items().len() {
        fits @ 1..=3 if !request.items().iter().any(|item| item["tags"]["n"] == "7") || fits > 1 => {
            Action::accept(request)
        }
        _ => Action::status(413),
    })
    .await;
    let (_folder, path) = file("items.ndjson", increments(7) + "{\"counter\":\"c\",\"tags\":{\"n\":\"7\"}}\n");
    let options = Options { batch: 7, ..options(path, &server.url) };
    let ran = send(&options).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.accepted, summary.rejected), (7, 1));
    assert!(ran.err.contains("line 8: increment refused: as the test says"), "{}", ran.err);
}

#[tokio::test]
async fn an_answer_that_is_about_every_request_ends_the_sending_with_exit_code_1() {
    let (_folder, path) = file("items.ndjson", increments(5000));
    for (status, body, part) in [
        (401, json!({"code": "unauthorized", "detail": "no key"}), "401 (unauthorized): no key"),
        (404, json!(null), "404: without saying why"),
        (302, json!(null), "302"),
        (400, json!({"detail": "malformed namespace"}), "400: malformed namespace"),
        (200, json!("hello"), "not the answer of a Tallymark ingest"),
    ] {
        let server = Server::start(move |_: &Request| Action::Answer(status, vec![], body.clone())).await;
        let ran = send(&options(&path, &server.url)).await;
        let error = ran.result.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains(part), "{error}");
        assert!(server.requests().len() <= 4);
    }
}

#[tokio::test]
async fn input_that_cannot_be_read_and_wrong_usage_are_said_before_anything_is_sent() {
    let server = Server::start(Action::accept).await;
    let (folder, path) = file("items.ndjson", increments(1));
    for (input, part) in [(folder.path().join("none"), "none`"), (folder.path().to_owned(), "directory")] {
        let error = send(&options(input, &server.url)).await.result.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains(part), "{error}");
    }
    let stdin = Options { repeat: true, ..Options::new(Input::Stdin, &server.url) };
    for wrong in [
        stdin,
        Options { batch: 0, ..options(&path, &server.url) },
        Options { batch: 10_001, ..options(&path, &server.url) },
        Options { concurrency: 0, ..options(&path, &server.url) },
        Options { rate: Some(0.0), ..options(&path, &server.url) },
        options(&path, "localhost:8080"),
    ] {
        assert_eq!(send(&wrong).await.result.unwrap_err().exit_code(), 2);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipes_lines_are_sent_while_its_writer_pauses() {
    let server = Server::start(Action::accept).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let options = options(&path, &server.url);
    let sending = tokio::spawn(async move { send(&options).await.result });
    let mut pipe =
        tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(path)).await.unwrap().unwrap();
    for count in 1..=3 {
        pipe.write_all(increments(1).as_bytes()).unwrap();
        eventually("the line is sent", || server.items().len() == count).await;
    }
    drop(pipe);
    assert_eq!(sending.await.unwrap().unwrap().accepted, 3);
}

#[tokio::test]
async fn a_loop_sends_the_file_again_and_again_with_new_ids() {
    let server = Server::start(Action::accept).await;
    let (_folder, path) = file("items.ndjson", increments(1) + "{\"name\":\"e\",\"id\":\"own\"}\n");
    let options = Options { repeat: true, rate: Some(500.0), ..options(path, &server.url) };
    tokio::select! {
        ran = send(&options) => panic!("ended: {:?}", ran.result),
        () = eventually("some rounds are sent", || server.items().len() >= 20) => {}
    }
    let items = server.items();
    let ids: HashSet<_> = items.iter().map(|item| item["id"].to_string()).collect();
    assert_eq!(ids.len(), items.len());
}

#[tokio::test]
async fn items_without_ids_stay_so_when_asked_and_retries_of_them_are_told() {
    let server = Server::start(|request: &Request| match request.index {
        0 => Action::status(503),
        _ => Action::accept(request),
    })
    .await;
    let (_folder, path) = file("items.ndjson", increments(1));
    let ran = send(&Options { make_ids: false, ..options(path, &server.url) }).await;
    assert_eq!(ran.result.unwrap().accepted, 1);
    assert!(server.items().iter().all(|item| item.get("id").is_none()));
    assert!(ran.err.contains("may have counted twice"), "{}", ran.err);
}
