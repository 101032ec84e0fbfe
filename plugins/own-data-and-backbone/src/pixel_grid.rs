//! A backbone without weights: products of neighbouring pixels, averaged, which tell the directions
//! of stripes. It has no capabilities beyond features, so methods that need more (LoRA pairs,
//! prompts) say at the start that they cannot use it.

use candle_core::{D, Tensor};
use cilbench::backbone::{
    Backbone, BackboneEntry, BackboneInfo, BackboneOptions, Capability, Features, LowRank, Pass,
    Site,
};
use cilbench::{Error, Result};

inventory::submit! {
    BackboneEntry {
        name: "pixel-grid",
        summary: "correlations of neighbouring pixels: an example without weights",
        build: |options, _, _| Ok(Box::new(PixelGrid::new(options))),
    }
}

/// How far apart the two pixels of a feature are, in columns and rows.
const SHIFTS: [(usize, usize); 8] =
    [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3), (2, 2)];

struct PixelGrid {
    info: BackboneInfo,
}

impl PixelGrid {
    fn new(options: &BackboneOptions) -> Self {
        let info = BackboneInfo {
            name: "pixel-grid".into(),
            // What stands for the weights of a backbone that has none: changed whenever its
            // features change.
            weights_hash: cilbench::sha256(b"pixel-grid 1"),
            dim: SHIFTS.len(),
            blocks: 1,
            heads: 1,
            patch: 1,
            image_size: options.image_size.unwrap_or(16),
            mean: [0.0; 3],
            std: [1.0; 3],
            pretrained_on: Vec::new(),
            parameters: 0,
            weight_id: String::new(),
            assumed: Vec::new(),
            notes: Vec::new(),
        };
        Self { info }
    }
}

impl Backbone for PixelGrid {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn supports(&self, _: Capability) -> bool {
        false
    }

    /// Features (batch, dim) of images (batch, 3, size, size).
    fn forward(&self, images: &Tensor, pass: Pass) -> Result<Features> {
        if pass.low_rank.is_some()
            || pass.cls_tokens
            || pass.adapters.is_some()
            || pass.extra_tokens.is_some()
        {
            return Err(Error::Unsupported(
                "backbone 'pixel-grid' has features and nothing else".into(),
            ));
        }
        let grey = images.mean(1)?;
        let grey = grey.broadcast_sub(&grey.mean_keepdim(D::Minus1)?.mean_keepdim(1)?)?; // (batch, size, size)
        let n = self.info.image_size - 3;
        let window = grey.narrow(1, 0, n)?.narrow(2, 0, n)?;
        let feature = |(x, y): &(usize, usize)| -> Result<Tensor> {
            let shifted = grey.narrow(1, *y, n)?.narrow(2, *x, n)?;
            Ok((&window * shifted)?.flatten_from(1)?.mean(1)?)
        };
        let features = SHIFTS.iter().map(feature).collect::<Result<Vec<_>>>()?;
        Ok(Features { cls: Tensor::stack(&features, 1)?, blocks: None, extra: None })
    }

    fn projection(&self, site: Site) -> Result<(usize, usize)> {
        Err(Error::Unsupported(format!("backbone 'pixel-grid' has no projection {site}")))
    }

    fn fold(&mut self, _: &LowRank) -> Result<()> {
        Err(Error::Unsupported("backbone 'pixel-grid' has no projections".into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use cilbench::scenario::{self, Scenario, ScenarioOptions, TaskStream};

    use super::*;

    #[test]
    fn the_scenario_opens_and_the_backbone_takes_its_images() {
        let spec = scenario::find("stripes-3").expect("registered");
        let dataset = cilbench::data::find(&spec.dataset).expect("registered");
        assert_eq!(dataset.name, "stripes");
        let options = ScenarioOptions { image_size: Some(16), ..ScenarioOptions::default() };
        let data = std::sync::Arc::new(crate::stripes::opened());
        let mut stream =
            TaskStream::new(&spec, &options, data, "official".parse().expect("a split"))
                .expect("a stream");
        let task = stream.next_task().expect("a task").expect("a first one");
        assert_eq!(task.info.class_names, ["0 degrees", "30 degrees"]);
        let batch = task
            .train
            .load(
                &[0, 1],
                &stream.info().transforms.clone(),
                cilbench::data::View::Test,
                cilbench::data::Augment::Never,
            )
            .expect("images");
        let images =
            Tensor::from_vec(batch.images, (2, 3, 16, 16), &Device::Cpu).expect("a tensor");
        let entry = cilbench::backbone::find("pixel-grid").expect("registered");
        let backbone =
            (entry.build)(&BackboneOptions::default(), DType::F32, &Device::Cpu).expect("built");
        assert_eq!(
            backbone.forward(&images, Pass::default()).expect("features").cls.dims(),
            [2, SHIFTS.len()]
        );
    }
}
