//! The files of a deployment, read: `docker-compose.yml`, `deploy/`, `.dockerignore`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The image that `deploy/Dockerfile` makes.
pub const OURS: &str = "tallymark";

/// A path in the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the repository.
pub fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A YAML file of the repository, its anchors and merges resolved.
pub fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A service of `docker-compose.yml`.
pub struct Service {
    /// What the others call it.
    pub name: String,
    /// All that is said about it.
    pub value: Value,
}

impl Service {
    /// The words of one of its lists, e.g. its command; none when it has no such list.
    pub fn words(&self, key: &str) -> Vec<String> {
        words(&self.value[key], &format!("{}.{key}", self.name))
    }

    /// The words of its health check; none when it has none.
    pub fn health_check(&self) -> Vec<String> {
        words(&self.value["healthcheck"]["test"], &format!("{}.healthcheck", self.name))
    }

    /// Its variables. Compose takes nothing but text for them.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let Some(variables) = self.value["environment"].as_object() else { return BTreeMap::new() };
        let text = |(name, value): (&String, &Value)| {
            let value = value.as_str().unwrap_or_else(|| panic!("{}: {name} is not text; quote it", self.name));
            (name.clone(), value.to_owned())
        };
        variables.iter().map(text).collect()
    }

    /// Whether it runs the program.
    pub fn is_ours(&self) -> bool {
        self.value["image"] == OURS
    }

    /// The role that it runs, when it serves rather than does one thing and ends.
    pub fn role(&self) -> Option<String> {
        match self.words("command").as_slice() {
            [run, role] if self.is_ours() && run == "run" => Some(role.clone()),
            _ => None,
        }
    }
}

/// A list of text.
pub fn words(list: &Value, what: &str) -> Vec<String> {
    let Some(list) = list.as_array() else { return Vec::new() };
    list.iter()
        .map(|word| word.as_str().unwrap_or_else(|| panic!("{what}: {word} is not text; quote it")).to_owned())
        .collect()
}

/// Every service.
pub fn services() -> Vec<Service> {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_object().expect("there are services");
    services.iter().map(|(name, value)| Service { name: name.clone(), value: value.clone() }).collect()
}

/// The services that run the program.
pub fn ours() -> Vec<Service> {
    let ours: Vec<_> = services().into_iter().filter(Service::is_ours).collect();
    assert!(!ours.is_empty(), "no service runs the image `{OURS}`");
    ours
}

/// The service of this name.
pub fn service(name: &str) -> Service {
    services().into_iter().find(|service| service.name == name).unwrap_or_else(|| panic!("no service `{name}`"))
}

/// The instructions of `deploy/Dockerfile`, each with the rest of its line and of the lines that continue it.
pub fn instructions() -> Vec<(String, String)> {
    let lines: Vec<_> =
        read("deploy/Dockerfile").lines().filter(|line| !line.starts_with('#')).map(String::from).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .map(|(instruction, rest)| (instruction.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// What follows the last such instruction of the Dockerfile.
pub fn instruction(name: &str) -> String {
    let found = instructions().into_iter().rev().find(|(instruction, _)| instruction == name);
    found.unwrap_or_else(|| panic!("deploy/Dockerfile has no {name}")).1
}

/// The variables that the image sets.
pub fn image_variables() -> BTreeMap<String, String> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    instruction("ENV").split(' ').map(|word| pair(word).unwrap_or_else(|| panic!("ENV {word}"))).collect()
}

/// The command of the image's health check.
pub fn health_check() -> Vec<String> {
    let check = instruction("HEALTHCHECK");
    let (_, command) = check.split_once("CMD ").expect("HEALTHCHECK has a command");
    let command =
        serde_json::from_str(command).expect("the health check is a list of words: the image need not have a shell");
    words(&command, "HEALTHCHECK")
}
