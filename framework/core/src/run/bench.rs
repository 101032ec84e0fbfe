//! How long a training step and a prediction take at a given task of a scenario.

use std::time::Instant;

use candle_core::{DType, Device};

use super::drive::to_tensors;
use super::host::TaskHost;
use super::memory::Memory;
use crate::context::Context;
use crate::data::View;
use crate::method::{Access, Batch, Method};
use crate::scenario::Scenario;
use crate::{Error, Result};

/// Seconds of each timed step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepSeconds {
    /// Of training steps; none of a method that learns nothing before the task's end.
    pub train: Vec<f64>,
    /// Of predictions on as many images; none likewise.
    pub predict: Vec<f64>,
    /// The step's loss terms, to see that the work is done.
    pub losses: Vec<(String, f64)>,
}

impl StepSeconds {
    /// The median of the timed training steps and of the predictions, in seconds.
    pub fn medians(&self) -> (Option<f64>, Option<f64>) {
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied()
        };
        (median(&self.train), median(&self.predict))
    }
}

/// Takes `method` through the tasks before `task` with one step each, then times `steps` training steps and predictions of that task, on the first
/// `batch` of its images, after one step to warm up. Loading is not timed; a device has done all its work when a clock is read. The method is of no use
/// afterwards.
///
/// # Errors
/// [`Error::Usage`] if the scenario has no such task; whatever the method fails with.
pub fn bench_steps(
    method: &mut dyn Method,
    scenario: &mut dyn Scenario,
    (access, task, batch, steps): (Access, usize, usize, usize),
    (dtype, device): (DType, &Device),
) -> Result<StepSeconds> {
    const WARM: usize = 1;
    let transforms = scenario.info().transforms.clone();
    let mut memory = Memory::default();
    while let Some(current) = scenario.next_task()? {
        let last = current.info.index == task;
        let mut host = TaskHost::new(0, current.info.index, access, &current.train, &transforms, &mut memory);
        let learns = method.plan(&current.info).epochs > 0;
        method.begin_task(&current.info, &mut Context::new(&mut host, device, dtype))?;
        let count = if last { batch } else { batch.min(8) }.min(current.train.len());
        let positions: Vec<usize> = (0..count).collect();
        let mut found = StepSeconds::default();
        for step in 0..if last { WARM + steps } else { 1 } {
            let loaded = current.train.load(&positions, &transforms, View::Train, (0, current.info.index, step))?;
            let data = to_tensors(loaded, transforms.image_size, dtype, device)?;
            let images = data.images.clone();
            device.synchronize()?;
            let began = Instant::now();
            let losses = method.observe(&Batch { data, epoch: 0, step }, &current.info, &mut Context::new(&mut host, device, dtype))?;
            device.synchronize()?;
            let trained = began.elapsed().as_secs_f64();
            if !last {
                continue;
            }
            let began = Instant::now();
            if learns {
                // Read, as scoring reads them.
                method.predict(&images)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
            }
            let predicted = began.elapsed().as_secs_f64();
            if step >= WARM && learns {
                found.train.push(trained);
                found.predict.push(predicted);
                found.losses = losses.0;
            }
        }
        if last {
            return Ok(found);
        }
        method.end_task(&current.info, &mut Context::new(&mut host, device, dtype))?;
    }
    Err(Error::usage(format!("there is no task {}", task + 1)))
}
