//! Scoring: one forward pass over the test images of all tasks seen so far.

use candle_core::{DType, Device};

use super::drive::to_tensors;
use crate::data::{Loader, Transforms, View};
use crate::method::Method;
use crate::metrics::{self, Prediction};
use crate::scenario::Task;
use crate::{Error, Result};

/// Images a forward pass.
const BATCH: usize = 64;

/// Predictions for the test images of `tasks`; `watch` is called after every batch and may stop the run.
///
/// # Errors
/// [`Error::Protocol`] for logits of another shape, [`Error::Diverged`] for logits that are not finite.
pub fn evaluate(
    method: &dyn Method,
    tasks: &[Task],
    transforms: &Transforms,
    (dtype, device): (DType, &Device),
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Prediction>> {
    let classes: Vec<Vec<usize>> = tasks.iter().map(|t| t.info.classes.clone()).collect();
    let seen = classes.iter().flatten().max().map_or(0, |c| c + 1);
    let mut all = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        for batch in Loader::new(&task.test, (0..task.test.len()).collect(), BATCH, 0, transforms, View::Test, (0, 0, 0)) {
            let data = to_tensors(batch?, transforms.image_size, dtype, device)?;
            let logits = method.predict(&data.images)?.to_dtype(DType::F64)?;
            let (n, width) = logits.dims2()?;
            if (n, width) != (data.classes.len(), seen) {
                let expected = data.classes.len();
                return Err(Error::Protocol(format!(
                    "the method predicted logits of {n}×{width} for {expected} images and {seen} classes seen"
                )));
            }
            let logits = logits.to_vec2::<f64>()?;
            if logits.iter().flatten().any(|v| !v.is_finite()) {
                return Err(Error::Diverged(format!(
                    "a logit is not finite after task {}, on test images of task {}",
                    tasks.len(),
                    index + 1
                )));
            }
            let keys: Vec<&str> = data.positions.iter().map(|p| task.test.key(*p)).collect();
            all.extend(metrics::predictions(&logits, &keys, &data.classes, index, &classes));
            watch()?;
        }
    }
    Ok(all)
}
