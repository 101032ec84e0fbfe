//! Rehearsal: which exemplars the harness's memory keeps, and the batches drawn from it.
//!
//! When a task is over, [`Replay::end_task`] chooses among its training images, seen through the
//! test transform. Within a class exemplars are stored in the order of their choice, so that a
//! class shrinks from its end (iCaRL's "reduce exemplar set").

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Classes, Learner, LearnerConfig, Want, herding};
use crate::backbone::Exported;
use crate::context::{Carry, Context, Exemplar, Held, Images};
use crate::data::View;
use crate::method::{Model, Plan, Setup};
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::Kind;
use crate::{Error, Result};

/// Something computed from a batch of rows.
pub type OfRows<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// Images a forward pass without gradients.
const INFERENCE_BATCH: usize = 64;
/// The state's name for the number of images that the reservoir has seen.
const SEEN: &str = "replay.seen";

/// Which images the memory keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Of each class those whose mean feature stays nearest to the class mean (iCaRL).
    #[default]
    Herding,
    /// Of each class as many at random.
    Random,
    /// A uniform sample of all images seen, whatever their class (with memory_total only).
    Reservoir,
}

/// Size and policy of a memory of exemplars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReplayConfig {
    /// Images kept of each class; 0 where memory_total is the budget.
    pub memory_per_class: usize,
    /// Images kept in all, shared out evenly over the classes seen so far; 0 where memory_per_class
    /// is the budget.
    pub memory_total: usize,
    /// Which images are kept.
    pub selection: Selection,
    /// Exemplars beside each batch of the task's images; fewer if the memory holds fewer.
    pub memory_batch_size: usize,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            memory_per_class: 20,
            memory_total: 0,
            selection: Selection::Herding,
            memory_batch_size: 128,
        }
    }
}

impl ReplayConfig {
    fn check(&self) -> Result<()> {
        match (self.memory_per_class, self.memory_total) {
            (0, 0) => {
                return Err(Error::usage(
                    "memory_per_class = 0 and memory_total = 0: state one of them, a memory needs a budget",
                ));
            }
            (0, _) | (_, 0) => {}
            (a, b) => {
                return Err(Error::usage(format!(
                    "memory_per_class = {a} and memory_total = {b}: state one budget and set the other to 0"
                )));
            }
        }
        if self.memory_batch_size == 0 {
            return Err(Error::usage(
                "memory_batch_size = 0: rehearsal needs at least one exemplar a step",
            ));
        }
        if self.selection == Selection::Reservoir && self.memory_total == 0 {
            return Err(Error::usage(
                "selection = \"reservoir\" samples all images seen, whatever their class: set memory_total and memory_per_class = 0",
            ));
        }
        Ok(())
    }
}

/// Exemplars read back.
pub struct Recalled {
    /// Their images and labels; positions are ids.
    pub data: Images,
    /// What is known of each, in the same order.
    pub exemplars: Vec<Exemplar>,
}

/// The images of a task among which is chosen, in canonical order.
#[derive(Default)]
struct Candidates {
    positions: Vec<usize>,
    labels: Vec<i64>,
    /// (n, dim), if the selection or the payload needs them.
    features: Option<Tensor>,
}

/// What is to be done to the memory.
#[derive(Debug, Default, PartialEq)]
struct Change {
    remove: Vec<u64>,
    /// Indices of candidates, in the order in which they are stored.
    insert: Vec<usize>,
}

/// The memory of a method.
pub struct Replay {
    config: ReplayConfig,
    /// Images that the reservoir was offered so far, one number.
    seen: Option<Held<Vec<i64>>>,
    /// The exemplars as they were listed last; they only change in [`Replay::end_task`].
    listed: Option<Vec<Exemplar>>,
}

impl Replay {
    /// An empty memory.
    ///
    /// # Errors
    /// [`Error::Usage`] for no budget, two budgets, or a reservoir without a total.
    pub fn new(config: ReplayConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, seen: None, listed: None })
    }

    /// Declares the reservoir's counter, `replay.seen`.
    pub fn grow(&mut self, carry: &mut Carry) -> Result<()> {
        if self.seen.is_none() {
            self.seen = Some(carry.held_from(SEEN, Kind::Buffer, vec![0])?);
        }
        self.listed = None;
        Ok(())
    }

    /// Images that the reservoir was offered so far.
    fn seen(&self) -> Result<usize> {
        match &self.seen {
            Some(seen) => Ok(seen.get()?.first().map_or(0, |n| *n as usize)),
            None => Err(Error::Protocol("the memory's counter was never declared".into())),
        }
    }

    /// Whether the budget suffices for a scenario.
    ///
    /// # Errors
    /// [`Error::Usage`] for a budget below one image per class.
    pub fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        let (total, classes) = (self.config.memory_total, scenario.classes);
        if total > 0 && total < classes {
            return Err(Error::usage(format!(
                "memory_total = {total}: less than one image for each of the scenario's {classes} classes; raise it to {classes} at least, or use memory_per_class"
            )));
        }
        Ok(())
    }

    /// Exemplars for a training step, drawn without replacement and augmented; none while the
    /// memory is empty. Steps that need several independent draws name them.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn batch(&mut self, name: &str, ctx: &mut Context) -> Result<Option<Recalled>> {
        let listed = match self.listed.take() {
            Some(listed) => listed,
            None => ctx.exemplars()?,
        };
        let listed = self.listed.insert(listed);
        if listed.is_empty() {
            return Ok(None);
        }
        let order = ctx.order(format!("replay.{name}"), listed.len())?;
        let exemplars: Vec<Exemplar> = order
            .into_iter()
            .take(self.config.memory_batch_size)
            .map(|i| listed[i].clone())
            .collect();
        let ids: Vec<u64> = exemplars.iter().map(|e| e.id).collect();
        Ok(Some(Recalled { data: ctx.recall(&ids, View::Train)?, exemplars }))
    }

    /// All exemplars through the test transform, batch by batch.
    ///
    /// # Errors
    /// If an image cannot be read, or `each` fails.
    pub fn read_all(ctx: &mut Context, mut each: impl FnMut(Images) -> Result<()>) -> Result<()> {
        let ids: Vec<u64> = ctx.exemplars()?.iter().map(|e| e.id).collect();
        ids.chunks(INFERENCE_BATCH).try_for_each(|ids| each(ctx.recall(ids, View::Test)?))
    }

    /// The task is over: chooses among its training images. `features` gives (batch, dim) of
    /// images, `payload` what is to be stored beside each image, (n, …), from the features of those
    /// chosen.
    ///
    /// # Errors
    /// If an image cannot be read, or a closure fails.
    pub fn end_task(
        &mut self,
        ctx: &mut Context,
        features: OfRows,
        payload: Option<OfRows>,
    ) -> Result<()> {
        let needed = payload.is_some() || self.config.selection == Selection::Herding;
        let (mut candidates, mut rows) = (Candidates::default(), Vec::new());
        ctx.pass(View::Test, INFERENCE_BATCH, |batch| {
            if needed {
                rows.push(features(&batch.images)?.detach());
            }
            candidates.positions.extend(batch.positions);
            candidates.labels.extend(batch.host_labels);
            Ok(())
        })?;
        if !rows.is_empty() {
            candidates.features = Some(Tensor::cat(&rows, 0)?);
        }
        let kept = ctx.exemplars()?;
        let change = match self.config.selection {
            Selection::Reservoir => self.reservoir(&kept, &candidates, ctx)?,
            Selection::Herding | Selection::Random => self.balanced(&kept, &candidates, ctx)?,
        };
        let seen = self.seen()? + candidates.labels.len();
        self.seen.iter().for_each(|held| held.set(vec![seen as i64]));
        self.listed = None;
        ctx.forget(&change.remove)?;
        if change.insert.is_empty() {
            return Ok(());
        }
        let positions: Vec<usize> =
            change.insert.iter().map(|i| candidates.positions[*i]).collect();
        let payload = match (payload, &candidates.features) {
            (Some(payload), Some(features)) => Some(payload(&select(features, &change.insert)?)?),
            _ => None,
        };
        ctx.memorise(&positions, payload.as_ref()).map(drop)
    }

    /// Images that a class may keep, of `classes` seen.
    fn quota(&self, classes: usize) -> usize {
        if self.config.memory_total > 0 {
            self.config.memory_total / classes.max(1)
        } else {
            self.config.memory_per_class
        }
    }

    /// Every class keeps its quota; a class that came in several tasks (domains) shares it out over
    /// them.
    fn balanced(
        &self,
        kept: &[Exemplar],
        candidates: &Candidates,
        ctx: &mut Context,
    ) -> Result<Change> {
        let mut stored: BTreeMap<i64, BTreeMap<usize, Vec<u64>>> = BTreeMap::new();
        for exemplar in kept {
            stored
                .entry(exemplar.label)
                .or_default()
                .entry(exemplar.task)
                .or_default()
                .push(exemplar.id);
        }
        let classes: BTreeSet<i64> = stored.keys().chain(&candidates.labels).copied().collect();
        let quota = self.quota(classes.len());
        let mut change = Change::default();
        for class in classes {
            let members: Vec<usize> =
                (0..candidates.labels.len()).filter(|i| candidates.labels[*i] == class).collect();
            let old: Vec<&Vec<u64>> =
                stored.get(&class).into_iter().flat_map(BTreeMap::values).collect();
            let groups = old.len() + usize::from(!members.is_empty());
            let share = |group: usize| quota / groups + usize::from(group < quota % groups);
            for (group, ids) in old.iter().enumerate() {
                change.remove.extend(ids.iter().skip(share(group)));
            }
            if !members.is_empty() {
                let order = self.order(class, &members, share(old.len()), candidates, ctx)?;
                change.insert.extend(order.into_iter().map(|i| members[i]));
            }
        }
        Ok(change)
    }

    /// The first `m` of a class's images in the order of the policy, as places in `members`.
    fn order(
        &self,
        class: i64,
        members: &[usize],
        m: usize,
        candidates: &Candidates,
        ctx: &mut Context,
    ) -> Result<Vec<usize>> {
        if let (Selection::Herding, Some(features)) = (self.config.selection, &candidates.features)
        {
            return herding(&select(features, members)?, m);
        }
        let mut order = ctx.order(format!("replay.order.{class}"), members.len())?;
        order.truncate(m);
        Ok(order)
    }

    /// A uniform sample of the images seen and the candidates, given that the memory is one of the
    /// images seen (Vitter 1985): of K places as many fall to candidates as do in a sample of K
    /// from all.
    fn reservoir(
        &self,
        kept: &[Exemplar],
        candidates: &Candidates,
        ctx: &mut Context,
    ) -> Result<Change> {
        let seen = self.seen()?;
        let all = seen + candidates.labels.len();
        let chosen = ctx.order("replay.sample", all)?.into_iter().take(self.config.memory_total);
        let (old, mut insert): (Vec<usize>, Vec<usize>) = chosen.partition(|i| *i < seen);
        insert.iter_mut().for_each(|i| *i -= seen);
        let order = ctx.order("replay.keep", kept.len())?;
        let mut remove: Vec<u64> = order.into_iter().skip(old.len()).map(|i| kept[i].id).collect();
        remove.sort_unstable();
        Ok(Change { remove, insert })
    }
}

/// A learner with a memory of exemplars.
pub struct Rehearsal {
    /// What is trained.
    pub learner: Learner,
    /// The memory.
    pub replay: Replay,
}

impl Rehearsal {
    /// A learner of all heads and an empty memory.
    ///
    /// # Errors
    /// [`Error::Usage`] for a bad hyper-parameter, [`Error::Unsupported`] for a backbone that
    /// cannot be trained so.
    pub fn new(
        method: &str,
        learner: LearnerConfig,
        replay: ReplayConfig,
        setup: Setup,
    ) -> Result<Self> {
        let replay = Replay::new(replay)?;
        Ok(Self { learner: Learner::new(method, learner, Classes::Seen, setup)?, replay })
    }

    /// The task is over: chooses exemplars by the learner's features. `payload` is what is stored
    /// beside each image, (n, …), from the features of those chosen.
    pub fn choose(&mut self, ctx: &mut Context, payload: Option<OfRows>) -> Result<()> {
        let learner = &self.learner;
        self.replay.end_task(ctx, &|images| Ok(learner.infer(images, Want::Features)?.cls), payload)
    }
}

impl Model for Rehearsal {
    fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        self.replay.check(scenario)
    }

    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        self.learner.plan(task)
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.replay.grow(carry)?;
        self.learner.grow(task, carry)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.settle(task, carry)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.learner.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.learner.cls_tokens(images)
    }

    fn export(&self) -> Result<Exported> {
        self.learner.export()
    }
}

/// Rows of a tensor.
fn select(rows: &Tensor, indices: &[usize]) -> Result<Tensor> {
    let indices: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
    Ok(rows.index_select(&Tensor::new(indices, rows.device())?, 0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::array::Array;
    use crate::conformance::trial::Trial;
    use crate::context::{Carried, Placement};
    use crate::method::Access;
    use crate::run::{Memory, TaskHost};
    use crate::scenario::Scenario;

    fn config(per_class: usize, total: usize, selection: Selection) -> ReplayConfig {
        ReplayConfig {
            memory_per_class: per_class,
            memory_total: total,
            selection,
            memory_batch_size: 3,
        }
    }

    fn facts(classes: usize) -> ScenarioFacts {
        ScenarioFacts { classes, tasks: 1, domain_incremental: false }
    }

    /// The mean colour of images, (batch, 3).
    fn colours(images: &Tensor) -> Result<Tensor> {
        Ok(images.mean((2, 3))?)
    }

    /// Goes through two tasks of two classes with 6 images each; gives what is stored after each,
    /// and the memory.
    fn learn(config: ReplayConfig, seed: u64) -> (Vec<Vec<Exemplar>>, Memory) {
        let trial = Trial { images: 6, ..Trial::default() };
        let mut scenario = trial.scenario().expect("scenario");
        let transforms = scenario.info().transforms.clone();
        let (mut memory, mut replay, mut stored) =
            (Memory::default(), Replay::new(config).expect("valid"), Vec::new());
        let (carried, placement) = (Carried::new(), Placement::cpu(DType::F32));
        while let Some(task) = scenario.next_task().expect("task") {
            let mut host = TaskHost::new(
                seed,
                task.info.index,
                Access::Memory,
                &task.train,
                &transforms,
                &mut memory,
            );
            let mut ctx = Context::new(&mut host, &carried, &placement);
            replay.grow(&mut ctx.carry()).expect("declared");
            let drawn = replay.batch("step", &mut ctx).expect("batch");
            assert_eq!(drawn.is_none(), task.info.index == 0);
            if let Some(drawn) = drawn {
                assert_eq!(
                    drawn.data.host_labels,
                    drawn.exemplars.iter().map(|e| e.label).collect::<Vec<_>>()
                );
                assert_eq!(
                    drawn.exemplars.iter().map(|e| e.id).collect::<BTreeSet<_>>().len(),
                    3,
                    "without replacement"
                );
            }
            replay.end_task(&mut ctx, &colours, Some(&|rows| Ok(rows.clone()))).expect("end");
            let listed = ctx.exemplars().expect("list");
            for exemplar in &listed {
                let image = ctx.recall(&[exemplar.id], View::Test).expect("read");
                let row = exemplar.payload.as_ref().expect("payload").to_f64().expect("row");
                let again = Array::from_tensor(&colours(&image.images).expect("colours"))
                    .expect("array")
                    .to_f64()
                    .expect("row");
                assert_eq!(
                    (row, image.host_labels),
                    (again, vec![exemplar.label]),
                    "payload and label stay with the image"
                );
            }
            stored.push(listed);
        }
        (stored, memory)
    }

    fn of(stored: &[Exemplar], class: i64) -> Vec<u64> {
        stored.iter().filter(|e| e.label == class).map(|e| e.id).collect()
    }

    #[test]
    fn each_class_keeps_its_quota() {
        for selection in [Selection::Herding, Selection::Random] {
            let (stored, memory) = learn(config(4, 0, selection), 0);
            assert_eq!((stored[0].len(), stored[1].len(), memory.len()), (8, 16, 16));
            assert!((0..4).all(|c| of(&stored[1], c).len() == 4));
            assert_eq!(stored[1][..8], stored[0][..], "old classes stay as they are");
            assert!(learn(config(9, 0, selection), 0).0[1].len() == 24, "no more than there are");
        }
    }

    #[test]
    fn a_total_budget_shrinks_old_classes_from_their_end() {
        for selection in [Selection::Herding, Selection::Random] {
            let (stored, _) = learn(config(0, 10, selection), 0);
            assert_eq!(
                (stored[0].len(), stored[1].len()),
                (10, 8),
                "10/2 = 5 a class, then 10/4 = 2"
            );
            for class in 0..2 {
                assert_eq!(of(&stored[1], class), of(&stored[0], class)[..2]);
            }
        }
    }

    #[test]
    fn a_reservoir_is_a_uniform_sample_of_all_images_seen() {
        let runs = 600;
        let mut of_class = [0usize; 4];
        for seed in 0..runs {
            let (stored, _) = learn(config(0, 5, Selection::Reservoir), seed);
            assert_eq!((stored[0].len(), stored[1].len()), (5, 5));
            stored[1].iter().for_each(|e| of_class[e.label as usize] += 1);
        }
        // Hypergeometric: 5 of 24 images, 6 a class: mean 1.25, variance 0.774 a run.
        let tolerance = 4.0 * (0.774 * runs as f64).sqrt();
        assert!(
            of_class.iter().all(|n| (*n as f64 - 1.25 * runs as f64).abs() < tolerance),
            "{of_class:?}"
        );
    }

    #[test]
    fn budgets_that_cannot_be_are_refused() {
        let refused = |c: ReplayConfig, expected: &str| {
            let message = Replay::new(c).err().expect("must be refused").to_string();
            assert!(message.contains(expected), "{message}");
        };
        refused(config(0, 0, Selection::Herding), "state one of them");
        refused(config(20, 100, Selection::Herding), "set the other to 0");
        refused(config(20, 0, Selection::Reservoir), "memory_total");
        refused(
            ReplayConfig { memory_batch_size: 0, ..ReplayConfig::default() },
            "memory_batch_size = 0",
        );
        let replay = Replay::new(config(0, 9, Selection::Herding)).expect("valid");
        assert!(replay.check(&facts(9)).is_ok());
        assert!(
            replay.check(&facts(10)).expect_err("too small").to_string().contains("raise it to 10")
        );
    }
}
