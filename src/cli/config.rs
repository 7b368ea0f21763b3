//! `tallymark config show`: what is in force, even when something is wrong with it.

use crate::{
    config::{Config, Layers, Role, show_json, show_text},
    exit::{Exit, Failure},
};

/// Prints every setting and its source; what is wrong is said after it, and the exit code is 2.
pub fn show(layers: Layers, role: Role, json: bool) -> Result<Exit, Failure> {
    let (settings, problems) = layers.resolve(role);
    super::print(&if json { show_json(&settings) } else { show_text(&settings) })?;
    Config::read(settings, problems, role)?;
    Ok(Exit::Done)
}
