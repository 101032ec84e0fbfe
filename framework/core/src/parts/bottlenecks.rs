//! Adapters in the MLP of every block, as variables.

use candle_core::{DType, Device, Tensor, Var};

use super::var_from;
use crate::Result;
use crate::backbone::{Adapter, Adapters, Backbone};
use crate::context::{Context, Law};
use crate::state::{Kind, State};

/// One bottleneck a block, all of one width: down, down_bias, up, up_bias.
#[derive(Debug, Clone)]
pub struct Bottlenecks {
    scale: f64,
    blocks: Vec<[Var; 4]>,
}

const PARTS: [&str; 4] = ["down", "down_bias", "up", "up_bias"];

/// The shapes of a bottleneck's tensors.
fn shapes(width: usize, dim: usize) -> [Vec<usize>; 4] {
    [vec![width, dim], vec![width], vec![dim, width], vec![dim]]
}

impl Bottlenecks {
    /// New ones: down from U(−1/√dim, 1/√dim) (kaiming-uniform with a = √5), all else zero, so that they change nothing yet.
    ///
    /// # Errors
    /// If a draw fails.
    pub fn new(width: usize, scale: f64, backbone: &dyn Backbone, ctx: &mut Context) -> Result<Self> {
        let info = backbone.info();
        let bound = 1.0 / (info.dim as f64).sqrt();
        let blocks = (0..info.blocks).map(|block| {
            let [down, rest @ ..] = shapes(width, info.dim);
            let down = ctx.draw(format!("init.adapter.{block}.down"), &down, Law::Uniform { low: -bound, high: bound })?;
            let zeros = |shape: &Vec<usize>| -> Result<Var> { Ok(Var::zeros(shape.as_slice(), ctx.dtype(), ctx.device())?) };
            Ok([Var::from_tensor(&down)?, zeros(&rest[0])?, zeros(&rest[1])?, zeros(&rest[2])?])
        });
        Ok(Self { scale, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Their variables, with their names in the state: `adapter.<block>.<part>`.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let of = |(block, vars): (usize, &[Var; 4])| {
            PARTS.iter().zip(vars).map(|(part, var)| (format!("adapter.{block}.{part}"), var.clone())).collect::<Vec<_>>()
        };
        self.blocks.iter().enumerate().flat_map(of).collect()
    }

    /// As bottlenecks of a forward pass, with gradients or (`detached`) without.
    pub fn adapters(&self, detached: bool) -> Adapters {
        let tensor = |var: &Var| if detached { var.as_detached_tensor() } else { var.as_tensor().clone() };
        let of = |(block, [down, down_bias, up, up_bias]): (usize, &[Var; 4])| {
            let (down, down_bias, up, up_bias): (Tensor, Tensor, Tensor, Tensor) =
                (tensor(down), tensor(down_bias), tensor(up), tensor(up_bias));
            (block, Adapter { down, down_bias, up, up_bias, scale: self.scale })
        };
        self.blocks.iter().enumerate().map(of).collect()
    }

    /// Adds them to a state.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn save(&self, state: &mut State) -> Result<()> {
        self.vars().iter().try_for_each(|(name, var)| state.put(name, Kind::Trained, var))
    }

    /// Takes them from a state.
    ///
    /// # Errors
    /// Names a tensor that is missing or of another shape.
    pub fn restore(width: usize, scale: f64, backbone: &dyn Backbone, state: &State, dtype: DType, device: &Device) -> Result<Self> {
        let info = backbone.info();
        let blocks = (0..info.blocks).map(|block| {
            let [a, b, c, d] = shapes(width, info.dim);
            let var = |part: &str, shape: Vec<usize>| var_from(state, &format!("adapter.{block}.{part}"), &shape, dtype, device);
            Ok([var(PARTS[0], a)?, var(PARTS[1], b)?, var(PARTS[2], c)?, var(PARTS[3], d)?])
        });
        Ok(Self { scale, blocks: blocks.collect::<Result<_>>()? })
    }
}
