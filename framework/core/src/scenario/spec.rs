//! Scenario files: a few lines of TOML.

use serde::{Deserialize, Serialize};

use super::ClassOrder;
use crate::{Error, Result};

/// A scenario, as its file states it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioSpec {
    /// The name on the command line.
    pub name: String,
    /// One line.
    pub summary: String,
    /// The data set's name.
    pub dataset: String,
    /// The number of tasks; the classes are shared out evenly.
    pub tasks: usize,
    /// The class order, unless the user wants another.
    #[serde(default = "natural")]
    pub class_order: ClassOrder,
    /// The side of the images, in pixels, unless the user or the backbone wants another.
    pub image_size: Option<usize>,
}

fn natural() -> ClassOrder {
    ClassOrder::Natural
}

impl ScenarioSpec {
    const KEYS: [&str; 6] = ["name", "summary", "dataset", "tasks", "class_order", "image_size"];

    /// Reads a scenario file's text; `file` is used in messages.
    ///
    /// # Errors
    /// [`Error::Usage`] that names file and key.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let table: toml::Table = toml::from_str(text).map_err(|e| Error::usage(format!("{file}: {e}")))?;
        if let Some(key) = table.keys().find(|k| !Self::KEYS.contains(&k.as_str())) {
            return Err(Error::usage(format!("{file}: {}", Error::unknown("key", key, Self::KEYS))));
        }
        table.try_into().map_err(|e| Error::usage(format!("{file}: {e}")))
    }
}

/// The registry entry of a scenario file.
pub struct ScenarioEntry {
    /// The file's name, for messages.
    pub file: &'static str,
    /// Its text.
    pub toml: &'static str,
}

inventory::collect!(ScenarioEntry);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_named() {
        let text = "name = 'x'\nsummary = 's'\ndataset = 'd'\ntask = 3";
        assert!(
            ScenarioSpec::parse(text, "x.toml")
                .expect_err("must fail")
                .to_string()
                .contains("x.toml: unknown key 'task': did you mean 'tasks'?")
        );
    }
}
