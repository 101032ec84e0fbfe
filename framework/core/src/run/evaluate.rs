//! Scoring: one forward pass over the test images of all tasks seen so far.

use candle_core::DType;

use super::protocol::to_tensors;
use crate::context::Placement;
use crate::data::{Augment, Loader, Transforms, View};
use crate::method::Player;
use crate::metrics::{self, Prediction};
use crate::scenario::Task;
use crate::{Error, Result};

/// Images per forward pass, unless the method's plan says otherwise.
pub const TEST_BATCH: usize = 64;

/// Predictions for the test images of `tasks`, `batch` images at a time; `watch` is called after
/// every batch and may stop the run.
///
/// # Errors
/// [`Error::Protocol`] for logits of another shape, [`Error::Diverged`] for logits that are not
/// finite.
pub fn evaluate(
    player: &dyn Player,
    tasks: &[Task],
    transforms: &Transforms,
    placement: &Placement,
    batch: usize,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Prediction>> {
    let classes: Vec<Vec<usize>> = tasks.iter().map(|t| t.info.classes.clone()).collect();
    let seen = classes.iter().flatten().max().map_or(0, |c| c + 1);
    let mut all = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let all_images = (0..task.test.len()).collect();
        let never = Augment::Never;
        for batch in Loader::new(&task.test, all_images, batch, 0, transforms, View::Test, never) {
            let data = to_tensors(batch?, transforms.image_size, placement)?;
            let logits = player.predict(&data.images)?.to_dtype(DType::F64)?;
            let (n, width) = logits.dims2()?;
            if (n, width) != (data.host_labels.len(), seen) {
                let expected = data.host_labels.len();
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
            all.extend(metrics::predictions(&logits, &keys, &data.host_labels, index, &classes));
            watch()?;
        }
    }
    Ok(all)
}
