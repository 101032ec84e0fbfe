//! `cilbench describe`: explains a method, a scenario, a data set or a backbone.

use cilbench::data::DatasetEntry;
use cilbench::method::{Access, MethodEntry};
use cilbench::scenario::{ScenarioKind, ScenarioSpec, Tasks};
use cilbench::{Error, Result, backbone, data, method, scenario};

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;

#[derive(clap::Args)]
pub(crate) struct Describe {
    /// The name of what is explained
    name: String,
}

impl Execute for Describe {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        describe(&self.name)
    }
}

fn describe(name: &str) -> Result<()> {
    let (methods, scenarios) = (method::all(), scenario::all()?);
    if let Some(entry) = methods.iter().find(|e| e.about.name == name) {
        describe_method(entry);
    } else if let Some(spec) = scenarios.iter().find(|s| s.name == name) {
        describe_scenario(spec);
    } else if let Some(entry) = data::all().into_iter().find(|e| e.name == name) {
        describe_dataset(entry);
    } else if let Some(entry) = backbone::all().into_iter().find(|e| e.name == name) {
        println!("backbone {}: {}", entry.name, entry.summary);
    } else {
        let mut names: Vec<&str> = methods.iter().map(|e| e.about.name).collect();
        names.extend(scenarios.iter().map(|s| s.name.as_str()));
        names.extend(data::all().iter().map(|e| e.name));
        names.extend(backbone::all().iter().map(|e| e.name));
        return Err(Error::unknown("method, scenario, data set or backbone", name, names));
    }
    Ok(())
}

fn describe_scenario(spec: &ScenarioSpec) {
    println!("scenario {}: {}", spec.name, spec.summary);
    println!("data set: {} (cilbench describe {})", spec.dataset, spec.dataset);
    println!("{}", tasks(spec));
    println!("class order: {} (--class-order natural|seed:<n>|FILE)", spec.class_order);
    if let Some(split) = &spec.split {
        println!("split: {split} (--split)");
    }
    println!(
        "image size: {}",
        spec.image_size.map_or("the backbone's".to_owned(), |n| n.to_string())
    );
}

fn describe_dataset(entry: &DatasetEntry) {
    println!("data set {}: {}\nsource: {}", entry.name, entry.summary, entry.source);
    println!(
        "needs: {}",
        if entry.files.is_empty() { "nothing, it is embedded" } else { entry.files }
    );
    if let Some(hub) = entry.hub {
        println!(
            "download: cilbench data fetch {} (huggingface.co/datasets/{})",
            entry.name, hub.repo
        );
    }
    let mut out = table(&["split", "training", "test", "meaning"]);
    let count = |n: Option<usize>| n.map_or("–".to_owned(), |n| n.to_string());
    for split in entry.splits {
        let (train, test) = (count(split.images.map(|i| i.0)), count(split.images.map(|i| i.1)));
        out.add_row([split.name.to_owned(), train, test, split.summary.to_owned()]);
    }
    println!("{out}\nThe first is the default.");
}

/// A description of a scenario's tasks.
fn tasks(s: &ScenarioSpec) -> String {
    match (s.kind, &s.tasks, s.base.zip(s.increment)) {
        (ScenarioKind::DomainIncremental, ..) => {
            format!(
                "tasks: domain-incremental, {}",
                s.domains.as_ref().map_or("one per domain".to_owned(), |d| d.join(", "))
            )
        }
        (_, Some(Tasks::Count(n)), _) => format!("tasks: {n}, the classes shared out evenly"),
        (_, Some(Tasks::Lists(lists)), _) => {
            format!("tasks: {}, of the classes it lists", lists.len())
        }
        (_, _, Some((base, k))) => format!("tasks: {base} classes, then {k} per task"),
        _ => "tasks: none".to_owned(),
    }
}

fn describe_method(entry: &MethodEntry) {
    let about = &entry.about;
    println!("method {} (version {}): {}\n", about.name, about.version, about.summary);
    println!("trains: {}", about.trains);
    let sees = match about.access {
        Access::Stream => "only the current task's images",
        Access::Memory => "the current task's images and the exemplars it stored",
        Access::All => "all images seen so far",
    };
    println!("sees: {sees}\nfrom: {}\n", entry.origin);
    let mut out = table(&["hyper-parameter", "default", "meaning"]);
    out.add_rows(entry.fields().into_iter().map(|f| [f.key, f.default.to_string(), f.doc]));
    println!("{out}\n");
    for (dataset, values) in entry.presets() {
        let values: Vec<String> =
            values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        println!("Defaults on the data set {dataset}: {}.", values.join(", "));
    }
    println!("Set one with --set key=value, several with --config FILE (TOML).\n\n{}", about.paper);
}
