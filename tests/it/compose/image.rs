//! `deploy/Dockerfile`: what it copies, whom it runs as, and its health check, tried on a process that runs.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use super::{
    files::{health_check, image_variables, instruction, instructions, path, read},
    tallymark, words,
};
use crate::e2e::process::Server;

#[test]
fn the_image_runs_the_program_as_a_user_of_its_own() {
    let stages: Vec<_> = instructions().into_iter().filter(|(name, _)| name == "FROM").map(|(_, from)| from).collect();
    assert!(stages.len() > 1, "what builds the program is not shipped: {stages:?}");
    assert!(!stages.last().unwrap().starts_with("rust:"), "{stages:?}");
    let user = instruction("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
    assert_eq!(instruction("ENTRYPOINT"), r#"["tallymark"]"#, "signals reach the program itself");
    let command: Vec<String> = serde_json::from_str(&instruction("CMD")).unwrap();
    let (code, _, err) = tallymark(
        &[words("validate --no-connect"), words("--role"), command[1..].to_vec()].concat(),
        &image_variables(),
    );
    assert_eq!((code, command[0].as_str()), (0, "run"), "{err}");
    // What is copied from the first stage was put there.
    let copies: Vec<_> =
        instructions().into_iter().filter(|(name, rest)| name == "COPY" && rest.starts_with("--from=")).collect();
    let [(_, copy)] = copies.as_slice() else { panic!("{copies:?}") };
    let [from, built, installed] = copy.split(' ').collect::<Vec<_>>()[..] else { panic!("COPY {copy}") };
    assert!(stages[0].ends_with(&format!(" AS {}", from.trim_start_matches("--from="))), "{stages:?}");
    assert!(instructions().iter().any(|(name, run)| name == "RUN" && run.ends_with(&format!(" {built}"))), "{built}");
    assert_eq!(installed, "/usr/local/bin/tallymark");
}

#[test]
fn the_image_s_compiler_is_new_enough() {
    let number = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
    let from = instructions().into_iter().find(|(name, _)| name == "FROM").unwrap().1;
    let image = from.strip_prefix("rust:").and_then(|rest| rest.split('-').next()).expect("it is Rust's own image");
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let wanted = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(number(image) >= number(wanted), "rust:{image} is older than {wanted}");
}

#[test]
fn the_build_is_given_all_that_the_program_is_made_from() {
    let ignored = read(".dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "nothing is sent but what is named");
    let sent: Vec<_> = lines.map(|line| path(line.strip_prefix('!').unwrap_or_else(|| panic!("{line}")))).collect();
    sent.iter().for_each(|sent| assert!(sent.exists(), "{} is not there", sent.display()));
    let is_sent = |file: &Path| sent.iter().any(|sent| file.starts_with(sent));

    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    for named in ["bench", "test"].into_iter().flat_map(|kind| manifest[kind].as_array().unwrap()) {
        assert!(is_sent(&path(named["path"].as_str().unwrap())), "Cargo.toml names {named}");
    }
    for file in ["Cargo.toml", "Cargo.lock", "src/main.rs", "build.rs"] {
        assert!(is_sent(&path(file)) || !path(file).exists(), "{file} is not sent");
    }
    let mut included = 0;
    for source in sources(&path("src")) {
        let text = std::fs::read_to_string(&source).unwrap();
        for call in ["include_str!(\"", "include_bytes!(\""] {
            for name in text.split(call).skip(1).filter_map(|rest| rest.split('"').next()) {
                let file = plain(&source.parent().unwrap().join(name));
                assert!(file.exists() && is_sent(&file), "{} includes {name}, which is not sent", source.display());
                included += 1;
            }
        }
    }
    assert!(included > 0, "the dashboard is included");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
        path
    })
}

#[test]
fn the_health_check_tells_a_process_that_answers_from_one_that_does_not() {
    let check = health_check();
    assert_eq!(check[0], "tallymark", "the image has no other program to ask with");
    let address = image_variables()["TALLYMARK_ADMIN_LISTEN"].replace("0.0.0.0", "127.0.0.1");
    let url =
        check.iter().position(|word| *word == format!("http://{address}")).expect("it asks where the image listens");

    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let mut asked = check[1..].to_vec();
    asked[url - 1].clone_from(&server.admin);
    let (code, _, err) = tallymark(&asked, &image_variables());
    assert_eq!(code, 0, "{err}");
    server.kill();
    let (code, _, err) = tallymark(&asked, &image_variables());
    assert_ne!(code, 0, "{err}");
    let (code, _, err) = tallymark(&asked, &BTreeMap::new());
    assert_ne!(code, 0, "{err}");
}
