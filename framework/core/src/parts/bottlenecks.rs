//! Adapters in the MLP of every block, as variables.

use candle_core::Tensor;

use crate::Result;
use crate::backbone::{Adapter, Adapters, Backbone};
use crate::context::{Carry, Fresh, Law, Variable};
use crate::state::Kind;

/// One bottleneck a block, all of one width: down, down_bias, up, up_bias.
#[derive(Debug, Clone)]
pub struct Bottlenecks {
    scale: f64,
    blocks: Vec<[Variable; 4]>,
}

/// Whether a pass builds a graph of the adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradients {
    /// With a graph, for training.
    Tracked,
    /// Without one.
    Detached,
}

const PARTS: [&str; 4] = ["down", "down_bias", "up", "up_bias"];

/// The shapes of a bottleneck's tensors.
fn shapes(width: usize, dim: usize) -> [Vec<usize>; 4] {
    [vec![width, dim], vec![width], vec![dim, width], vec![dim]]
}

impl Bottlenecks {
    /// Declares `adapter.<block>.<part>` for every block. A fresh down is drawn from
    /// U(−1/√dim, 1/√dim) (kaiming-uniform with a = √5) and all else is zero, so that they change
    /// nothing yet.
    pub fn grow(
        width: usize,
        scale: f64,
        backbone: &dyn Backbone,
        carry: &mut Carry,
    ) -> Result<Self> {
        let info = backbone.info();
        let bound = 1.0 / (info.dim as f64).sqrt();
        let draw = Fresh::Draw(Law::Uniform { low: -bound, high: bound });
        let blocks = (0..info.blocks).map(|block| {
            let shapes = shapes(width, info.dim);
            let mut part = |i: usize, fresh: Fresh| {
                carry.variable(
                    format!("adapter.{block}.{}", PARTS[i]),
                    Kind::Trained,
                    &shapes[i],
                    fresh,
                )
            };
            Ok([
                part(0, draw)?,
                part(1, Fresh::Zeros)?,
                part(2, Fresh::Zeros)?,
                part(3, Fresh::Zeros)?,
            ])
        });
        Ok(Self { scale, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Their variables.
    pub fn variables(&self) -> Vec<Variable> {
        self.blocks.iter().flatten().cloned().collect()
    }

    /// As bottlenecks of a forward pass.
    pub fn adapters(&self, gradients: Gradients) -> Adapters {
        let tensor = |variable: &Variable| match gradients {
            Gradients::Tracked => variable.as_tensor().clone(),
            Gradients::Detached => variable.as_detached_tensor(),
        };
        let of = |(block, parts): (usize, &[Variable; 4])| {
            let [down, down_bias, up, up_bias]: [Tensor; 4] = parts.each_ref().map(tensor);
            (block, Adapter { down, down_bias, up, up_bias, scale: self.scale })
        };
        self.blocks.iter().enumerate().map(of).collect()
    }
}
