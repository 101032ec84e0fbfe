//! All that a method may ask of the harness: passes over the current task, draws, probes, and the
//! memory of exemplars. [`Context`] is the comfortable face of a [`Host`]; [`Carry`] declares what
//! the method carries.

mod carry;
mod host;

use candle_core::{DType, Device, Tensor};

pub use carry::{Carried, Carry, Fresh, Held, Loader, OnHost, Stored, Value, Variable};
use host::unexpected;
pub use host::{
    Drawn, Exemplar, Host, Law, MemoryImage, MemoryRequest, NoHost, Placement, PlainBatch, Reply,
    Request, Serialised, TaskCall,
};
pub(crate) use host::{draw, round_trip};

use crate::Result;
use crate::array::Array;
use crate::data::View;
use crate::nn::Normals;

/// The face of a [`Host`] to a method: typed calls, tensors on the run's device and in its dtype.
pub struct Context<'a> {
    host: &'a mut dyn Host,
    carried: &'a Carried,
    placement: &'a Placement,
}

/// A batch as tensors.
#[derive(Debug, Clone)]
pub struct Images {
    /// (batch, 3, height, width) in \[0, 1\], in the run's dtype on its device.
    pub images: Tensor,
    /// (batch), i64: classes as the model sees them.
    pub labels: Tensor,
    /// The same labels on the host.
    pub host_labels: Vec<i64>,
    /// Positions in the task's training set.
    pub positions: Vec<usize>,
}

impl<'a> Context<'a> {
    /// A context whose calls are answered by `host`, for a method that carries `carried`.
    pub fn new(host: &'a mut dyn Host, carried: &'a Carried, placement: &'a Placement) -> Self {
        Self { host, carried, placement }
    }

    /// Declares tensors outside of [`Method::grow`](crate::method::Method::grow) and
    /// [`Method::settle`](crate::method::Method::settle): those of a step or of a phase, which
    /// must be gone when the task is over.
    pub fn carry(&mut self) -> Carry<'_> {
        Carry::fresh(self.host, self.carried, self.placement)
    }

    /// Everything that the method carries.
    pub fn carried(&self) -> &Carried {
        self.carried
    }

    /// The run's device and floating-point type.
    pub fn placement(&self) -> &'a Placement {
        self.placement
    }

    /// The run's device.
    pub fn device(&self) -> &'a Device {
        &self.placement.device
    }

    /// The run's floating-point type.
    pub fn dtype(&self) -> DType {
        self.placement.dtype
    }

    /// Random numbers of the method's own stream, as a tensor of this shape.
    ///
    /// # Errors
    /// If the host has no such numbers (a replay whose file lacks them).
    pub fn draw(&mut self, name: impl Into<String>, shape: &[usize], law: Law) -> Result<Tensor> {
        draw(self.host, name.into(), shape, law, self.placement)
    }

    /// A matrix of standard normal numbers, the same that [`Context::draw`] gives, which in a run
    /// of this process are made where they are needed.
    ///
    /// # Errors
    /// As [`Context::draw`].
    pub fn normals(&mut self, name: impl Into<String>, shape: [usize; 2]) -> Result<Normals> {
        Ok(match self.host.normals(name.into(), shape)? {
            Drawn::Stream(stream) => Normals::of_stream(stream, shape),
            Drawn::Array(array) => Normals::of(&array.to_dtype(self.dtype(), self.device())?)?,
        })
    }

    /// `n` random numbers as [`Context::draw`] gives them, on the host: for decisions that no
    /// tensor needs.
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
        match self.host.answer(Request::Draw {
            name: name.into(),
            shape: vec![n],
            law: Law::Permutation,
        })? {
            Reply::Array(array) if array.len() == n => array.to_tensor(self.device()),
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

    /// One pass over the current task's training images, in canonical order; `each` gets every
    /// batch.
    ///
    /// # Errors
    /// If an image cannot be read, or `each` fails.
    pub fn pass(
        &mut self,
        view: View,
        batch_size: usize,
        mut each: impl FnMut(Images) -> Result<()>,
    ) -> Result<()> {
        let pass = match self.host.answer(Request::OpenPass { view, batch_size })? {
            Reply::Pass(pass) => pass,
            other => return Err(unexpected("open-pass", &other)),
        };
        loop {
            match self.host.answer(Request::NextBatch { pass })? {
                Reply::Batch(Some(batch)) => each(Images::from_plain(batch, self.placement)?)?,
                Reply::Batch(None) => return Ok(()),
                other => return Err(unexpected("next-batch", &other)),
            }
        }
    }

    /// Shows the harness a quantity; it is only computed if the harness looks.
    ///
    /// # Errors
    /// If the host fails.
    pub fn probe(
        &mut self,
        name: impl Into<String>,
        value: impl FnOnce() -> Result<Tensor>,
    ) -> Result<()> {
        if !self.host.probing() {
            return Ok(());
        }
        match self
            .host
            .answer(Request::Probe { name: name.into(), value: Array::from_tensor(&value()?)? })?
        {
            Reply::Done => Ok(()),
            other => Err(unexpected("probe", &other)),
        }
    }

    /// Stores images of the current task in the memory, each with a row of `payload` if there is
    /// one.
    ///
    /// # Errors
    /// If the method's entry declares no memory, or a position is out of range.
    pub fn memorise(
        &mut self,
        positions: &[usize],
        payload: Option<&Tensor>,
    ) -> Result<Vec<Exemplar>> {
        let payload = payload.map(Array::from_tensor).transpose()?;
        match self.host.answer(Request::Memory(MemoryRequest::Insert {
            positions: positions.to_vec(),
            payload,
        }))? {
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
            Reply::Batch(Some(batch)) => Images::from_plain(batch, self.placement),
            other => Err(unexpected("memory read", &other)),
        }
    }
}

impl Images {
    /// The batch as tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// If the bytes do not fit the shape.
    pub fn from_plain(batch: PlainBatch, placement: &Placement) -> Result<Self> {
        let Placement { device, dtype } = placement;
        Ok(Self {
            images: batch.images.to_dtype(*dtype, device)?,
            labels: Tensor::new(batch.labels.as_slice(), device)?,
            host_labels: batch.labels,
            positions: batch.positions,
        })
    }
}
