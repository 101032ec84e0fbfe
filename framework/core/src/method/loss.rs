//! The loss of a training step: named terms with weights.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The named terms of a step's loss as numbers, without their weights, before the step's update.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses(pub Vec<(String, f64)>);

/// A loss as papers write it: a sum of named terms, each with its weight.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// # use cilbench::method::Loss;
/// # let scalar = |v: f64| Tensor::new(v, &Device::Cpu);
/// # let (ce, relation) = (scalar(1.5)?, scalar(0.25)?);
/// let loss = Loss::new("ce", ce).add("relation", 2.0, relation)?; //  CE + 2·relation
/// assert_eq!(loss.total().to_scalar::<f64>()?, 2.0);
/// assert_eq!(loss.losses()?.0, [("ce".to_owned(), 1.5), ("relation".to_owned(), 0.25)]);
/// # Ok::<(), cilbench::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Loss {
    terms: Vec<(&'static str, Tensor)>,
    total: Tensor,
}

impl Loss {
    /// A loss of one term, a scalar with weight 1.
    pub fn new(name: &'static str, term: Tensor) -> Self {
        Self { total: term.clone(), terms: vec![(name, term)] }
    }

    /// Adds a scalar term with its weight.
    pub fn add(mut self, name: &'static str, weight: f64, term: Tensor) -> Result<Self> {
        self.total = (self.total + (&term * weight)?)?;
        self.terms.push((name, term));
        Ok(self)
    }

    /// Adds a term if there is one.
    pub fn add_some(self, name: &'static str, weight: f64, term: Option<Tensor>) -> Result<Self> {
        match term {
            Some(term) => self.add(name, weight, term),
            None => Ok(self),
        }
    }

    /// The weighted sum, a scalar with a graph.
    pub fn total(&self) -> &Tensor {
        &self.total
    }

    /// The terms as numbers, for the log.
    pub fn losses(&self) -> Result<Losses> {
        let value = |t: &Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
        let terms = self.terms.iter().map(|(name, t)| Ok(((*name).to_owned(), value(t)?)));
        Ok(Losses(terms.collect::<Result<_>>()?))
    }
}
