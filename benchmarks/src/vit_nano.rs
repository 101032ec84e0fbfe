//! ViT-Nano, embedded in the binary: dim 128, depth 6, 4 heads, patch 8, 32×32 images. Trained from
//! scratch by the authors of cilbench.

use std::path::Path;

use cilbench::Error;
use cilbench::backbone::{BackboneEntry, Vit, WeightsFile};

static WEIGHTS: &[u8] = include_bytes!("../weights/vit_nano.safetensors");

inventory::submit! {
    BackboneEntry {
        name: "vit-nano",
        summary: "a tiny ViT embedded in the binary (1.2 M parameters, 32×32), for trying things out",
        build: |options, dtype, device| {
            if let Some(path) = &options.weights {
                let text = format!("backbone 'vit-nano' brings its own weights: for {} use --backbone vit", path.display());
                return Err(Error::usage(text));
            }
            let file = WeightsFile::parse(Path::new("vit_nano.safetensors (embedded)"), WEIGHTS)?;
            Ok(Box::new(Vit::new("vit-nano", &file, options, dtype, device)?))
        },
    }
}
