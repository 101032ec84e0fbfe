//! Plain data that crosses.

use std::ffi::{c_char, c_void};

use super::crossing::{Crossing, Layout, size_of_field, structs};

structs! {
    /// The outcome of a function.
    pub struct CilStatus until text {
        /// Its size in bytes.
        pub size: u64,
        /// [`OK`](super::OK), or why not.
        pub code: u32,
        /// What was wrong and what to do; null if [`OK`](super::OK).
        pub text: *const c_char,
    }

    /// A typed tensor.
    pub struct CilTensor until bytes {
        /// Its size in bytes.
        pub size: u64,
        /// The type of its elements; [`NONE`](super::NONE) if there is no tensor.
        pub element: u32,
        /// The number of its dimensions; 0 for a scalar.
        pub rank: u32,
        /// `rank` sizes.
        pub shape: *const u64,
        /// Its elements, aligned to 8 bytes.
        pub data: *const c_void,
        /// Bytes of `data`.
        pub bytes: u64,
    }

    /// Images, with labels where they are for training.
    pub struct CilBatch until positions {
        /// Its size in bytes.
        pub size: u64,
        /// The number of images; 0 at the end of a pass.
        pub count: u64,
        /// Their height in pixels.
        pub height: u64,
        /// Their width in pixels.
        pub width: u64,
        /// (count, 3, height, width), f32 in \[0, 1\].
        pub images: *const f32,
        /// Classes as the model sees them, numbered in the order of their appearance; null when
        /// predicting.
        pub labels: *const i64,
        /// Positions in the task's training set (in a read of the memory: the exemplars' ids);
        /// null when predicting.
        pub positions: *const u64,
    }

    /// What is known of a scenario before its first task.
    pub struct CilScenario until required {
        /// Its size in bytes.
        pub size: u64,
        /// The number of classes of all tasks.
        pub classes: u64,
        /// The number of tasks.
        pub tasks: u64,
        /// Not 0 if each task is a domain with all classes.
        pub domain_incremental: u32,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// A task.
    pub struct CilTask until required {
        /// Its size in bytes.
        pub size: u64,
        /// The task, from 0.
        pub index: u64,
        /// The number of tasks of the scenario.
        pub tasks: u64,
        /// The number of classes of the tasks before, where its own begin; 0 in a
        /// domain-incremental scenario.
        pub first_class: u64,
        /// The number of its training images.
        pub train_images: u64,
        /// The number of its classes.
        pub class_count: u64,
        /// Its classes, as labels have them.
        pub classes: *const u64,
        /// The names of its classes.
        pub class_names: *const *const c_char,
        /// The domain it is in; null if tasks are no domains.
        pub domain: *const c_char,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// The backbone of a run, for a plugin to build its own.
    pub struct CilBackbone until required {
        /// Its size in bytes.
        pub size: u64,
        /// The kind: `vit` for a plain ViT in a safetensors file with timm's names.
        pub entry: *const c_char,
        /// The name it was asked for by.
        pub name: *const c_char,
        /// The path of its weights; the file may be gone once `create` returns. Null for a kind
        /// that brings its own.
        pub weights: *const c_char,
        /// SHA-256 of the weights that the user named, in hexadecimal digits.
        pub weights_hash: *const c_char,
        /// The width of a token.
        pub dim: u64,
        /// The number of blocks.
        pub blocks: u64,
        /// The number of attention heads.
        pub heads: u64,
        /// The side of a patch, in pixels.
        pub patch: u64,
        /// The side of the images, in pixels.
        pub image_size: u64,
        /// Per-channel mean to subtract from images in \[0, 1\].
        pub mean: [f64; 3],
        /// Per-channel standard deviation to divide by.
        pub std: [f64; 3],
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// What a method is built from.
    pub struct CilSetup until required {
        /// Its size in bytes.
        pub size: u64,
        /// All its hyper-parameters, a JSON object.
        pub config: *const c_char,
        /// Where to compute: `cpu`, or `cuda:<n>`.
        pub device: *const c_char,
        /// In which floating-point type: [`F32`](super::F32) or [`F64`](super::F64).
        pub dtype: u32,
        /// The revision of the ABI that the harness speaks: its [`REVISION`](super::REVISION).
        pub revision: u32,
        /// The backbone.
        pub backbone: *const CilBackbone,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// A stored exemplar.
    pub struct CilExemplar until payload {
        /// Its size in bytes.
        pub size: u64,
        /// Its number; never used again.
        pub id: u64,
        /// Its class.
        pub label: i64,
        /// The task it came from.
        pub task: u64,
        /// What was stored beside it; [`NONE`](super::NONE) if nothing was.
        pub payload: CilTensor,
    }

    /// Stored exemplars.
    pub struct CilExemplars until items {
        /// Its size in bytes.
        pub size: u64,
        /// How many.
        pub count: u64,
        /// The exemplars.
        pub items: *const CilExemplar,
    }

    /// How the training images of a task are to be served.
    pub struct CilPlan until required {
        /// Its size in bytes.
        pub size: u64,
        /// Passes over them; 0 if the method only uses passes of its own.
        pub epochs: u64,
        /// Images per step. The last batch of an epoch may be smaller.
        pub batch_size: u64,
        /// [`VIEW_TRAIN`](super::VIEW_TRAIN) or [`VIEW_TEST`](super::VIEW_TEST).
        pub view: u32,
        /// Not 0 if a last batch that is smaller is left out. An epoch of one smaller batch keeps
        /// it.
        pub drop_last: u32,
        /// Steps after which training ends, if it is counted in steps; else 0. Epochs then repeat
        /// until there are as many steps, and `epochs` must be at least 1.
        pub steps: u64,
        /// Images per call of `predict` while the harness scores; 0 for the harness's own number.
        pub test_batch: u64,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// A term of a step's loss, before the update.
    pub struct CilLoss until value {
        /// Its size in bytes.
        pub size: u64,
        /// Its name.
        pub name: *const c_char,
        /// Its value.
        pub value: f64,
    }

    /// The terms of a step's loss.
    pub struct CilLosses until items {
        /// Its size in bytes.
        pub size: u64,
        /// How many.
        pub count: u64,
        /// The terms.
        pub items: *const CilLoss,
    }

    /// Predictions.
    pub struct CilLogits until data {
        /// Its size in bytes.
        pub size: u64,
        /// The number of images.
        pub rows: u64,
        /// The number of classes seen so far.
        pub columns: u64,
        /// (rows, columns).
        pub data: *const f32,
    }

    /// A tensor of a state.
    pub struct CilEntry until value {
        /// Its size in bytes.
        pub size: u64,
        /// Its name.
        pub name: *const c_char,
        /// What it is; of no meaning in an exported model.
        pub kind: u32,
        /// Its value.
        pub value: CilTensor,
    }

    /// What a method carries from task to task. No name comes twice.
    pub struct CilState until items {
        /// Its size in bytes.
        pub size: u64,
        /// The number of tensors.
        pub count: u64,
        /// The tensors.
        pub items: *const CilEntry,
    }

    /// A pair of metadata.
    pub struct CilPair until value {
        /// Its size in bytes.
        pub size: u64,
        /// Its key.
        pub key: *const c_char,
        /// Its value.
        pub value: *const c_char,
    }

    /// A model as plain tensors with the backbone's own names, heads as `head.weight` and
    /// `head.bias`.
    pub struct CilModel until pairs {
        /// Its size in bytes.
        pub size: u64,
        /// The number of tensors.
        pub count: u64,
        /// The tensors.
        pub items: *const CilEntry,
        /// The number of pairs of metadata.
        pub pair_count: u64,
        /// The metadata that a weights file needs.
        pub pairs: *const CilPair,
    }
}
