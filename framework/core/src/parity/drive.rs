//! Both methods through a scenario, side by side, compared after every call.

use candle_core::DType;

use super::ledger::{Ledger, of_side};
use super::recorder::Recorder;
use super::{Options, Report, Side};
use crate::array::Array;
use crate::context::Images;
use crate::data::{Augment, Loader, Transforms, View};
use crate::method::{Losses, Player};
use crate::run::{Course, EpochFeed, Memory, Shown, TaskDrive, TaskHost, to_tensors};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::{Error, Result};

/// Images per forward pass over the test images.
const BATCH: usize = 64;

pub(super) struct Pair<'a> {
    sides: [Side; 2],
    options: &'a Options,
    ledger: Ledger,
    report: Report,
}

/// One side in a task.
type Drive<'a> = TaskDrive<'a, Recorder<'a>, EpochFeed<'a>>;

impl<'a> Pair<'a> {
    pub(super) fn new(a: Side, b: Side, options: &'a Options) -> Self {
        Self {
            sides: [a, b],
            options,
            ledger: Ledger::new(options.tolerance),
            report: Report::default(),
        }
    }

    pub(super) fn run(self, scenario: &mut dyn Scenario) -> Result<Report> {
        let transforms = scenario.info().transforms.clone();
        let Self { mut sides, options, ledger, report } = self;
        let players = [0, 1].map(|i| (&*sides[i].player, sides[i].access));
        let facts = scenario.info().facts();
        sides.iter().try_for_each(|side| of_side(&side.name, side.player.check(&facts)))?;
        let mut course = Course::open(scenario, players, options.until)?;
        let names = [0, 1].map(|i| sides[i].name.clone());
        let (mut memories, mut seen) =
            ([Memory::default(), Memory::default()], Vec::<[Task; 2]>::new());
        let mut notebook = Notebook { names, options, ledger, report };
        while let Some(Shown { tasks, .. }) = course.next_task()? {
            seen.push(tasks);
            notebook.task(&mut sides, &seen, &transforms, &mut memories)?;
            if notebook.parted() {
                break;
            }
        }
        let Ledger { quantities, parting, notes, .. } = notebook.ledger;
        Ok(Report { quantities, parting, notes, ..notebook.report })
    }
}

/// What is written down about the two.
struct Notebook<'a> {
    names: [String; 2],
    options: &'a Options,
    ledger: Ledger,
    report: Report,
}

impl Notebook<'_> {
    fn parted(&self) -> bool {
        self.ledger.parting.is_some()
    }

    /// One task of both in step. It ends early when they part.
    fn task(
        &mut self,
        sides: &mut [Side; 2],
        seen: &[[Task; 2]],
        transforms: &Transforms,
        memories: &mut [Memory; 2],
    ) -> Result<()> {
        let Some(tasks) = seen.last() else { return Ok(()) };
        let number = tasks[0].info.index + 1;
        self.drive(sides, tasks, transforms, memories)?;
        if self.parted() {
            return Ok(());
        }
        self.states(sides, &format!("task {number}, at its end"))?;
        if !self.parted() {
            self.outputs(sides, seen, transforms, number)?;
        }
        Ok(())
    }

    /// Plan, begin, steps and end of both, compared after every call.
    fn drive(
        &mut self,
        sides: &mut [Side; 2],
        tasks: &[Task; 2],
        transforms: &Transforms,
        memories: &mut [Memory; 2],
    ) -> Result<()> {
        let (options, number) = (self.options, tasks[0].info.index + 1);
        let begun = format!("task {number}, as it begins");
        let images = tasks.each_ref().map(|t| t.info.train_images);
        self.ledger.equal("training images", &begun, &images[0], &images[1]);
        let [side_a, side_b] = sides;
        let [memory_a, memory_b] = memories;
        let mut a = open_side(side_a, &tasks[0], memory_a, transforms, options)?;
        let mut b = open_side(side_b, &tasks[1], memory_b, transforms, options)?;
        self.ledger.equal("plan", &begun, a.planned(), b.planned());
        if self.parted() {
            return Ok(());
        }
        of_side(&self.names[0], a.begin())?;
        of_side(&self.names[1], b.begin())?;
        self.probes([a.host_mut(), b.host_mut()], &begun)?;
        self.drive_states(&a, &b, &begun)?;
        self.steps(&mut a, &mut b)?;
        if self.parted() {
            return Ok(());
        }
        let ended = format!("task {number}, at its end");
        let mut hosts = [of_side(&self.names[0], a.end())?, of_side(&self.names[1], b.end())?];
        self.probes(hosts.each_mut(), &ended)?;
        self.draws(&hosts, number);
        if hosts.iter().any(|h| !h.trace.stored.is_empty()) {
            self.ledger.equal(
                "exemplars stored",
                &ended,
                &hosts[0].trace.stored,
                &hosts[1].trace.stored,
            );
        }
        Ok(())
    }

    fn steps<'d>(&mut self, a: &mut Drive<'d>, b: &mut Drive<'d>) -> Result<()> {
        while !self.parted() {
            let steps = (of_side(&self.names[0], a.step())?, of_side(&self.names[1], b.step())?);
            let (ours, theirs) = match steps {
                (Some(ours), Some(theirs)) => (ours, theirs),
                (None, None) => return Ok(()),
                (ours, theirs) => {
                    let steps = [ours.is_some(), theirs.is_some()];
                    self.ledger.equal(
                        "whether there is one more step",
                        "after the last common step",
                        &steps[0],
                        &steps[1],
                    );
                    return Ok(());
                }
            };
            let place =
                format!("task {}, epoch {}, step {}", ours.task + 1, ours.epoch + 1, ours.step + 1);
            self.losses(&[ours.losses, theirs.losses], &place);
            self.probes([a.host_mut(), b.host_mut()], &place)?;
            self.report.steps += 1;
        }
        Ok(())
    }

    fn losses(&mut self, [a, b]: &[Losses; 2], place: &str) {
        for (name, value) in &a.0 {
            match b.0.iter().find(|(n, _)| n == name) {
                Some((_, other)) => {
                    self.ledger.numbers(&format!("loss {name}"), "", place, &[*value], &[*other])
                }
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
        self.ledger.note(format!(
            "the {what} '{name}' of {has} was not compared: {lacks} has none of this name"
        ));
    }

    /// A side's name, told apart where both have the same.
    fn label(&self, side: usize) -> String {
        let name = &self.names[side];
        if self.names[0] == self.names[1] {
            format!("{name} ({})", ["A", "B"][side])
        } else {
            name.clone()
        }
    }

    /// Compares the probes since the last call: the n-th of a name with the n-th of the same name.
    fn probes<'h>(&mut self, hosts: [&mut Recorder<'h>; 2], place: &str) -> Result<()> {
        let [a, mut theirs] = hosts.map(|h| std::mem::take(&mut h.trace.probes));
        for (name, value) in a {
            match theirs.iter().position(|(n, _)| *n == name) {
                Some(i) => {
                    let quantity = format!("probe {name}");
                    self.ledger.arrays(&quantity, "", place, &value, &theirs.remove(i).1)?;
                }
                None => self.only(0, "probe", &name),
            }
        }
        theirs.iter().for_each(|(name, _)| self.only(1, "probe", name));
        Ok(())
    }

    /// Draws are answered by name: one that only one side makes is the likeliest reason to part
    /// later on.
    fn draws(&mut self, hosts: &[Recorder; 2], number: usize) {
        let [a, b] = [&hosts[0].trace.draws, &hosts[1].trace.draws];
        for (name, drawn) in a.iter().filter(|(name, drawn)| b.get(*name) != Some(drawn)) {
            let theirs = b
                .get(name)
                .map_or("never".to_owned(), |(times, shape)| format!("{times} times as {shape:?}"));
            let (ours, label) = (format!("{} times as {:?}", drawn.0, drawn.1), self.label(0));
            self.ledger.note(format!(
                "in task {number} '{name}' was drawn {ours} by {label}, {theirs} by {}",
                self.label(1)
            ));
        }
        for (name, drawn) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
            let (label, other) = (self.label(1), self.label(0));
            self.ledger.note(format!(
                "in task {number} '{name}' was drawn {} times by {label}, never by {other}",
                drawn.0
            ));
        }
    }

    fn states(&mut self, sides: &[Side; 2], place: &str) -> Result<()> {
        self.compare_states([&*sides[0].player, &*sides[1].player], place)
    }

    fn drive_states(&mut self, a: &Drive, b: &Drive, place: &str) -> Result<()> {
        self.compare_states([a.player(), b.player()], place)
    }

    /// Compares the tensors of both states where names agree.
    fn compare_states(&mut self, players: [&dyn Player; 2], place: &str) -> Result<()> {
        let a = of_side(&self.names[0], players[0].state())?;
        let b = of_side(&self.names[1], players[1].state())?;
        for (name, entry) in a.iter() {
            match b.get(name) {
                Some(other) => {
                    let quantity =
                        format!("state ({})", format!("{:?}", entry.kind).to_lowercase());
                    self.ledger.arrays(&quantity, name, place, &entry.value, &other.value)?;
                }
                None => self.only(0, "state tensor", name),
            }
        }
        b.iter()
            .filter(|(name, _)| a.get(name).is_none())
            .for_each(|(name, _)| self.only(1, "state tensor", name));
        Ok(())
    }

    /// Compares logits, predicted classes and CLS tokens on the test images of all tasks so far.
    fn outputs(
        &mut self,
        sides: &[Side; 2],
        seen: &[[Task; 2]],
        transforms: &Transforms,
        number: usize,
    ) -> Result<()> {
        let place = format!("task {number}, on its test images");
        let classes = seen.iter().flat_map(|t| &t[0].info.classes).max().map_or(0, |c| c + 1);
        let (mut labels, mut logits) = (Vec::new(), [Vec::new(), Vec::new()]);
        for [task, _] in seen {
            for (i, batch) in Loader::new(
                &task.test,
                (0..task.test.len()).collect(),
                BATCH,
                0,
                transforms,
                View::Test,
                Augment::Never,
            )
            .enumerate()
            {
                let data = to_tensors(batch?, transforms.image_size, &self.options.placement)?;
                for (side, all) in sides.iter().zip(&mut logits) {
                    all.extend(of_side(&side.name, predict(side, &data, classes, &task.info))?);
                }
                if i == 0 {
                    self.cls_tokens(sides, &data, &place)?;
                }
                labels.extend(data.host_labels);
            }
        }
        let [a, b] = logits;
        self.ledger.numbers("logits", "", &place, &a.concat(), &b.concat());
        self.predictions(&a, &b, &labels, &place);
        Ok(())
    }

    /// Images of which the two predict different classes, although the logits of these are not
    /// equal within the tolerance.
    fn predictions(&mut self, a: &[Vec<f64>], b: &[Vec<f64>], labels: &[i64], place: &str) {
        let best = |rows: &[Vec<f64>]| -> Vec<usize> {
            rows.iter()
                .map(|row| (0..row.len()).fold(0, |m, c| if row[c] > row[m] { c } else { m }))
                .collect()
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
            100.0
                * best.iter().zip(labels).filter(|(best, label)| **best as i64 == **label).count()
                    as f64
                / n.max(1) as f64
        };
        self.report.accuracy.push((accuracy(&ours), accuracy(&theirs)));
    }

    fn cls_tokens(&mut self, sides: &[Side; 2], data: &Images, place: &str) -> Result<()> {
        let tokens = |side: &Side| of_side(&side.name, side.player.cls_tokens(&data.images));
        match (tokens(&sides[0])?, tokens(&sides[1])?) {
            (Some(a), Some(b)) => self.ledger.arrays(
                "CLS tokens",
                "",
                place,
                &Array::from_tensor(&a)?,
                &Array::from_tensor(&b)?,
            )?,
            (None, None) => {}
            (Some(_), None) => self
                .ledger
                .note(format!("the CLS tokens were not compared: {} has none", self.label(1))),
            (None, Some(_)) => self
                .ledger
                .note(format!("the CLS tokens were not compared: {} has none", self.label(0))),
        }
        Ok(())
    }
}

/// Plans a task of one side.
fn open_side<'a>(
    side: &'a mut Side,
    task: &'a Task,
    memory: &'a mut Memory,
    transforms: &'a Transforms,
    options: &'a Options,
) -> Result<Drive<'a>> {
    let host =
        TaskHost::new(options.seed, task.info.index, side.access, &task.train, transforms, memory);
    let feed = EpochFeed { task, transforms, seed: options.seed };
    let drive = TaskDrive::plan(
        &mut *side.player,
        &task.info,
        Recorder::new(host),
        feed,
        &options.placement,
    );
    of_side(&side.name, drive)
}

/// The logits of a batch, one row per image.
fn predict(side: &Side, data: &Images, classes: usize, task: &TaskInfo) -> Result<Vec<Vec<f64>>> {
    let logits = side.player.predict(&data.images)?.to_dtype(DType::F64)?;
    let expected = [data.host_labels.len(), classes];
    if logits.dims() != expected {
        return Err(Error::Protocol(format!(
            "predicted logits of shape {:?} where {expected:?} (images, classes seen) is due",
            logits.dims()
        )));
    }
    let rows = logits.to_vec2::<f64>()?;
    if rows.iter().flatten().any(|v| !v.is_finite()) {
        return Err(Error::Diverged(format!(
            "a logit is not finite on test images of task {}",
            task.index + 1
        )));
    }
    Ok(rows)
}
