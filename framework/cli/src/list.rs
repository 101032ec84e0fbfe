//! `cilbench list` and `cilbench describe`.

use cilbench::method::{Access, MethodEntry};
use cilbench::plugin::Plugin;
use cilbench::scenario::{ScenarioKind, ScenarioSpec, Tasks};
use cilbench::{Error, Result, backbone, data, method, scenario};
use comfy_table::{ContentArrangement, Table, presets};

use crate::args::Kind;

/// A plain table that fits the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

pub(crate) fn list(what: Kind) -> Result<()> {
    let mut out;
    match what {
        Kind::Methods => {
            out = table(&["method", "summary", "from"]);
            let from = |e: &MethodEntry| e.origin.plugin().map_or("built in".to_owned(), Plugin::short);
            out.add_rows(method::all().iter().map(|e| [e.about.name.to_owned(), e.about.summary.to_owned(), from(e)]));
        }
        Kind::Scenarios => {
            out = table(&["scenario", "summary", "data set"]);
            out.add_rows(scenario::all()?.iter().map(|s| [&s.name, &s.summary, &s.dataset]));
        }
        Kind::Backbones => {
            out = table(&["backbone", "summary"]);
            out.add_rows(backbone::all().iter().map(|e| [e.name, e.summary]));
        }
        Kind::Datasets => {
            out = table(&["data set", "summary", "needs"]);
            out.add_rows(data::all().iter().map(|e| [e.name, e.summary, if e.files.is_empty() { "nothing" } else { e.files }]));
        }
    }
    println!("{out}");
    Ok(())
}

pub(crate) fn describe(name: &str) -> Result<()> {
    if let Some(entry) = method::all().into_iter().find(|e| e.about.name == name) {
        describe_method(entry);
    } else if let Some(s) = scenario::all()?.into_iter().find(|s| s.name == name) {
        println!("scenario {}: {}", s.name, s.summary);
        println!("data set: {} (cilbench describe {})", s.dataset, s.dataset);
        println!("{}", tasks(&s));
        println!("class order: {} (--class-order natural|seed:<n>|FILE)", s.class_order);
        if let Some(split) = &s.split {
            println!("split: {split} (--split)");
        }
        println!("image size: {}", s.image_size.map_or("the backbone's".to_owned(), |n| n.to_string()));
    } else if let Some(e) = data::all().into_iter().find(|e| e.name == name) {
        println!("data set {}: {}\nsource: {}", e.name, e.summary, e.source);
        println!("needs: {}", if e.files.is_empty() { "nothing, it is embedded" } else { e.files });
        if let Some(hub) = e.hub {
            println!("download: cilbench data fetch {} (huggingface.co/datasets/{})", e.name, hub.repo);
        }
        let mut out = table(&["split", "training", "test", "meaning"]);
        let count = |n: Option<usize>| n.map_or("–".to_owned(), |n| n.to_string());
        out.add_rows(
            e.splits.iter().map(|s| [s.name.to_owned(), count(s.images.map(|i| i.0)), count(s.images.map(|i| i.1)), s.summary.to_owned()]),
        );
        println!("{out}\nThe first is the default.");
    } else if let Some(e) = backbone::all().into_iter().find(|e| e.name == name) {
        println!("backbone {}: {}", e.name, e.summary);
    } else {
        let scenarios = scenario::all()?;
        let methods = method::all();
        let mut names: Vec<&str> = methods.iter().map(|e| e.about.name).collect();
        names.extend(scenarios.iter().map(|s| s.name.as_str()));
        names.extend(data::all().iter().map(|e| e.name));
        names.extend(backbone::all().iter().map(|e| e.name));
        return Err(Error::unknown("method, scenario, data set or backbone", name, names));
    }
    Ok(())
}

/// What a scenario file says of its tasks, in words.
fn tasks(s: &ScenarioSpec) -> String {
    match (s.kind, &s.tasks, s.base.zip(s.increment)) {
        (ScenarioKind::DomainIncremental, ..) => {
            format!("tasks: domain-incremental, {}", s.domains.as_ref().map_or("one a domain".to_owned(), |d| d.join(", ")))
        }
        (_, Some(Tasks::Count(n)), _) => format!("tasks: {n}, the classes shared out evenly"),
        (_, Some(Tasks::Lists(lists)), _) => format!("tasks: {}, of the classes it lists", lists.len()),
        (_, _, Some((base, k))) => format!("tasks: {base} classes, then {k} a task"),
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
        let values: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        println!("On the data set {dataset} the defaults are: {}.", values.join(", "));
    }
    println!("Set one with --set key=value, several with --config FILE (TOML).\n\n{}", about.paper);
}
