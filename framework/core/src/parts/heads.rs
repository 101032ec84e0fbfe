//! Linear classification heads: one for each task, concatenated for prediction.

use candle_core::Tensor;

use crate::context::{Carry, Fresh, Law, Variable};
use crate::nn;
use crate::scenario::TaskInfo;
use crate::state::Kind;
use crate::{Error, Result};

/// One linear layer.
#[derive(Debug, Clone)]
struct Head {
    /// (classes, dim).
    weight: Variable,
    /// (classes).
    bias: Variable,
}

/// The heads of all tasks so far. Where tasks share their classes (domain-incremental) there is one
/// head for all of them.
#[derive(Debug, Clone)]
pub struct Heads {
    dim: usize,
    heads: Vec<Head>,
}

impl Heads {
    /// No heads yet, for features of width `dim`.
    pub fn new(dim: usize) -> Self {
        Self { dim, heads: Vec::new() }
    }

    /// The number of classes of all heads.
    pub fn classes(&self) -> Result<usize> {
        self.heads.iter().map(|h| Ok(h.weight.dim(0)?)).sum()
    }

    /// Whether a task brings classes that no head has yet.
    fn is_new(&self, task: &TaskInfo) -> Result<bool> {
        Ok(task.first_class + task.classes.len() > self.classes()?)
    }

    /// Declares the head of a new task, `head.<n>.weight` and `head.<n>.bias`. A fresh one is drawn
    /// from U(−1/√dim, 1/√dim) as PyTorch's linear layer. If no class is new the shared head is
    /// kept.
    pub fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if !self.is_new(task)? {
            return Ok(());
        }
        let bound = 1.0 / (self.dim as f64).sqrt();
        let fresh = Fresh::Draw(Law::Uniform { low: -bound, high: bound });
        let (head, classes) = (self.heads.len(), task.classes.len());
        let weight = carry.variable(
            format!("head.{head}.weight"),
            Kind::Trained,
            &[classes, self.dim],
            fresh,
        )?;
        let bias = carry.variable(format!("head.{head}.bias"), Kind::Trained, &[classes], fresh)?;
        self.heads.push(Head { weight, bias });
        Ok(())
    }

    /// Logits (batch, classes of the newest head) for features (batch, dim).
    ///
    /// # Errors
    /// [`Error::Protocol`] if there is no head yet.
    pub fn current(&self, features: &Tensor) -> Result<Tensor> {
        let head = self
            .heads
            .last()
            .ok_or_else(|| Error::Protocol("a head was used before the first task began".into()))?;
        nn::linear(features, &head.weight, &head.bias)
    }

    /// Logits (batch, classes seen so far) for features (batch, dim).
    ///
    /// # Errors
    /// [`Error::Protocol`] if there is no head yet.
    pub fn all(&self, features: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.stacked()?;
        nn::linear(features, &weight, &bias)
    }

    /// All heads as one: weight (classes, dim) and bias (classes).
    ///
    /// # Errors
    /// If there is no head yet.
    pub fn stacked(&self) -> Result<(Tensor, Tensor)> {
        let weights: Vec<&Tensor> = self.heads.iter().map(|h| h.weight.as_tensor()).collect();
        let biases: Vec<&Tensor> = self.heads.iter().map(|h| h.bias.as_tensor()).collect();
        if weights.is_empty() {
            return Err(Error::Protocol("a head was used before the first task began".into()));
        }
        Ok((Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?))
    }

    /// Sets all heads from one, as [`Heads::stacked`] gives it.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn set_stacked(&self, weight: &Tensor, bias: &Tensor) -> Result<()> {
        let (rows, classes) = (weight.dim(0)?, self.classes()?);
        if (rows, bias.dims()) != (classes, &[classes]) {
            return Err(Error::Protocol(format!(
                "a layer of {rows} classes for heads of {classes}"
            )));
        }
        let mut first = 0;
        for head in &self.heads {
            let classes = head.weight.dim(0)?;
            head.weight.set(&weight.narrow(0, first, classes)?.contiguous()?)?;
            head.bias.set(&bias.narrow(0, first, classes)?.contiguous()?)?;
            first += classes;
        }
        Ok(())
    }

    /// The newest head's variables.
    pub fn current_variables(&self) -> Vec<Variable> {
        self.variables().into_iter().skip(2 * self.heads.len().saturating_sub(1)).collect()
    }

    /// All heads' variables, weight and bias of each.
    pub fn variables(&self) -> Vec<Variable> {
        self.heads.iter().flat_map(|h| [h.weight.clone(), h.bias.clone()]).collect()
    }
}
