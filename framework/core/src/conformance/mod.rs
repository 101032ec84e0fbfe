//! The conformance suite: the rules that every method keeps, ours and a third party's, each checked
//! by real small runs.
//!
//! ```no_run
//! for case in cilbench::conformance::cases() {
//!     (case.check)(cilbench::method::find("my-method")?)?;
//! }
//! # Ok::<(), cilbench::Error>(())
//! ```

pub(crate) mod trial;

use candle_core::DType;

use crate::context::{Host, Placement, Serialised};
use crate::method::{Access, MethodEntry, Player};
use crate::run::{Course, EpochFeed, Memory, Shown, TaskDrive, TaskHost};
use crate::scenario::Scenario;
use crate::state::{Kind, State};
use crate::{Error, Result};

use trial::Trial;

/// A rule, and how it is checked.
pub struct Case {
    /// The rule, in words.
    pub rule: &'static str,
    /// Fails if a method breaks it.
    pub check: fn(&MethodEntry) -> Result<()>,
}

/// All rules.
pub fn cases() -> Vec<Case> {
    let case = |rule, check| Case { rule, check };
    vec![
        case("losses and logits are finite, logits have one column a class seen", |e| {
            Trial::default().run(e).map(drop)
        }),
        case("one class a task", |e| Trial { tasks: 4, ..Trial::default() }.run(e).map(drop)),
        case("one image a class", |e| Trial { images: 1, ..Trial::default() }.run(e).map(drop)),
        case("a last batch of one image", |e| {
            Trial { batch: 5, images: 3, ..Trial::default() }.run(e).map(drop)
        }),
        case("the same seed gives the same bits", same_seed),
        case("stopped in mid-task and resumed, it ends in the same bits", resume),
        case(
            "rebuilt from its counted state alone, it predicts the same (the amnesia audit)",
            |e| Trial { audit: true, ..Trial::default() }.run(e).map(drop),
        ),
        case(
            "rebuilt from its counted state alone, it goes on the same: nothing of past tasks is kept elsewhere",
            amnesia,
        ),
        case(
            "a training step changes only what is declared as trained, optimiser or buffer",
            only_declared,
        ),
        case("every call survives serialisation, as at a plugin boundary", serialised),
        case("it asks for a memory of exemplars only if it declares one", declared_access),
    ]
}

fn equal(what: &str, a: &trial::Outcome, b: &trial::Outcome) -> Result<()> {
    for (task, (a, b)) in a.tasks.iter().zip(&b.tasks).enumerate() {
        if a != b {
            return Err(Error::Protocol(format!(
                "{what}: the weights or the scores after task {task} differ"
            )));
        }
    }
    Ok(())
}

fn same_seed(entry: &MethodEntry) -> Result<()> {
    equal("two runs with one seed", &Trial::default().run(entry)?, &Trial::default().run(entry)?)
}

fn resume(entry: &MethodEntry) -> Result<()> {
    let whole = Trial::default().run(entry)?;
    for stop_after in [1, 4, 5] {
        equal(
            "stopped and resumed",
            &whole,
            &Trial { stop_after: Some(stop_after), ..Trial::default() }.run(entry)?,
        )?;
    }
    Ok(())
}

fn amnesia(entry: &MethodEntry) -> Result<()> {
    let trial = Trial { tasks: 4, ..Trial::default() };
    equal(
        "with and without forgetting all but its state",
        &trial.run(entry)?,
        &Trial { audit: true, ..trial }.run(entry)?,
    )
}

/// The method by itself, through two tasks, with its state before and after every step.
struct Alone {
    player: Box<dyn Player>,
    states: Vec<State>,
}

/// Whether the calls of a method stay in this process as they are.
#[derive(Clone, Copy, PartialEq)]
enum Calls {
    AsTheyAre,
    /// Every call in either direction goes through bytes and back.
    ThroughBytes,
}

fn alone(entry: &MethodEntry, calls: Calls) -> Result<Alone> {
    let (trial, placement) = (Trial::default(), Placement::cpu(DType::F32));
    let mut player = match calls {
        Calls::AsTheyAre => trial.player(entry)?,
        Calls::ThroughBytes => trial.player_behind_messages(entry)?,
    };
    let mut scenario = trial.scenario()?;
    let transforms = scenario.info().transforms.clone();
    let (mut memory, mut states, access) = (Memory::default(), Vec::new(), entry.about.access);
    let mut course = Course::open(&mut scenario, [(&*player, access)], None)?;
    while let Some(Shown { tasks: [task], .. }) = course.next_task()? {
        let mut host =
            TaskHost::new(0, task.info.index, access, &task.train, &transforms, &mut memory);
        let mut by_bytes;
        let host: &mut dyn Host = match calls {
            Calls::AsTheyAre => &mut host,
            Calls::ThroughBytes => {
                by_bytes = Serialised(&mut host);
                &mut by_bytes
            }
        };
        let feed = EpochFeed { task: &task, transforms: &transforms, seed: 0 };
        let mut drive = TaskDrive::plan(&mut *player, &task.info, host, feed, &placement)?;
        drive.begin()?;
        states.push(drive.player().state()?);
        while drive.step()?.is_some() {
            let state = drive.player().state()?;
            // The state after a step is the one before the next.
            states.extend([state.clone(), state]);
        }
        states.pop();
        drive.end()?;
    }
    Ok(Alone { player, states })
}

fn only_declared(entry: &MethodEntry) -> Result<()> {
    for pair in alone(entry, Calls::AsTheyAre)?.states.chunks(2) {
        let [before, after] = pair else { continue };
        for (name, entry) in after.iter() {
            let same = before.get(name) == Some(entry);
            if !same && entry.kind == Kind::Statistic {
                return Err(Error::Protocol(format!(
                    "a training step changed '{name}', which is declared a statistic"
                )));
            }
        }
        if let Some((gone, _)) = before.iter().find(|(name, _)| after.get(name).is_none()) {
            return Err(Error::Protocol(format!(
                "a training step removed '{gone}' from the state"
            )));
        }
    }
    Ok(())
}

fn serialised(entry: &MethodEntry) -> Result<()> {
    let (plain, bytes) = (
        alone(entry, Calls::AsTheyAre)?.player.state()?,
        alone(entry, Calls::ThroughBytes)?.player.state()?,
    );
    if plain.hash() != bytes.hash() {
        return Err(Error::Protocol(
            "with every call sent through bytes the method ends in another state".into(),
        ));
    }
    let whole: State = postcard::to_stdvec(&plain)
        .and_then(|b| postcard::from_bytes(&b))
        .map_err(|e| Error::Protocol(format!("the state does not survive serialisation: {e}")))?;
    if whole != plain {
        return Err(Error::Protocol("the state does not survive serialisation".into()));
    }
    Ok(())
}

fn declared_access(entry: &MethodEntry) -> Result<()> {
    let outcome = Trial::default().run(entry)?;
    if entry.about.access == Access::Stream && outcome.stored_images > 0 {
        return Err(Error::Protocol(format!(
            "{} images are stored, but no memory is declared",
            outcome.stored_images
        )));
    }
    Ok(())
}
