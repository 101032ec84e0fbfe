//! The frozen weights of the blocks, laid out for the CPU: each matrix also in transposed panels,
//! with LayerScale multiplied in.

use std::ops::Deref;

use candle_core::{Layout, Storage, Tensor};

use crate::nn::cpu::aligned::{Pages, large_pages};
use crate::nn::cpu::panels::Panels;
use crate::nn::cpu::simd::Float;
use crate::{Error, Result};

/// A frozen linear layer: weight (outputs, inputs), bias (outputs), and the scale (outputs) that
/// LayerScale puts on its output.
#[derive(Clone, Copy)]
pub struct LinearWeights<'a> {
    /// (outputs, inputs).
    pub weight: &'a Tensor,
    /// (outputs).
    pub bias: &'a Tensor,
    /// (outputs).
    pub scale: Option<&'a Tensor>,
}

/// The frozen weights of one block: norm 1, qkv, proj, norm 2, fc1, fc2; a norm is γ and β, (dim)
/// each.
#[derive(Clone, Copy)]
pub struct BlockWeights<'a> {
    /// Before the attention.
    pub norm1: [&'a Tensor; 2],
    /// (3·dim, dim).
    pub qkv: LinearWeights<'a>,
    /// (dim, dim).
    pub proj: LinearWeights<'a>,
    /// Before the MLP.
    pub norm2: [&'a Tensor; 2],
    /// (hidden, dim).
    pub fc1: LinearWeights<'a>,
    /// (dim, hidden).
    pub fc2: LinearWeights<'a>,
}

pub(super) struct Norm<T> {
    pub gamma: Vec<T>,
    pub beta: Vec<T>,
}

/// A linear layer in two layouts, one for the forward and one for the backward pass.
pub(super) struct Matrix<T> {
    /// (inputs, outputs).
    pub forward: Panels<T>,
    /// (outputs, inputs).
    backward: Backward<T>,
    pub bias: Vec<T>,
    pub inputs: usize,
    pub outputs: usize,
}

/// The weight (outputs, inputs): the backbone's own tensor, or a scaled copy.
enum Backward<T> {
    Shared(Tensor),
    Scaled(Vec<T>),
}

pub(super) struct Block<T> {
    pub norm1: Norm<T>,
    pub qkv: Matrix<T>,
    pub proj: Matrix<T>,
    pub norm2: Norm<T>,
    pub fc1: Matrix<T>,
    pub fc2: Matrix<T>,
}

/// The values of a contiguous CPU tensor of type `T`, held for reading.
pub(super) struct Held<'a>(Box<dyn Deref<Target = Storage> + 'a>, &'a Layout);

impl<'a> Held<'a> {
    pub fn new(tensor: &'a Tensor) -> Self {
        let (guard, layout) = tensor.storage_and_layout();
        Self(Box::new(guard), layout)
    }

    pub fn values<T: Float>(&self) -> Result<&[T]> {
        let Storage::Cpu(storage) = &**self.0 else {
            return Err(Error::Protocol("the trunk's tensors must be on the CPU".into()));
        };
        Ok(crate::nn::cpu::storage::values("trunk", storage, self.1)?)
    }
}

pub(super) fn copied<T: Float>(tensor: &Tensor) -> Result<Vec<T>> {
    Ok(Held::new(&tensor.detach().contiguous()?).values::<T>()?.to_vec())
}

impl<T: Float> Norm<T> {
    fn new([gamma, beta]: [&Tensor; 2]) -> Result<Self> {
        Ok(Self { gamma: copied(gamma)?, beta: copied(beta)? })
    }
}

impl<T: Float> Matrix<T> {
    pub fn new(layer: LinearWeights) -> Result<Self> {
        let (outputs, inputs) = layer.weight.dims2()?;
        let (weight, bias, backward) = match layer.scale {
            None => {
                let weight = layer.weight.detach().contiguous()?;
                (weight.clone(), layer.bias.clone(), Backward::Shared(weight))
            }
            Some(scale) => {
                let weight =
                    layer.weight.detach().broadcast_mul(&scale.detach().reshape((outputs, 1))?)?;
                let bias = layer.bias.detach().mul(&scale.detach())?;
                let scaled = Backward::Scaled(copied(&weight)?);
                (weight, bias, scaled)
            }
        };
        let held = Held::new(&weight);
        let values = held.values::<T>()?;
        // The backward pass reads memory that is written already, so it must be moved to large
        // pages now.
        let read: &[T] = if let Backward::Scaled(scaled) = &backward { scaled } else { values };
        large_pages(read.as_ptr(), size_of_val(read), Pages::Now);
        Ok(Self {
            forward: Panels::transposed(values, (outputs, inputs)),
            backward,
            bias: copied(&bias)?,
            inputs,
            outputs,
        })
    }

    /// A hold on the backbone's tensor, which must live while [`Matrix::backward`] is used.
    pub fn hold(&self) -> Option<Held<'_>> {
        if let Backward::Shared(tensor) = &self.backward { Some(Held::new(tensor)) } else { None }
    }

    /// (outputs, inputs).
    pub fn backward<'a>(&'a self, held: &'a Option<Held>) -> Result<&'a [T]> {
        match (&self.backward, held) {
            (Backward::Scaled(values), _) => Ok(values),
            (_, Some(held)) => held.values(),
            (_, None) => Err(Error::Protocol("a weight of the trunk is not held".into())),
        }
    }
}

impl<T: Float> Block<T> {
    pub fn new(w: &BlockWeights) -> Result<Self> {
        Ok(Self {
            norm1: Norm::new(w.norm1)?,
            qkv: Matrix::new(w.qkv)?,
            proj: Matrix::new(w.proj)?,
            norm2: Norm::new(w.norm2)?,
            fc1: Matrix::new(w.fc1)?,
            fc2: Matrix::new(w.fc2)?,
        })
    }
}

/// qkv, proj, fc1 and fc2 of a block, (outputs, inputs), for the backward pass.
pub(super) struct Reversed<'a, T> {
    pub qkv: &'a [T],
    pub proj: &'a [T],
    pub fc1: &'a [T],
    pub fc2: &'a [T],
}
