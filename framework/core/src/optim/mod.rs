//! Optimisers as PyTorch computes them (Adam, SGD with momentum), and learning-rate schedules. The
//! moments are declared like everything else that a method carries.

mod schedule;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

pub use schedule::{authors_cosine, cosine};

use crate::Result;
use crate::context::{Carry, Held, Value, Variable};
use crate::state::Kind;

/// Updates variables from their gradients.
pub trait Optimiser {
    /// One step. A variable without a gradient is left alone, as in PyTorch.
    fn step(&mut self, grads: &GradStore) -> Result<()>;

    /// Sets the learning rate of the following steps.
    fn set_learning_rate(&mut self, rate: f64);
}

/// A variable with its learning rate as a multiple of the optimiser's.
pub struct Group {
    /// The variable.
    pub variable: Variable,
    /// The factor of its learning rate.
    pub factor: f64,
}

/// A variable with the optimiser's tensors for it. The moments are empty before its first gradient.
struct Slot<const N: usize> {
    variable: Variable,
    moments: [Value; N],
    /// Its steps so far, a scalar.
    steps: Held<i64>,
    factor: f64,
}

/// Declares `optimiser.step.<variable>` and `optimiser.<moment>.<variable>` for each variable.
fn slots<const N: usize>(
    groups: Vec<Group>,
    names: [&str; N],
    carry: &mut Carry,
) -> Result<Vec<Slot<N>>> {
    let one = |Group { variable, factor }: Group| {
        let name = variable.name().to_owned();
        let steps = carry.held_from(format!("optimiser.step.{name}"), Kind::Optimiser, 0)?;
        let mut moments = Vec::with_capacity(N);
        for moment in names {
            moments.push(carry.optional(format!("optimiser.{moment}.{name}"), Kind::Optimiser)?);
        }
        let Ok(moments) = moments.try_into() else { unreachable!("one moment per name") };
        Ok(Slot { variable, moments, steps, factor })
    };
    groups.into_iter().map(one).collect()
}

impl<const N: usize> Slot<N> {
    /// The moments before this step, if there was one, and the number of this step.
    fn advance(&self) -> Result<(Option<[Tensor; N]>, i64)> {
        let step = *self.steps.get()? + 1;
        self.steps.set(step);
        if step == 1 {
            return Ok((None, step));
        }
        let mut moments = Vec::with_capacity(N);
        for moment in &self.moments {
            moments.push(moment.get()?.as_ref().clone());
        }
        Ok((moments.try_into().ok(), step))
    }

    /// Subtracts `update` from the variable and keeps the new moments.
    fn apply(&self, update: Tensor, moments: [Tensor; N]) -> Result<()> {
        self.variable.set(&(self.variable.as_tensor().detach() - update)?)?;
        self.moments.iter().zip(&moments).try_for_each(|(held, moment)| held.replace(moment))
    }
}

/// The gradient of a variable with L2 weight decay.
fn gradient(var: &Var, grads: &GradStore, weight_decay: f64) -> Result<Option<Tensor>> {
    let Some(grad) = grads.get(var) else { return Ok(None) };
    let grad = grad.detach();
    if weight_decay == 0.0 {
        return Ok(Some(grad));
    }
    Ok(Some((grad + (var.as_tensor().detach() * weight_decay)?)?))
}

/// `torch.optim.Adam`: β = (0.9, 0.999), ε = 1e-8, weight decay added to the gradient.
pub struct Adam {
    slots: Vec<Slot<2>>,
    rate: f64,
    weight_decay: f64,
}

impl Adam {
    const BETA: (f64, f64) = (0.9, 0.999);
    const EPS: f64 = 1e-8;

    /// An optimiser of these variables.
    pub fn new(
        groups: Vec<Group>,
        rate: f64,
        weight_decay: f64,
        carry: &mut Carry,
    ) -> Result<Self> {
        Ok(Self { slots: slots(groups, ["adam.m", "adam.v"], carry)?, rate, weight_decay })
    }
}

impl Optimiser for Adam {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        let (b1, b2) = Self::BETA;
        for slot in &self.slots {
            let Some(g) = gradient(&slot.variable, grads, self.weight_decay)? else { continue };
            let (before, step) = slot.advance()?;
            let [m, v] = match before {
                Some([m, v]) => {
                    [((m * b1)? + (&g * (1.0 - b1))?)?, ((v * b2)? + (g.sqr()? * (1.0 - b2))?)?]
                }
                None => [(&g * (1.0 - b1))?, (g.sqr()? * (1.0 - b2))?],
            };
            let (c1, c2) = (1.0 - b1.powi(step as i32), 1.0 - b2.powi(step as i32));
            let denominator = ((v.sqrt()? / c2.sqrt())? + Self::EPS)?;
            let update = (m.div(&denominator)? * (self.rate * slot.factor / c1))?;
            slot.apply(update, [m, v])?;
        }
        Ok(())
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
}

/// `torch.optim.SGD` with momentum (no dampening, not Nesterov) and weight decay added to the
/// gradient.
pub struct Sgd {
    slots: Vec<Slot<1>>,
    rate: f64,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// An optimiser of these variables.
    pub fn new(
        groups: Vec<Group>,
        rate: f64,
        momentum: f64,
        weight_decay: f64,
        carry: &mut Carry,
    ) -> Result<Self> {
        Ok(Self { slots: slots(groups, ["sgd.momentum"], carry)?, rate, momentum, weight_decay })
    }
}

impl Optimiser for Sgd {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        for slot in &self.slots {
            let Some(g) = gradient(&slot.variable, grads, self.weight_decay)? else { continue };
            let buffer = match slot.advance()?.0 {
                Some([buffer]) => ((buffer * self.momentum)? + g)?,
                None => g,
            };
            slot.apply((&buffer * (self.rate * slot.factor))?, [buffer])?;
        }
        Ok(())
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::context::{Carried, Fresh, NoHost, Placement};
    use crate::state::State;

    /// A variable of one number and what is carried with it.
    struct Problem {
        carried: Carried,
        x: Variable,
        optimiser: Box<dyn Optimiser>,
    }

    type Make = fn(Vec<Group>, &mut Carry) -> Result<Box<dyn Optimiser>>;

    fn problem(make: Make, saved: Option<&State>) -> Problem {
        let (carried, placement) = (Carried::new(), Placement::cpu(DType::F64));
        let mut host = NoHost;
        let mut carry = match saved {
            Some(state) => Carry::saved(state, true, &carried, &placement),
            None => Carry::fresh(&mut host, &carried, &placement),
        };
        let x = carry.variable("x", Kind::Trained, &[1], Fresh::Zeros).expect("variable");
        if saved.is_none() {
            x.set(&Tensor::new(&[2f64], &Device::Cpu).expect("two")).expect("set");
        }
        let optimiser =
            make(vec![Group { variable: x.clone(), factor: 1.0 }], &mut carry).expect("optimiser");
        Problem { carried, x, optimiser }
    }

    fn adam(decay: bool) -> Make {
        match decay {
            true => |groups, carry| Ok(Box::new(Adam::new(groups, 0.1, 0.01, carry)?)),
            false => |groups, carry| Ok(Box::new(Adam::new(groups, 0.1, 0.0, carry)?)),
        }
    }

    impl Problem {
        fn run(&mut self, steps: usize) {
            for _ in 0..steps {
                // The loss x²/2 has the gradient x.
                let loss =
                    (self.x.sqr().expect("sqr") * 0.5).expect("half").sum_all().expect("sum");
                self.optimiser.step(&loss.backward().expect("bwd")).expect("step");
            }
        }

        fn value(&self) -> f64 {
            self.x.to_vec1::<f64>().expect("value")[0]
        }
    }

    #[test]
    fn adam_follows_its_formulas() {
        let mut problem = problem(adam(true), None);
        problem.run(3);
        let (mut w, mut m, mut v) = (2.0f64, 0.0, 0.0);
        for t in 1..=3 {
            let g = w + 0.01 * w;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            w -=
                0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((problem.value() - w).abs() < 1e-12);
    }

    #[test]
    fn sgd_follows_its_formulas() {
        let mut problem =
            problem(|groups, carry| Ok(Box::new(Sgd::new(groups, 0.1, 0.9, 0.01, carry)?)), None);
        problem.run(3);
        let (mut w, mut b) = (2.0, 0.0);
        for _ in 0..3 {
            b = 0.9 * b + (w + 0.01 * w);
            w -= 0.1 * b;
        }
        assert!((problem.value() - w).abs() < 1e-12);
    }

    #[test]
    fn a_restored_optimiser_continues_as_if_nothing_happened() {
        let mut whole = problem(adam(false), None);
        whole.run(5);
        for stop in [0, 2] {
            let mut first = problem(adam(false), None);
            first.run(stop);
            let state = first.carried.state().expect("state");
            assert_eq!(
                state.iter().count(),
                if stop == 0 { 2 } else { 4 },
                "no moments before the first step"
            );
            let mut second = problem(adam(false), Some(&state));
            second.run(5 - stop);
            assert_eq!(second.value(), whole.value());
        }
        let Problem { carried, optimiser, x: _x } = whole;
        drop(optimiser);
        assert_eq!(carried.state().expect("state").iter().count(), 1, "its moments leave with it");
    }
}
