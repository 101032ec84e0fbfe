//! Methods that break the rules, and the suite that must catch them.

use std::marker::PhantomData;

use candle_core::{DType, Device, Tensor};
use cilbench::backbone::{Backbone, Pass};
use cilbench::conformance::cases;
use cilbench::context::{Context, Images};
use cilbench::data::View;
use cilbench::method::{
    About, Batch, Carry, Fresh, Losses, Method, MethodEntry, Plan, Setup, Value,
};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Config {}

/// What is wrong with a method.
#[derive(Clone, Copy, PartialEq)]
enum Cheat {
    Nothing,
    /// Class means that are kept beside those declared.
    HiddenTensor,
    /// Old images kept in the method, and averaged in again later.
    OldImages,
    /// A number drawn from the clock.
    Clock,
    /// A call to a memory that was not declared.
    Memory,
    /// Statistics that a training step changes.
    Drifting,
    /// Logits for all classes there will ever be.
    TooManyLogits,
    /// One name declared for two tensors.
    Twice,
}

trait Fault: 'static {
    const CHEAT: Cheat;
}

/// Class means on frozen features, with one thing wrong.
struct Suspect<F> {
    backbone: Box<dyn Backbone>,
    /// (dim) of each class.
    means: Vec<Value>,
    hidden_means: Vec<Tensor>,
    hidden_images: Vec<Images>,
    twin: Option<Value>,
    fault: PhantomData<F>,
}

impl<F: Fault> Suspect<F> {
    fn learn(&mut self, batches: &[Images]) -> Result<()> {
        let mut sums = vec![(Tensor::zeros(16, DType::F32, &Device::Cpu)?, 0.0); self.means.len()];
        for batch in batches {
            let features = self.backbone.forward(&batch.images, Pass::default())?.cls;
            for (i, class) in batch.host_labels.iter().enumerate() {
                let (sum, n) = &mut sums[*class as usize];
                (*sum, *n) = ((&*sum + features.get(i)?)?, *n + 1.0);
            }
        }
        for (class, (sum, n)) in sums.into_iter().enumerate().filter(|(_, (_, n))| *n > 0.0) {
            self.set(class, (sum / n)?)?;
        }
        Ok(())
    }

    fn set(&mut self, class: usize, mean: Tensor) -> Result<()> {
        if F::CHEAT != Cheat::HiddenTensor {
            return self.means[class].replace(&mean);
        }
        if class < self.hidden_means.len() {
            self.hidden_means[class] = mean
        } else {
            self.hidden_means.push(mean)
        }
        Ok(())
    }

    fn shift(&self, by: f64) -> Result<()> {
        self.means.iter().try_for_each(|mean| mean.replace(&(&*mean.get()? + by)?))
    }
}

impl<F: Fault> Method for Suspect<F> {
    type Config = Config;
    cilbench::model!();
    const ABOUT: About = About { name: "suspect", trains: "nothing", ..About::DEFAULT };

    fn new(_: Config, setup: Setup) -> Result<Self> {
        Ok(Self {
            backbone: setup.backbone,
            means: Vec::new(),
            hidden_means: Vec::new(),
            hidden_images: Vec::new(),
            twin: None,
            fault: PhantomData,
        })
    }

    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(Plan::epochs(1, 4, View::Test))
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if F::CHEAT == Cheat::Memory && task.index > 0 {
            ctx.exemplars()?;
        }
        Ok(())
    }

    fn observe(&mut self, _: &Batch, _: &TaskInfo, _: &mut Context) -> Result<Losses> {
        if F::CHEAT == Cheat::Drifting {
            self.shift(0.01)?;
        }
        Ok(Losses::default())
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        for class in &task.classes {
            self.means.push(carry.value(
                format!("mean.{class}"),
                Kind::Statistic,
                &[16],
                Fresh::Zeros,
            )?);
        }
        if F::CHEAT == Cheat::Twice {
            self.twin = Some(carry.value("mean.0", Kind::Statistic, &[16], Fresh::Zeros)?);
        }
        Ok(())
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let mut batches = Vec::new();
        ctx.pass(View::Test, 4, |batch| {
            batches.push(batch);
            Ok(())
        })?;
        if F::CHEAT == Cheat::OldImages {
            self.hidden_images.extend(batches.iter().cloned());
            // Old images are looked at once more: the old means move by what is hidden.
            let all = self.hidden_images.clone();
            self.learn(&all)?;
            return self.shift(all.len() as f64);
        }
        self.learn(&batches)?;
        if F::CHEAT == Cheat::Clock {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = now.map_err(|e| Error::Protocol(e.to_string()))?.subsec_nanos();
            self.shift(f64::from(nanos))?;
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let declared = self
            .means
            .iter()
            .map(|mean| Ok(mean.get()?.as_ref().clone()))
            .collect::<Result<Vec<_>>>()?;
        let hidden = F::CHEAT == Cheat::HiddenTensor && !self.hidden_means.is_empty();
        let means = if hidden { &self.hidden_means } else { &declared };
        let logits = self
            .backbone
            .forward(images, Pass::default())?
            .cls
            .matmul(&Tensor::stack(means, 0)?.t()?)?;
        Ok(if F::CHEAT == Cheat::TooManyLogits { logits.pad_with_zeros(1, 0, 1)? } else { logits })
    }
}

macro_rules! suspect {
    ($type:ident, $cheat:expr) => {
        struct $type;
        impl Fault for $type {
            const CHEAT: Cheat = $cheat;
        }
    };
}

suspect!(Honest, Cheat::Nothing);
suspect!(HidesATensor, Cheat::HiddenTensor);
suspect!(KeepsOldImages, Cheat::OldImages);
suspect!(AsksTheClock, Cheat::Clock);
suspect!(OpensTheMemory, Cheat::Memory);
suspect!(DriftsStatistics, Cheat::Drifting);
suspect!(PredictsTheFuture, Cheat::TooManyLogits);
suspect!(DeclaresTwice, Cheat::Twice);

/// The rules a method breaks.
fn broken<F: Fault>() -> Vec<&'static str> {
    let entry = MethodEntry::of::<Suspect<F>>();
    cases().into_iter().filter(|c| (c.check)(&entry).is_err()).map(|c| c.rule).collect()
}

fn caught<F: Fault>(by: &str) {
    let rules = broken::<F>();
    assert!(rules.iter().any(|r| r.contains(by)), "{rules:?}");
}

#[test]
fn an_honest_method_breaks_no_rule() {
    assert_eq!(broken::<Honest>(), Vec::<&str>::new());
}

#[test]
fn a_hidden_tensor_is_caught_by_the_audit() {
    caught::<HidesATensor>("amnesia audit");
}

#[test]
fn hidden_old_images_are_caught() {
    caught::<KeepsOldImages>("nothing of past tasks is kept elsewhere");
}

#[test]
fn randomness_of_its_own_is_caught() {
    caught::<AsksTheClock>("same seed");
}

#[test]
fn an_undeclared_memory_is_caught() {
    caught::<OpensTheMemory>("memory of exemplars only if it declares one");
}

#[test]
fn statistics_that_drift_are_caught() {
    caught::<DriftsStatistics>("changes only what is declared");
}

#[test]
fn logits_for_unseen_classes_are_caught() {
    caught::<PredictsTheFuture>("logits have one column a class seen");
}

#[test]
fn a_name_that_is_declared_twice_is_named() {
    let entry = MethodEntry::of::<Suspect<DeclaresTwice>>();
    let error = (cases()[0].check)(&entry).expect_err("two tensors of one name").to_string();
    assert!(error.contains("the method declares 'mean.0' twice"), "{error}");
}
