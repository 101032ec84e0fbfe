//! All that a method may ask of the harness: passes over the current task, draws, probes, and the memory of exemplars.
//!
//! Every call is a [`Request`] answered by a [`Reply`], plain data both, so that the same calls cross a plugin boundary. [`Context`] is
//! the comfortable face of it. A [`Host`] answers: the protocol engine in a run, a file of recorded draws in `cilbench verify`.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::array::Array;
use crate::data::View;
use crate::nn::Normals;
use crate::rng::NormalStream;
use crate::{Error, Result};

/// The distribution of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Law {
    /// Uniform on `[low, high)`.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Standard normal.
    Normal,
    /// A random permutation of `0..n` (i64), for a shape of one dimension `n`.
    Permutation,
}

/// A call of a method to the harness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Random numbers by name and shape, from the method's own stream. Answered by [`Reply::Array`].
    Draw {
        /// What they are for; the same name drawn again in one task gives new numbers.
        name: String,
        /// The shape.
        shape: Vec<usize>,
        /// The distribution.
        law: Law,
    },
    /// Does the harness prescribe this derived random quantity (a replay does)? Answered by [`Reply::Given`].
    Given {
        /// Which quantity.
        name: String,
    },
    /// Starts a pass over the current task's training images in canonical order. Answered by [`Reply::Pass`].
    OpenPass {
        /// With which transform.
        view: View,
        /// Images a batch; the last one may be smaller.
        batch_size: usize,
    },
    /// The next batch of a pass. Answered by [`Reply::Batch`].
    NextBatch {
        /// The pass.
        pass: u32,
    },
    /// Shows the harness a quantity, for diagnosis and replay. Answered by [`Reply::Done`].
    Probe {
        /// Its name.
        name: String,
        /// Its value.
        value: Array,
    },
    /// A call to the memory of exemplars; refused unless the method's entry declares it.
    Memory(MemoryRequest),
}

/// Calls to the memory of exemplars. The harness keeps the images; a method only names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryRequest {
    /// Stores images of the current task. Answered by [`Reply::Exemplars`], those stored.
    Insert {
        /// Their positions in the current task's training set.
        positions: Vec<usize>,
        /// One row for each, kept beside the image (stored logits).
        payload: Option<Array>,
    },
    /// Forgets exemplars. Answered by [`Reply::Done`].
    Remove {
        /// Which.
        ids: Vec<u64>,
    },
    /// What is stored. Answered by [`Reply::Exemplars`].
    List,
    /// Reads exemplars. Answered by [`Reply::Batch`].
    Read {
        /// Which, in this order.
        ids: Vec<u64>,
        /// With which transform.
        view: View,
    },
}

/// A stored exemplar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Its number; never used again.
    pub id: u64,
    /// Its class, as the model sees it.
    pub label: i64,
    /// The task it came from.
    pub task: usize,
    /// What was stored beside it.
    pub payload: Option<Array>,
}

/// A batch as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlainBatch {
    /// (batch, 3, height, width), f32 in \[0, 1\].
    pub images: Array,
    /// Classes as the model sees them, numbered in the order of their appearance.
    pub labels: Vec<i64>,
    /// Positions in the task's training set (in a read of the memory: the exemplars' ids).
    pub positions: Vec<usize>,
}

/// The harness's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// Numbers.
    Array(Array),
    /// Numbers, if the harness prescribes them.
    Given(Option<Array>),
    /// A pass was opened.
    Pass(u32),
    /// The next batch, or the end of the pass.
    Batch(Option<PlainBatch>),
    /// Exemplars.
    Exemplars(Vec<Exemplar>),
}

/// Whoever answers a method's calls.
pub trait Host {
    /// Answers one call.
    ///
    /// # Errors
    /// Whatever stands against it: an unreadable image, a memory that was not declared.
    fn answer(&mut self, request: Request) -> Result<Reply>;

    /// The numbers that a [`Request::Draw`] of [`Law::Normal`] gives, where they can be had without being drawn at once. By default they are drawn.
    ///
    /// # Errors
    /// As [`Host::answer`].
    fn normals(&mut self, name: String, shape: [usize; 2]) -> Result<Drawn> {
        match self.answer(Request::Draw { name, shape: shape.to_vec(), law: Law::Normal })? {
            Reply::Array(array) if array.shape == shape => Ok(Drawn::Array(array)),
            other => Err(unexpected("draw", &other)),
        }
    }

    /// Whether probes are looked at; a method may skip computing one that is not.
    fn probing(&self) -> bool {
        false
    }
}

/// Standard normal numbers that a host gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    /// The first ones of a sequence.
    Stream(NormalStream),
    /// Drawn already.
    Array(Array),
}

/// The face of a [`Host`] to a method: typed calls, tensors on the run's device and in its dtype.
pub struct Context<'a> {
    host: &'a mut dyn Host,
    device: Device,
    dtype: DType,
}

/// A batch as tensors.
#[derive(Debug, Clone)]
pub struct Images {
    /// (batch, 3, height, width) in \[0, 1\], in the run's dtype on its device.
    pub images: Tensor,
    /// (batch), i64: classes as the model sees them.
    pub labels: Tensor,
    /// The same labels on the host.
    pub classes: Vec<i64>,
    /// Positions in the task's training set.
    pub positions: Vec<usize>,
}

impl<'a> Context<'a> {
    /// A context whose calls are answered by `host`.
    pub fn new(host: &'a mut dyn Host, device: &Device, dtype: DType) -> Self {
        Self { host, device: device.clone(), dtype }
    }

    /// Who answers: for a method that passes its calls on.
    pub fn host(&mut self) -> &mut dyn Host {
        self.host
    }

    /// The run's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The run's floating-point type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Random numbers of the method's own stream, as a tensor of this shape.
    ///
    /// # Errors
    /// If the host has no such numbers (a replay whose file lacks them).
    pub fn draw(&mut self, name: impl Into<String>, shape: &[usize], law: Law) -> Result<Tensor> {
        match self.host.answer(Request::Draw { name: name.into(), shape: shape.to_vec(), law })? {
            Reply::Array(array) if array.shape == shape => array.to_dtype(self.dtype, &self.device),
            other => Err(unexpected("draw", &other)),
        }
    }

    /// A matrix of standard normal numbers, the same that [`Context::draw`] gives, which in a run of this process are made where they are needed.
    ///
    /// # Errors
    /// As [`Context::draw`].
    pub fn normals(&mut self, name: impl Into<String>, shape: [usize; 2]) -> Result<Normals> {
        Ok(match self.host.normals(name.into(), shape)? {
            Drawn::Stream(stream) => Normals::of_stream(stream, shape),
            Drawn::Array(array) => Normals::of(&array.to_dtype(self.dtype, &self.device)?)?,
        })
    }

    /// `n` random numbers as [`Context::draw`] gives them, on the host: for decisions that no tensor needs.
    ///
    /// # Errors
    /// As [`Context::draw`].
    pub fn numbers(&mut self, name: impl Into<String>, n: usize, law: Law) -> Result<Vec<f64>> {
        match self.host.answer(Request::Draw { name: name.into(), shape: vec![n], law })? {
            Reply::Array(array) if array.shape == [n] => array.to_f64(),
            other => Err(unexpected("draw", &other)),
        }
    }

    /// A random permutation of `0..n`, on the host; [`Context::permutation`] gives it as a tensor.
    ///
    /// # Errors
    /// As [`Context::draw`].
    pub fn order(&mut self, name: impl Into<String>, n: usize) -> Result<Vec<usize>> {
        Ok(self.numbers(name, n, Law::Permutation)?.into_iter().map(|i| i as usize).collect())
    }

    /// A random permutation of `0..n`, i64 on the run's device.
    ///
    /// # Errors
    /// As [`Context::draw`].
    pub fn permutation(&mut self, name: impl Into<String>, n: usize) -> Result<Tensor> {
        match self.host.answer(Request::Draw { name: name.into(), shape: vec![n], law: Law::Permutation })? {
            Reply::Array(array) if array.len() == n => array.to_tensor(&self.device),
            other => Err(unexpected("permutation", &other)),
        }
    }

    /// A derived random quantity, if the harness prescribes it; in an ordinary run it never does.
    ///
    /// # Errors
    /// If the host fails.
    pub fn given(&mut self, name: impl Into<String>) -> Result<Option<Array>> {
        match self.host.answer(Request::Given { name: name.into() })? {
            Reply::Given(array) => Ok(array),
            other => Err(unexpected("given", &other)),
        }
    }

    /// One pass over the current task's training images, in canonical order; `each` gets every batch.
    ///
    /// # Errors
    /// If an image cannot be read, or `each` fails.
    pub fn pass(&mut self, view: View, batch_size: usize, mut each: impl FnMut(Images) -> Result<()>) -> Result<()> {
        let pass = match self.host.answer(Request::OpenPass { view, batch_size })? {
            Reply::Pass(pass) => pass,
            other => return Err(unexpected("open-pass", &other)),
        };
        loop {
            match self.host.answer(Request::NextBatch { pass })? {
                Reply::Batch(Some(batch)) => each(Images::from_plain(batch, self.dtype, &self.device)?)?,
                Reply::Batch(None) => return Ok(()),
                other => return Err(unexpected("next-batch", &other)),
            }
        }
    }

    /// Shows the harness a quantity; it is only computed if the harness looks.
    ///
    /// # Errors
    /// If the host fails.
    pub fn probe(&mut self, name: impl Into<String>, value: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if !self.host.probing() {
            return Ok(());
        }
        match self.host.answer(Request::Probe { name: name.into(), value: Array::from_tensor(&value()?)? })? {
            Reply::Done => Ok(()),
            other => Err(unexpected("probe", &other)),
        }
    }

    /// Stores images of the current task in the memory, each with a row of `payload` if there is one.
    ///
    /// # Errors
    /// If the method's entry declares no memory, or a position is out of range.
    pub fn memorise(&mut self, positions: &[usize], payload: Option<&Tensor>) -> Result<Vec<Exemplar>> {
        let payload = payload.map(Array::from_tensor).transpose()?;
        match self.host.answer(Request::Memory(MemoryRequest::Insert { positions: positions.to_vec(), payload }))? {
            Reply::Exemplars(exemplars) => Ok(exemplars),
            other => Err(unexpected("memory insert", &other)),
        }
    }

    /// Forgets exemplars.
    ///
    /// # Errors
    /// If the method's entry declares no memory, or an id is unknown.
    pub fn forget(&mut self, ids: &[u64]) -> Result<()> {
        match self.host.answer(Request::Memory(MemoryRequest::Remove { ids: ids.to_vec() }))? {
            Reply::Done => Ok(()),
            other => Err(unexpected("memory remove", &other)),
        }
    }

    /// The stored exemplars.
    ///
    /// # Errors
    /// If the method's entry declares no memory.
    pub fn exemplars(&mut self) -> Result<Vec<Exemplar>> {
        match self.host.answer(Request::Memory(MemoryRequest::List))? {
            Reply::Exemplars(exemplars) => Ok(exemplars),
            other => Err(unexpected("memory list", &other)),
        }
    }

    /// Reads exemplars as a batch.
    ///
    /// # Errors
    /// If the method's entry declares no memory, or an id is unknown.
    pub fn recall(&mut self, ids: &[u64], view: View) -> Result<Images> {
        match self.host.answer(Request::Memory(MemoryRequest::Read { ids: ids.to_vec(), view }))? {
            Reply::Batch(Some(batch)) => Images::from_plain(batch, self.dtype, &self.device),
            other => Err(unexpected("memory read", &other)),
        }
    }
}

impl Images {
    /// The batch as tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// If the bytes do not fit the shape.
    pub fn from_plain(batch: PlainBatch, dtype: DType, device: &Device) -> Result<Self> {
        Ok(Self {
            images: batch.images.to_dtype(dtype, device)?,
            labels: Tensor::new(batch.labels.as_slice(), device)?,
            classes: batch.labels,
            positions: batch.positions,
        })
    }
}

fn unexpected(call: &str, reply: &Reply) -> Error {
    Error::Protocol(format!("{call}: the harness answered with something else: {reply:?}"))
}

/// A host that sends every call and every answer through bytes and back, as a plugin boundary does. For tests.
pub struct Serialised<'a>(pub &'a mut dyn Host);

impl Host for Serialised<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        let request: Request = round_trip(&request)?;
        let reply = self.0.answer(request)?;
        round_trip(&reply)
    }

    fn probing(&self) -> bool {
        self.0.probing()
    }
}

pub(crate) fn round_trip<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> Result<T> {
    let failed = |e: postcard::Error| Error::Protocol(format!("a message did not survive serialisation: {e}"));
    postcard::from_bytes(&postcard::to_stdvec(value).map_err(failed)?).map_err(failed)
}
