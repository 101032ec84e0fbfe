//! Methods that break the rules, and the suite that must catch them.

use candle_core::{DType, Device, Tensor};
use cilbench::backbone::{Backbone, Pass};
use cilbench::conformance::cases;
use cilbench::context::{Context, Images};
use cilbench::data::View;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::scenario::TaskInfo;
use cilbench::state::{Kind, State};
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
    /// Class means that the state does not hold.
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
}

/// Class means on frozen features, with one thing wrong.
struct Suspect {
    cheat: Cheat,
    backbone: Box<dyn Backbone>,
    means: Vec<Tensor>,
    hidden: Vec<Images>,
}

impl Suspect {
    fn learn(&mut self, classes: usize, batches: &[Images]) -> Result<()> {
        let mut sums = vec![(Tensor::zeros(16, DType::F32, &Device::Cpu)?, 0.0); classes];
        for batch in batches {
            let features = self.backbone.forward(&batch.images, Pass::default())?.cls;
            for (i, class) in batch.classes.iter().enumerate() {
                let (sum, n) = &mut sums[*class as usize];
                (*sum, *n) = ((&*sum + features.get(i)?)?, *n + 1.0);
            }
        }
        for (class, (sum, n)) in sums.into_iter().enumerate().filter(|(_, (_, n))| *n > 0.0) {
            let mean = (sum / n)?;
            if class < self.means.len() { self.means[class] = mean } else { self.means.push(mean) }
        }
        Ok(())
    }
}

impl Method for Suspect {
    fn plan(&self, _: &TaskInfo) -> Plan {
        Plan { epochs: 1, batch_size: 4, view: View::Test }
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if self.cheat == Cheat::Memory && task.index > 0 {
            ctx.exemplars()?;
        }
        Ok(())
    }

    fn observe(&mut self, _: &Batch, _: &TaskInfo, _: &mut Context) -> Result<Losses> {
        if self.cheat == Cheat::Drifting {
            for mean in &mut self.means {
                *mean = (&*mean * 1.01)?;
            }
        }
        Ok(Losses(Vec::new()))
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let mut batches = Vec::new();
        ctx.pass(View::Test, 4, |batch| {
            batches.push(batch);
            Ok(())
        })?;
        if self.cheat == Cheat::OldImages {
            self.hidden.extend(batches.iter().cloned());
            // Old images are looked at once more: the old means move by what is hidden.
            let all = self.hidden.clone();
            self.learn(task.first_class + task.classes.len(), &all)?;
            for mean in &mut self.means {
                *mean = (&*mean + self.hidden.len() as f64)?;
            }
            return Ok(());
        }
        self.learn(task.first_class + task.classes.len(), &batches)?;
        if self.cheat == Cheat::Clock {
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| Error::Protocol(e.to_string()))?;
            self.means[0] = (&self.means[0] + f64::from(nanos.subsec_nanos()))?;
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let logits = self.backbone.forward(images, Pass::default())?.cls.matmul(&Tensor::stack(&self.means, 0)?.t()?)?;
        Ok(if self.cheat == Cheat::TooManyLogits { logits.pad_with_zeros(1, 0, 1)? } else { logits })
    }

    fn cls_tokens(&self, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        for (class, mean) in self.means.iter().enumerate() {
            let told = if self.cheat == Cheat::HiddenTensor { mean.zeros_like()? } else { mean.clone() };
            state.put(format!("mean.{class}"), Kind::Statistic, &told)?;
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        let classes: usize = tasks[..tasks.len() - usize::from(running)].iter().map(|t| t.classes.len()).sum();
        self.means = (0..classes).map(|c| state.tensor(&format!("mean.{c}"), DType::F32, &Device::Cpu)).collect::<Result<_>>()?;
        Ok(())
    }
}

macro_rules! suspect {
    ($type:ident, $cheat:expr) => {
        struct $type(Suspect);
        impl Method for $type {
            fn plan(&self, task: &TaskInfo) -> Plan {
                self.0.plan(task)
            }
            fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
                self.0.begin_task(task, ctx)
            }
            fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
                self.0.observe(batch, task, ctx)
            }
            fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
                self.0.end_task(task, ctx)
            }
            fn predict(&self, images: &Tensor) -> Result<Tensor> {
                self.0.predict(images)
            }
            fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
                self.0.cls_tokens(images)
            }
            fn state(&self) -> Result<State> {
                self.0.state()
            }
            fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
                self.0.restore(state, tasks, running)
            }
        }
        impl Registered for $type {
            type Config = Config;
            const ABOUT: About = About {
                name: stringify!($type),
                version: "1",
                summary: "",
                paper: "",
                access: Access::Stream,
                trains: "nothing",
                presets: "",
            };
            fn new(_: Config, setup: Setup) -> Result<Self> {
                Ok(Self(Suspect { cheat: $cheat, backbone: setup.backbone, means: Vec::new(), hidden: Vec::new() }))
            }
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

/// The rules a method breaks.
fn broken<M: Registered>() -> Vec<&'static str> {
    let entry = MethodEntry::of::<M>();
    cases().into_iter().filter(|c| (c.check)(&entry).is_err()).map(|c| c.rule).collect()
}

fn caught<M: Registered>(by: &str) {
    let rules = broken::<M>();
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
