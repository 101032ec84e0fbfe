//! Both methods through a scenario, side by side, compared after every call.

use candle_core::DType;

use super::ledger::{Ledger, of_side};
use super::recorder::Recorder;
use super::{Options, Report, Side};
use crate::array::Array;
use crate::context::{Context, Images};
use crate::data::{Loader, Transforms, View, epoch_order};
use crate::method::{Batch, Losses, Plan};
use crate::run::{Memory, TaskHost, to_tensors};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::{Error, Result};

/// Images a forward pass over the test images.
const BATCH: usize = 64;

pub(super) struct Pair<'a> {
    sides: [Side; 2],
    options: &'a Options,
    ledger: Ledger,
    report: Report,
}

/// The hosts of a task, one for each side.
type Hosts<'a> = [Recorder<'a>; 2];

impl<'a> Pair<'a> {
    pub(super) fn new(a: Side, b: Side, options: &'a Options) -> Self {
        Self { sides: [a, b], options, ledger: Ledger::new(options.tolerance), report: Report::default() }
    }

    pub(super) fn run(mut self, scenario: &mut dyn Scenario) -> Result<Report> {
        let transforms = scenario.info().transforms.clone();
        let classes = scenario.info().classes();
        self.sides.iter().try_for_each(|side| of_side(&side.name, side.method.check(classes)))?;
        let (mut memories, mut seen) = ([Memory::default(), Memory::default()], Vec::<[Task; 2]>::new());
        while let Some(task) = scenario.next_task()? {
            if self.options.until.is_some_and(|n| task.info.index >= n) {
                break;
            }
            let before = seen.last();
            let shown = |i: usize| task.clone().shown(self.sides[i].access, before.map(|b: &[Task; 2]| &b[i]));
            seen.push([shown(0)?, shown(1)?]);
            self.task(&seen, &transforms, &mut memories)?;
            if self.ledger.parting.is_some() {
                break;
            }
        }
        let Ledger { quantities, parting, notes, .. } = self.ledger;
        Ok(Report { quantities, parting, notes, ..self.report })
    }

    fn parted(&self) -> bool {
        self.ledger.parting.is_some()
    }

    /// One task: begin, steps, end, test images. Ends early when they part.
    fn task(&mut self, seen: &[[Task; 2]], transforms: &Transforms, [ma, mb]: &mut [Memory; 2]) -> Result<()> {
        let Some([a, b]) = seen.last() else { return Ok(()) };
        let (info, number) = (&a.info, a.info.index + 1);
        let begun = format!("task {number}, as it begins");
        self.ledger.equal("training images", &begun, &a.info.train_images, &b.info.train_images);
        let plans = [self.sides[0].method.plan(info), self.sides[1].method.plan(info)];
        self.ledger.equal("plan", &begun, &plans[0], &plans[1]);
        if self.parted() {
            return Ok(());
        }
        let host = |side: &Side, task: &Task, memory| {
            Recorder::new(TaskHost::new(self.options.seed, info.index, side.access, &task.train, transforms, memory))
        };
        let mut hosts: Hosts = [host(&self.sides[0], a, ma), host(&self.sides[1], b, mb)];
        self.both(&mut hosts, |side, ctx| side.method.begin_task(info, ctx))?;
        self.probes(&mut hosts, &begun)?;
        self.states(&begun)?;
        if !self.parted() {
            self.steps(a, &plans[0], transforms, &mut hosts)?;
        }
        if self.parted() {
            return Ok(());
        }
        let ended = format!("task {number}, at its end");
        self.both(&mut hosts, |side, ctx| side.method.end_task(info, ctx))?;
        self.probes(&mut hosts, &ended)?;
        self.draws(&hosts, number);
        if hosts.iter().any(|h| !h.trace.stored.is_empty()) {
            self.ledger.equal("exemplars stored", &ended, &hosts[0].trace.stored, &hosts[1].trace.stored);
        }
        self.states(&ended)?;
        drop(hosts);
        if !self.parted() {
            self.outputs(seen, transforms, number)?;
        }
        Ok(())
    }

    /// The same call of both, each with a context of its own.
    fn both<T>(&mut self, hosts: &mut Hosts, mut call: impl FnMut(&mut Side, &mut Context) -> Result<T>) -> Result<[T; 2]> {
        let [a, b] = hosts;
        let mut one = |side: &mut Side, host: &mut Recorder| {
            let outcome = call(side, &mut Context::new(host, &self.options.device, self.options.dtype));
            of_side(&side.name, outcome)
        };
        let [sa, sb] = &mut self.sides;
        Ok([one(sa, a)?, one(sb, b)?])
    }

    fn steps(&mut self, task: &Task, plan: &Plan, transforms: &Transforms, hosts: &mut Hosts) -> Result<()> {
        let (info, options) = (&task.info, self.options);
        let mut step = 0;
        for epoch in 0..plan.epochs {
            let order = epoch_order(options.seed, info.index, epoch, task.train.len());
            let augmentation = (options.seed, info.index, epoch);
            for loaded in Loader::new(&task.train, order, plan.batch_size, 0, transforms, plan.view, augmentation) {
                let data = to_tensors(loaded?, transforms.image_size, options.dtype, &options.device)?;
                let place = format!("task {}, epoch {}, step {}", info.index + 1, epoch + 1, step + 1);
                let batch = Batch { data, epoch, step };
                let losses = self.both(hosts, |side, ctx| side.method.observe(&batch, info, ctx))?;
                self.losses(&losses, &place);
                self.probes(hosts, &place)?;
                step += 1;
                self.report.steps += 1;
                if self.parted() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn losses(&mut self, [a, b]: &[Losses; 2], place: &str) {
        for (name, value) in &a.0 {
            match b.0.iter().find(|(n, _)| n == name) {
                Some((_, other)) => self.ledger.numbers(&format!("loss {name}"), "", place, &[*value], &[*other]),
                None => self.only(0, "loss term", name),
            }
        }
        for (name, _) in b.0.iter().filter(|(name, _)| a.0.iter().all(|(n, _)| n != name)) {
            self.only(1, "loss term", name);
        }
    }

    /// Notes what only one side has.
    fn only(&mut self, side: usize, what: &str, name: &str) {
        let (has, lacks) = (self.label(side), self.label(1 - side));
        self.ledger.note(format!("the {what} '{name}' of {has} was not compared: {lacks} has none of this name"));
    }

    /// A side's name, told apart where both have the same.
    fn label(&self, side: usize) -> String {
        let name = &self.sides[side].name;
        if self.sides[0].name == self.sides[1].name { format!("{name} ({})", ["A", "B"][side]) } else { name.clone() }
    }

    /// Compares the probes since the last call: the n-th of a name with the n-th of the same name.
    fn probes(&mut self, hosts: &mut Hosts, place: &str) -> Result<()> {
        let [a, b] = hosts.each_mut().map(|h| std::mem::take(&mut h.trace.probes));
        let mut theirs = b;
        for (name, value) in a {
            match theirs.iter().position(|(n, _)| *n == name) {
                Some(i) => self.ledger.arrays(&format!("probe {name}"), "", place, &value, &theirs.remove(i).1)?,
                None => self.only(0, "probe", &name),
            }
        }
        theirs.iter().for_each(|(name, _)| self.only(1, "probe", name));
        Ok(())
    }

    /// Draws are answered by name: one that only one side makes is the likeliest reason to part later on.
    fn draws(&mut self, hosts: &Hosts, number: usize) {
        let [a, b] = [&hosts[0].trace.draws, &hosts[1].trace.draws];
        for (name, drawn) in a.iter().filter(|(name, drawn)| b.get(*name) != Some(drawn)) {
            let theirs = b.get(name).map_or("never".to_owned(), |(times, shape)| format!("{times} times as {shape:?}"));
            let (ours, label) = (format!("{} times as {:?}", drawn.0, drawn.1), self.label(0));
            self.ledger.note(format!("in task {number} '{name}' was drawn {ours} by {label}, {theirs} by {}", self.label(1)));
        }
        for (name, drawn) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
            let (label, other) = (self.label(1), self.label(0));
            self.ledger.note(format!("in task {number} '{name}' was drawn {} times by {label}, never by {other}", drawn.0));
        }
    }

    /// Compares the tensors of both states where names agree.
    fn states(&mut self, place: &str) -> Result<()> {
        let [a, b] = [0, 1].map(|i| of_side(&self.sides[i].name, self.sides[i].method.state()));
        let (a, b) = (a?, b?);
        for (name, entry) in a.iter() {
            match b.get(name) {
                Some(other) => {
                    let quantity = format!("state ({})", format!("{:?}", entry.kind).to_lowercase());
                    self.ledger.arrays(&quantity, name, place, &entry.value, &other.value)?;
                }
                None => self.only(0, "state tensor", name),
            }
        }
        b.iter().filter(|(name, _)| a.get(name).is_none()).for_each(|(name, _)| self.only(1, "state tensor", name));
        Ok(())
    }

    /// Compares logits, predicted classes and CLS tokens on the test images of all tasks so far.
    fn outputs(&mut self, seen: &[[Task; 2]], transforms: &Transforms, number: usize) -> Result<()> {
        let place = format!("task {number}, on its test images");
        let classes = seen.iter().flat_map(|t| &t[0].info.classes).max().map_or(0, |c| c + 1);
        let (mut labels, mut logits) = (Vec::new(), [Vec::new(), Vec::new()]);
        for [task, _] in seen {
            for (i, batch) in
                Loader::new(&task.test, (0..task.test.len()).collect(), BATCH, 0, transforms, View::Test, (0, 0, 0)).enumerate()
            {
                let data = to_tensors(batch?, transforms.image_size, self.options.dtype, &self.options.device)?;
                for (side, all) in self.sides.iter().zip(&mut logits) {
                    all.extend(of_side(&side.name, predict(side, &data, classes, &task.info))?);
                }
                if i == 0 {
                    self.cls_tokens(&data, &place)?;
                }
                labels.extend(data.classes);
            }
        }
        let [a, b] = logits;
        self.ledger.numbers("logits", "", &place, &a.concat(), &b.concat());
        self.predictions(&a, &b, &labels, &place);
        Ok(())
    }

    /// Images of which the two predict different classes, although the logits of these are not equal within the tolerance.
    fn predictions(&mut self, a: &[Vec<f64>], b: &[Vec<f64>], labels: &[i64], place: &str) {
        let best = |rows: &[Vec<f64>]| -> Vec<usize> {
            rows.iter().map(|row| (0..row.len()).fold(0, |m, c| if row[c] > row[m] { c } else { m })).collect()
        };
        let (ours, theirs) = (best(a), best(b));
        let tied = |i: usize| {
            let largest = a[i].iter().fold(0f64, |m, v| m.max(v.abs()));
            (a[i][ours[i]] - a[i][theirs[i]]).abs() <= self.ledger.tolerance() * largest
        };
        let n = labels.len();
        let differ = (0..n).filter(|i| ours[*i] != theirs[*i] && !tied(*i)).count();
        let what = || format!("{differ} of {n} images are given another class");
        self.ledger.record("predicted classes", "", place, differ as f64 / n.max(1) as f64, what);
        let accuracy = |best: &[usize]| {
            100.0 * best.iter().zip(labels).filter(|(best, label)| **best as i64 == **label).count() as f64 / n.max(1) as f64
        };
        self.report.accuracy.push((accuracy(&ours), accuracy(&theirs)));
    }

    fn cls_tokens(&mut self, data: &Images, place: &str) -> Result<()> {
        let tokens = |side: &Side| of_side(&side.name, side.method.cls_tokens(&data.images));
        match (tokens(&self.sides[0])?, tokens(&self.sides[1])?) {
            (Some(a), Some(b)) => self.ledger.arrays("CLS tokens", "", place, &Array::from_tensor(&a)?, &Array::from_tensor(&b)?)?,
            (None, None) => {}
            (Some(_), None) => self.ledger.note(format!("the CLS tokens were not compared: {} has none", self.label(1))),
            (None, Some(_)) => self.ledger.note(format!("the CLS tokens were not compared: {} has none", self.label(0))),
        }
        Ok(())
    }
}

/// The logits of a batch, one row an image.
fn predict(side: &Side, data: &Images, classes: usize, task: &TaskInfo) -> Result<Vec<Vec<f64>>> {
    let logits = side.method.predict(&data.images)?.to_dtype(DType::F64)?;
    let expected = [data.classes.len(), classes];
    if logits.dims() != expected {
        return Err(Error::Protocol(format!(
            "predicted logits of shape {:?} where {expected:?} (images, classes seen) is due",
            logits.dims()
        )));
    }
    let rows = logits.to_vec2::<f64>()?;
    if rows.iter().flatten().any(|v| !v.is_finite()) {
        return Err(Error::Diverged(format!("a logit is not finite on test images of task {}", task.index + 1)));
    }
    Ok(rows)
}
