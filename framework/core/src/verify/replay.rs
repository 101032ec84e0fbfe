//! The replay of one fixture.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use toml::{Table, Value};

use super::Outcome;
use super::compare::Comparison;
use super::fixture::{Fixture, FixtureFeed, FixtureHost};
use crate::backbone::{BackboneOptions, Vit};
use crate::config::{Field, Layer};
use crate::context::{Placement, Serialised};
use crate::method::{self, Access, Player, Recorded, RecordedQuantity, RecordedSetting, Setup};
use crate::run::TaskDrive;
use crate::scenario::TaskInfo;
use crate::state::State;
use crate::{Error, Result};

/// Replays the fixture in `bytes` (`path` is used in messages) in `dtype` on `device`, every call
/// of the method through bytes and back.
///
/// # Errors
/// If the file is not a whole fixture, or the method fails.
pub fn replay(path: &Path, bytes: &[u8], placement: &Placement) -> Result<Outcome> {
    let fixture = Fixture::parse(path, bytes)?;
    let settings = &fixture.settings;
    let Ok(entry) = method::find(&fixture.method) else {
        return Ok(Outcome::Skipped(format!(
            "there is no method '{}' in this build",
            fixture.method
        )));
    };
    let options = BackboneOptions {
        image_size: Some(settings.img),
        heads: Some(settings.heads),
        ..BackboneOptions::default()
    };
    let weights = fixture.backbone()?;
    let backbone =
        Box::new(Vit::new("fixture", &weights, &options, placement.dtype, &placement.device)?);
    let table = configuration(&fixture, &entry.fields());
    let config = entry.configure("", &[Layer { origin: path.display().to_string(), table }])?;
    let player = entry.build(&config, Setup { backbone, placement: placement.clone() })?;
    let all = entry.about.access == Access::All;
    let out = Comparison::new(placement.dtype, settings.optim == "adam");
    Replay { fixture: &fixture, player, placement, out, all }.run()
}

/// A replay in progress.
struct Replay<'a> {
    fixture: &'a Fixture,
    player: Box<dyn Player>,
    placement: &'a Placement,
    out: Comparison,
    /// Whether the method sees the images of all tasks so far.
    all: bool,
}

impl Replay<'_> {
    fn run(mut self) -> Result<Outcome> {
        let mut host = FixtureHost::new(self.fixture, self.all);
        let mut accuracy = Vec::new();
        for task in 0..self.fixture.settings.tasks {
            host.task = task;
            self.task(task, &mut host)?;
            accuracy.push(compare_outputs(
                self.fixture,
                &mut self.out,
                task,
                &*self.player,
                self.placement,
            )?);
        }
        let recorded = percent_or_share(&self.fixture.values("accuracy")?);
        self.out.add("accuracy", "accuracy", &accuracy, &recorded);
        compare_probes(self.fixture, &mut self.out, &host)?;
        for name in
            self.fixture.file.names().filter(|n| n.starts_with("task") || n.starts_with("probe"))
        {
            let input = name.ends_with(".test_index")
                || name.contains(".align.")
                || name.contains(".draw.");
            if !input && !self.out.has(name) {
                self.out.missing(name);
            }
        }
        Ok(Outcome::Compared(self.out.finish()))
    }

    /// Drives the method through a task, every call through bytes and back, and compares losses and
    /// states.
    fn task(&mut self, task: usize, host: &mut FixtureHost) -> Result<()> {
        let (fixture, info) = (self.fixture, task_info(self.fixture, task)?);
        let feed = FixtureFeed { fixture, task, all: self.all };
        let mut drive =
            TaskDrive::plan(&mut *self.player, &info, Serialised(host), feed, self.placement)?;
        drive.begin()?;
        let mut terms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        while let Some(step) = drive.step()? {
            step.losses
                .0
                .into_iter()
                .for_each(|(name, value)| terms.entry(name).or_default().push(value));
        }
        for (term, ours) in terms {
            let name = format!("task{task}.{term}_loss");
            if fixture.file.shape(&name).is_some() {
                self.out.add(&format!("{term}_loss"), &name, &ours, &fixture.values(&name)?);
            }
        }
        let trained = drive.player().state()?;
        compare_state(
            fixture,
            &mut self.out,
            &format!("task{task}.trained."),
            "trained",
            &trained,
        )?;
        drive.end()?;
        let state = self.player.state()?;
        compare_state(fixture, &mut self.out, &format!("task{task}.after."), "after", &state)?;
        compare_quantities(fixture, &mut self.out, &info, &state)
    }
}

/// The fixture's settings under the names of the configuration: those of training that the method
/// has, and all that make it a variant.
fn configuration(fixture: &Fixture, fields: &[Field]) -> Table {
    let s = &fixture.settings;
    let mut table = Table::new();
    table.insert("rank".into(), Value::Integer(s.rank as i64));
    table.insert("epochs".into(), Value::Integer(s.epochs as i64));
    table.insert("batch_size".into(), Value::Integer(s.batch as i64));
    table.insert("optimiser".into(), Value::String(s.optim.clone()));
    table.insert("learning_rate".into(), Value::Float(s.lr));
    table.insert("weight_decay".into(), Value::Float(s.wd));
    for setting in inventory::iter::<RecordedSetting> {
        let value = s.others.get(setting.recorded).and_then(|value| Value::try_from(value).ok());
        table.extend(value.map(|value| (setting.key.to_owned(), value)));
    }
    table.retain(|key, _| fields.iter().any(|f| f.key == *key));
    table.extend(fixture.variant.iter().cloned());
    table
}

fn task_info(fixture: &Fixture, task: usize) -> Result<TaskInfo> {
    let (first, classes) = (task * fixture.settings.cpt, fixture.settings.cpt);
    Ok(TaskInfo {
        index: task,
        tasks: fixture.settings.tasks,
        classes: (first..first + classes).collect(),
        first_class: first,
        class_names: (first..first + classes).map(|c| format!("class {c}")).collect(),
        train_images: fixture.rows("train", task)?.len(),
        domain: None,
    })
}

/// Compares the file's tensors under `prefix` with the state's of the same names.
fn compare_state(
    fixture: &Fixture,
    out: &mut Comparison,
    prefix: &str,
    stage: &str,
    state: &State,
) -> Result<()> {
    for name in fixture.file.names().filter(|n| n.starts_with(prefix)) {
        let plain = &name[prefix.len()..];
        let kind = plain.split('.').next().unwrap_or_default();
        if let (Some(site), "after.lora") = (
            name.strip_suffix(".A").or_else(|| name.strip_suffix(".B")),
            format!("{stage}.{kind}").as_str(),
        ) {
            // A designed A is free in the signs of its rows, and B's columns follow: compare AᵀA
            // and B·A.
            let ours = |part: &str| {
                state.tensor(&format!("{}.{part}", &site[prefix.len()..]), DType::F64, &Device::Cpu)
            };
            let theirs = |part: &str| {
                fixture.file.tensor(&format!("{site}.{part}"), DType::F64, &Device::Cpu)
            };
            let (a, left, their_a, their_left) = match name.ends_with(".A") {
                true => (ours("A")?, ours("A")?.t()?, theirs("A")?, theirs("A")?.t()?),
                false => (ours("A")?, ours("B")?, theirs("A")?, theirs("B")?),
            };
            let product = |left: &Tensor, a: &Tensor| -> Result<Vec<f64>> {
                Ok(left.contiguous()?.matmul(a)?.flatten_all()?.to_vec1()?)
            };
            out.add(
                &format!("{stage}.{kind}"),
                name,
                &product(&left, &a)?,
                &product(&their_left, &their_a)?,
            );
            continue;
        }
        out.add(
            &format!("{stage}.{kind}"),
            name,
            &state.array(plain)?.to_f64()?,
            &fixture.values(name)?,
        );
    }
    Ok(())
}

/// Compares `task<t>.<name>` and `task<t>.<name>.<suffix>` of every registered quantity.
fn compare_quantities(
    fixture: &Fixture,
    out: &mut Comparison,
    task: &TaskInfo,
    state: &State,
) -> Result<()> {
    let prefix = format!("task{}.", task.index);
    for full in fixture.file.names().filter(|n| n.starts_with(&prefix)) {
        let rest = &full[prefix.len()..];
        let (name, suffix) = rest.split_once('.').unwrap_or((rest, ""));
        if let Some(quantity) =
            inventory::iter::<RecordedQuantity>.into_iter().find(|q| q.name == name)
        {
            let ours = (quantity.read)(&Recorded { state, task, suffix })?;
            out.add(name, full, &ours, &fixture.values(full)?);
        }
    }
    Ok(())
}

/// Compares logits and CLS tokens after a task; gives the accuracy over all classes seen so far, as
/// a share.
fn compare_outputs(
    fixture: &Fixture,
    out: &mut Comparison,
    task: usize,
    player: &dyn Player,
    placement: &Placement,
) -> Result<f64> {
    let rows: Vec<usize> = fixture
        .labels(&format!("task{task}.test_index"))?
        .into_iter()
        .map(|i| i as usize)
        .collect();
    let on_device =
        |rows: &[usize]| -> Result<_> { placement.place(&fixture.images("test", rows)?) };
    let logits = player.predict(&on_device(&rows)?)?;
    let name = format!("task{task}.test_logits");
    out.tensor("test_logits", &name, &logits, &fixture.values(&name)?)?;
    let name = format!("task{task}.cls_features");
    if fixture.file.shape(&name).is_some() {
        let tokens = player.cls_tokens(&on_device(&rows[..rows.len().min(4)])?)?;
        let tokens =
            tokens.ok_or_else(|| Error::Protocol("the method gave no CLS tokens".into()))?;
        out.tensor("cls_features", &name, &tokens, &fixture.values(&name)?)?;
    }
    let labels = fixture.labels("test.labels")?;
    let best = logits.argmax(1)?.to_vec1::<u32>()?;
    let hits =
        rows.iter().zip(best).filter(|(row, best)| labels[**row] == i64::from(*best)).count();
    Ok(100.0 * hits as f64 / rows.len().max(1) as f64)
}

/// The recorded accuracies in percent, whether the file states percents or shares.
fn percent_or_share(values: &[f64]) -> Vec<f64> {
    let scale = if values.iter().all(|v| *v <= 1.0) { 100.0 } else { 1.0 };
    values.iter().map(|v| v * scale).collect()
}

/// Compares `probe<n>.<name>` with the n-th value the method showed under that name, and the
/// relation loss of that step.
fn compare_probes(fixture: &Fixture, out: &mut Comparison, host: &FixtureHost) -> Result<()> {
    for name in fixture.file.names().filter(|n| n.starts_with("probe")) {
        let Some((number, what)) = name["probe".len()..].split_once('.') else { continue };
        let Some(step) = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)) else {
            continue;
        };
        let Some(ours) = host.probes.get(what).and_then(|all| all.get(step)) else { continue };
        // A relation loss of zero up to rounding (the first step, B = 0) has no relative error
        // worth the name.
        let (ours, theirs) = (ours.to_f64()?, fixture.values(name)?);
        let nothing = what.ends_with("_loss") && theirs.iter().chain(&ours).all(|v| v.abs() < 1e-6);
        let (ours, theirs) = if nothing { (vec![1.0], vec![1.0]) } else { (ours, theirs) };
        out.add(&format!("probe.{what}"), name, &ours, &theirs);
    }
    Ok(())
}
