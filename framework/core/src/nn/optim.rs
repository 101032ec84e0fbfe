//! Optimisers as PyTorch computes them, with a state that can be saved: Adam and SGD with momentum.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use crate::{Error, Result};

/// Updates named variables from their gradients.
pub trait Optimiser {
    /// One step. A variable without a gradient is left alone, as in PyTorch.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn step(&mut self, grads: &GradStore) -> Result<()>;

    /// Sets the learning rate of the following steps.
    fn set_learning_rate(&mut self, rate: f64);

    /// Moments and counters by name.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    fn state(&self) -> Result<Vec<(String, Tensor)>>;

    /// Takes over a state: `get` gives the tensor of a name.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names what is missing.
    fn restore(&mut self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<()>;
}

/// A variable with its name and the optimiser's tensors for it; none before its first gradient.
struct Slot<const N: usize> {
    name: String,
    var: Var,
    moments: Option<[Tensor; N]>,
    step: usize,
    /// Its learning rate as a multiple of the optimiser's.
    factor: f64,
}

fn slots<const N: usize>(vars: Vec<(String, Var, f64)>) -> Vec<Slot<N>> {
    vars.into_iter().map(|(name, var, factor)| Slot { name, var, moments: None, step: 0, factor }).collect()
}

fn save<const N: usize>(slots: &[Slot<N>], names: [&str; N]) -> Result<Vec<(String, Tensor)>> {
    let mut list = Vec::new();
    for slot in slots {
        list.push((format!("step.{}", slot.name), Tensor::new(slot.step as i64, &Device::Cpu)?));
        for (name, tensor) in names.iter().zip(slot.moments.iter().flatten()) {
            list.push((format!("{name}.{}", slot.name), tensor.clone()));
        }
    }
    Ok(list)
}

fn restore<const N: usize>(slots: &mut [Slot<N>], names: [&str; N], get: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
    for slot in slots {
        let find = |name: &str| {
            let key = format!("{name}.{}", slot.name);
            get(&key).ok_or_else(|| Error::Protocol(format!("state: there is no tensor '{key}' of the optimiser")))
        };
        slot.step = find("step")?.to_scalar::<i64>()? as usize;
        slot.moments = None;
        if slot.step > 0 {
            let found: Vec<Tensor> = names.iter().map(|n| Ok(find(n)?.to_dtype(slot.var.dtype())?)).collect::<Result<_>>()?;
            slot.moments = <[Tensor; N]>::try_from(found).ok();
        }
    }
    Ok(())
}

/// The gradient of a variable with L2 weight decay.
fn gradient(var: &Var, grads: &GradStore, weight_decay: f64) -> Result<Option<Tensor>> {
    let Some(grad) = grads.get(var) else { return Ok(None) };
    let grad = grad.detach();
    Ok(Some(if weight_decay == 0.0 { grad } else { (grad + (var.as_tensor().detach() * weight_decay)?)? }))
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
    const NAMES: [&str; 2] = ["adam.m", "adam.v"];

    /// For these variables, each at rate `rate` times its factor.
    ///
    /// # Errors
    /// None today; buffers are made at the first step.
    pub fn new(vars: Vec<(String, Var, f64)>, rate: f64, weight_decay: f64) -> Result<Self> {
        Ok(Self { slots: slots(vars), rate, weight_decay })
    }
}

impl Optimiser for Adam {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        let (b1, b2) = Self::BETA;
        for slot in &mut self.slots {
            let Some(g) = gradient(&slot.var, grads, self.weight_decay)? else { continue };
            slot.step += 1;
            let [m, v] = match &slot.moments {
                Some([m, v]) => [((m * b1)? + (&g * (1.0 - b1))?)?, ((v * b2)? + (g.sqr()? * (1.0 - b2))?)?],
                None => [(&g * (1.0 - b1))?, (g.sqr()? * (1.0 - b2))?],
            };
            let (c1, c2) = (1.0 - b1.powi(slot.step as i32), 1.0 - b2.powi(slot.step as i32));
            let denominator = ((v.sqrt()? / c2.sqrt())? + Self::EPS)?;
            let update = (m.div(&denominator)? * (self.rate * slot.factor / c1))?;
            slot.var.set(&(slot.var.as_tensor().detach() - update)?)?;
            slot.moments = Some([m, v]);
        }
        Ok(())
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        save(&self.slots, Self::NAMES)
    }

    fn restore(&mut self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        restore(&mut self.slots, Self::NAMES, get)
    }
}

/// `torch.optim.SGD` with momentum (no dampening, not Nesterov) and weight decay added to the gradient.
pub struct Sgd {
    slots: Vec<Slot<1>>,
    rate: f64,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    const NAMES: [&str; 1] = ["sgd.momentum"];

    /// For these variables, each at rate `rate` times its factor.
    ///
    /// # Errors
    /// None today; buffers are made at the first step.
    pub fn new(vars: Vec<(String, Var, f64)>, rate: f64, momentum: f64, weight_decay: f64) -> Result<Self> {
        Ok(Self { slots: slots(vars), rate, momentum, weight_decay })
    }
}

impl Optimiser for Sgd {
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        for slot in &mut self.slots {
            let Some(g) = gradient(&slot.var, grads, self.weight_decay)? else { continue };
            slot.step += 1;
            let buffer = match &slot.moments {
                Some([buffer]) => ((buffer * self.momentum)? + g)?,
                None => g,
            };
            slot.var.set(&(slot.var.as_tensor().detach() - (&buffer * (self.rate * slot.factor))?)?)?;
            slot.moments = Some([buffer]);
        }
        Ok(())
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        save(&self.slots, Self::NAMES)
    }

    fn restore(&mut self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        restore(&mut self.slots, Self::NAMES, get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(optimiser: &mut dyn Optimiser, var: &Var, steps: usize) {
        for _ in 0..steps {
            // The loss x²/2 has the gradient x.
            let loss = (var.sqr().expect("sqr") * 0.5).expect("half").sum_all().expect("sum");
            optimiser.step(&loss.backward().expect("bwd")).expect("step");
        }
    }

    fn var() -> Var {
        Var::new(&[2f64], &Device::Cpu).expect("var")
    }

    fn value(var: &Var) -> f64 {
        var.to_vec1::<f64>().expect("value")[0]
    }

    #[test]
    fn adam_follows_its_formulas() {
        let x = var();
        run(&mut Adam::new(vec![("x".into(), x.clone(), 1.0)], 0.1, 0.01).expect("adam"), &x, 3);
        let (mut w, mut m, mut v) = (2.0f64, 0.0, 0.0);
        for t in 1..=3 {
            let g = w + 0.01 * w;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            w -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((value(&x) - w).abs() < 1e-12);
    }

    #[test]
    fn sgd_follows_its_formulas() {
        let x = var();
        run(&mut Sgd::new(vec![("x".into(), x.clone(), 1.0)], 0.1, 0.9, 0.01).expect("sgd"), &x, 3);
        let (mut w, mut b) = (2.0, 0.0);
        for _ in 0..3 {
            b = 0.9 * b + (w + 0.01 * w);
            w -= 0.1 * b;
        }
        assert!((value(&x) - w).abs() < 1e-12);
    }

    #[test]
    fn a_restored_optimiser_continues_as_if_nothing_happened() {
        let (x, y) = (var(), var());
        let make = |v: &Var| Adam::new(vec![("x".into(), v.clone(), 1.0)], 0.1, 0.0).expect("adam");
        run(&mut make(&x), &x, 0);
        let mut whole = make(&x);
        run(&mut whole, &x, 5);
        let mut first = make(&y);
        run(&mut first, &y, 2);
        let state = first.state().expect("state");
        let mut second = make(&y);
        second.restore(&|name| state.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone())).expect("restore");
        run(&mut second, &y, 3);
        assert_eq!(value(&x), value(&y));
        assert!(second.restore(&|_| None).is_err());
    }
}
