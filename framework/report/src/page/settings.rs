//! In which settings the rows of a group differ.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Member};

/// A group's settings: those that all rows share, and each row's own.
pub(super) struct Settings {
    /// `key = value` of every setting that all rows have alike.
    pub shared: Vec<String>,
    /// For each row, what is not shared.
    pub own: Vec<Vec<String>>,
}

/// Sorts the settings of a group's rows.
pub(super) fn settings(group: &Group<'_>) -> Settings {
    let all: Vec<BTreeMap<String, BTreeSet<String>>> = group.members.iter().map(of).collect();
    let is_shared =
        |key: &String, value: &BTreeSet<String>| all.iter().all(|o| o.get(key) == Some(value));
    let say = |(key, values): (&String, &BTreeSet<String>)| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        format!("{key} = {}", values.join(" or "))
    };
    let first = all.first().cloned().unwrap_or_default();
    let one_row = all.len() == 1;
    Settings {
        shared: first.iter().filter(|(k, v)| !one_row && is_shared(k, v)).map(say).collect(),
        own: all
            .iter()
            .map(|o| o.iter().filter(|(k, v)| one_row || !is_shared(k, v)).map(say).collect())
            .collect(),
    }
}

/// The values that each setting has in the runs of a row.
fn of(member: &Member<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for run in &member.runs {
        let identity = &run.record.identity;
        let mut say = |key: &str, value: String| {
            all.entry(key.to_owned()).or_default().insert(value);
        };
        identity.config.iter().for_each(|(key, value)| say(key, value.to_string()));
        say("version of the method", identity.method_version.clone());
        say("dtype", identity.dtype.clone());
        say("device", identity.device.clone());
        say("version of cilbench", run.record.code_version.clone());
        say("program", run.record.code_hash.get(..12).unwrap_or_default().to_owned());
        say("processor", run.record.machine.processor.clone());
        say("threads", run.record.machine.threads.to_string());
    }
    all
}
