//! `cilbench run`: a method over a scenario, into a run folder.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cilbench::backbone::{self, BackboneOptions};
use cilbench::config::{Layer, parse_setting, read_file};
use cilbench::method::{self, MethodEntry, Setup};
use cilbench::results::{Identity, Record, RunFolder};
use cilbench::run::{RunPlan, execute, pretraining_warning};
use cilbench::scenario::{self, ClassIncremental, Scenario, ScenarioOptions};
use cilbench::toml::{Table, Value};
use cilbench::{Error, Result, data, device};

use crate::args::RunArgs;
use crate::list::table;
use crate::progress::Display;

static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let entry = method::find(&args.method)?;
    let spec = scenario::find(&args.scenario)?;
    let dataset = data::find(&spec.dataset)?;
    let config = entry.configure(&spec.dataset, &layers(args)?)?;
    let device = device::open(&args.device)?;
    let (dtype, precision) = args.dtype.dtype();

    let backbone_name = args.backbone.clone().unwrap_or_else(|| if args.weights.is_some() { "vit" } else { "vit-nano" }.to_owned());
    let backbone_options = BackboneOptions {
        weights: args.weights.clone(),
        image_size: args.image_size.or(spec.image_size),
        heads: args.heads,
        mean: triple("--mean", args.mean.as_deref())?,
        std: triple("--std", args.std.as_deref())?,
    };
    let backbone = (backbone::find(&backbone_name)?.build)(&backbone_options, dtype, &device)?;
    let info = backbone.info().clone();
    // Every hyper-parameter is checked here, before an image is read.
    let mut method = entry.build(&config, Setup { backbone, device: device.clone(), dtype })?;

    let options = ScenarioOptions {
        class_order: args.class_order.as_deref().map(str::parse).transpose()?,
        image_size: Some(info.image_size),
        train_per_class: args.train_per_class,
        test_per_class: args.test_per_class,
        data_root: args.data_root.clone(),
    };
    let mut scenario = ClassIncremental::open(&spec, &options)?;
    let warnings: Vec<String> = pretraining_warning(&info.pretrained_on, dataset.name, dataset.aliases).into_iter().collect();
    let identity = Identity {
        method: entry.about.name.to_owned(),
        method_version: entry.about.version.to_owned(),
        config,
        scenario: scenario.info().clone(),
        backbone: info,
        // The file's hash says which weights; where they lie does not change a number.
        backbone_options: BackboneOptions { weights: None, ..backbone_options },
        seed: args.seed,
        dtype: precision.to_owned(),
        device: args.device.clone(),
    };
    let out = args.out.clone().unwrap_or_else(|| default_folder(&identity));
    let (mut folder, finished) = RunFolder::open(&out, &identity)?;
    eprintln!(
        "{} on {} (data id {}), backbone {}, seed {}",
        args.method, args.scenario, identity.scenario.data_id, identity.backbone.name, args.seed
    );
    warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if let Some(record) = finished {
        eprintln!("this very run is finished already; its result, from {}:", out.display());
        summarise(&record, entry, &folder);
        return Ok(());
    }
    // A second Ctrl-C while the first is being honoured changes nothing.
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).map_err(|e| Error::Protocol(format!("Ctrl-C cannot be caught: {e}")))?;
    let mut record = Record::new(identity, warnings);
    let plan = RunPlan { seed: args.seed, access: entry.about.access, dtype, device: &device, stop: &STOP };
    execute(&plan, &mut scenario, &mut *method, &mut folder, &mut record, &mut Display::new())
        .map_err(|error| in_folder(error, &folder))?;
    summarise(&record, entry, &folder);
    if args.scenario == "split-fashion-mnist-5" {
        println!("\nTry next:\n  cilbench run --method lora        the same without protection against forgetting");
        println!("  cilbench describe {}        its paper and every hyper-parameter", args.method);
        println!("  cilbench run --scenario cifar100-10 --data-root DIR --weights FILE        a real data set and backbone");
    }
    Ok(())
}

/// The same error, saying where what was finished is kept.
fn in_folder(error: Error, folder: &RunFolder) -> Error {
    let place = format!(" (see {})", folder.path().display());
    match error {
        Error::Interrupted(text) => Error::Interrupted(text + &place),
        Error::Diverged(text) => Error::Diverged(text + &place),
        other => other,
    }
}

/// The user's settings: the file, then `--set`, then the flags that stand for a key.
fn layers(args: &RunArgs) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    if let Some(path) = &args.config {
        layers.push(Layer { origin: path.display().to_string(), table: read_file(path)? });
    }
    for setting in &args.set {
        layers.push(Layer { origin: "--set".into(), table: Table::from_iter([parse_setting(setting)?]) });
    }
    for (flag, key, value) in [("--epochs", "epochs", args.epochs), ("--batch-size", "batch_size", args.batch_size)] {
        if let Some(value) = value {
            layers.push(Layer { origin: flag.into(), table: Table::from_iter([(key.to_owned(), Value::Integer(value))]) });
        }
    }
    Ok(layers)
}

fn triple(flag: &str, values: Option<&[f64]>) -> Result<Option<[f64; 3]>> {
    let Some(values) = values else { return Ok(None) };
    let bad = |_| Error::usage(format!("{flag}: expected three numbers, as in 0.5,0.5,0.5, got {}", values.len()));
    <[f64; 3]>::try_from(values).map(Some).map_err(bad)
}

/// `runs/<scenario>/<method>-<hash>`: another configuration is another folder.
fn default_folder(identity: &Identity) -> PathBuf {
    let text = serde_json::to_string(identity).unwrap_or_default();
    let hash = cilbench::sha256(text.as_bytes());
    PathBuf::from("runs").join(&identity.scenario.name).join(format!("{}-seed{}-{}", identity.method, identity.seed, &hash[..8]))
}

fn summarise(record: &Record, entry: &MethodEntry, folder: &RunFolder) {
    let tasks = record.tasks.len();
    let mut header = vec!["after task".to_owned()];
    header.extend((1..=tasks).map(|i| format!("{i}")));
    header.extend(["all".to_owned(), "drift".to_owned()]);
    if tasks <= 10 {
        let mut out = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
        for (t, task) in record.tasks.iter().enumerate() {
            let mut row = vec![format!("{}", t + 1)];
            row.extend((0..tasks).map(|i| task.scores.by_task.get(i).map_or(String::new(), |a| format!("{a:.1}"))));
            row.extend([format!("{:.2}", task.scores.accuracy), task.relation_drift.map_or(String::new(), |d| format!("{d:.3}"))]);
            out.add_row(row);
        }
        println!("\naccuracy (%) on each task's test images, {}\n{out}", entry.about.name);
    }
    let s = &record.summary;
    let mut out = table(&["last", "avg", "forgetting", "bwt", "relation drift", "images/s", "trained", "carried"]);
    let drift = record.relation_drift.map_or("–".to_owned(), |d| format!("{d:.4}"));
    let carried = format!("{:.2} MB", record.costs.carried_bytes as f64 / 1e6);
    let [last, avg, forgetting, bwt] = [s.last, s.avg, s.forgetting, s.bwt].map(|v| format!("{v:.2}"));
    out.add_row([
        last,
        avg,
        forgetting,
        bwt,
        drift,
        format!("{:.0}", record.costs.images_per_second),
        record.costs.trained_parameters.to_string(),
        carried,
    ]);
    println!("{out}");
    record.warnings.iter().for_each(|w| println!("warning: {w}"));
    println!("written to {}", folder.path().display());
}
