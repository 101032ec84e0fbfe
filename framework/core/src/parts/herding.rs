//! Herding: the images whose running mean stays nearest to the class mean (Welling 2009; iCaRL,
//! Rebuffi et al., CVPR 2017, algorithm 4).

use candle_core::{D, DType, Device, Tensor};

use crate::Result;

/// Rows of length one.
///
/// # Errors
/// If the tensor operation fails.
pub fn unit(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.broadcast_div(&(rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + 1e-12)?)?)
}

/// The first `m` rows of features (n, dim) in the order of herding: p_k = argmin over the rows left
/// of ‖μ − (φ(x) + Σ_{j<k} φ(p_j)) / k‖, φ of length one and μ their mean. All of them if there are
/// no more than `m`; of equally good rows the first. In f64 on the host.
///
/// # Errors
/// If the tensor operation fails.
pub fn herding(features: &Tensor, m: usize) -> Result<Vec<usize>> {
    let rows = unit(&features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?;
    let mean = rows.mean(0)?.to_vec1::<f64>()?;
    let rows = rows.to_vec2::<f64>()?;
    let mut sum = vec![0.0; mean.len()];
    let mut left: Vec<usize> = (0..rows.len()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < m && !left.is_empty() {
        let k = (chosen.len() + 1) as f64;
        let distance = |row: &[f64]| -> f64 {
            row.iter().zip(&mean).zip(&sum).map(|((x, m), s)| (m - (x + s) / k).powi(2)).sum()
        };
        let mut best = (0, f64::INFINITY);
        for (place, index) in left.iter().enumerate() {
            let d = distance(&rows[*index]);
            if d < best.1 {
                best = (place, d);
            }
        }
        let index = left.remove(best.0);
        sum.iter_mut().zip(&rows[index]).for_each(|(s, x)| *s += x);
        chosen.push(index);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, term by term.
    fn by_hand(rows: &[[f64; 2]], m: usize) -> Vec<usize> {
        let unit: Vec<[f64; 2]> =
            rows.iter().map(|[a, b]| [a / a.hypot(*b), b / a.hypot(*b)]).collect();
        let mean = [0, 1].map(|i| unit.iter().map(|r| r[i]).sum::<f64>() / rows.len() as f64);
        let mut chosen: Vec<usize> = Vec::new();
        for k in 1..=m {
            let distance = |candidate: usize| {
                let of = |i: usize| {
                    mean[i]
                        - (unit[candidate][i] + chosen.iter().map(|c| unit[*c][i]).sum::<f64>())
                            / k as f64
                };
                of(0).hypot(of(1))
            };
            let left = (0..rows.len()).filter(|c| !chosen.contains(c));
            let best =
                left.min_by(|a, b| distance(*a).total_cmp(&distance(*b))).expect("one is left");
            chosen.push(best);
        }
        chosen
    }

    #[test]
    fn the_order_is_the_definition_s() {
        let rows = [[1.0, 0.1], [0.2, 2.0], [3.0, 2.9], [1.0, -0.4], [0.5, 0.9], [5.0, 1.0]];
        let features = Tensor::new(&rows, &Device::Cpu).expect("features");
        assert_eq!(herding(&features, 4).expect("herding"), by_hand(&rows, 4));
        assert_eq!(herding(&features, 9).expect("herding").len(), 6, "no more than there are");
    }

    #[test]
    fn the_mean_of_what_is_chosen_is_nearer_to_the_class_mean_than_that_of_the_first_ones() {
        let features = Tensor::randn(0.3f64, 1.0, (200, 8), &Device::Cpu).expect("features");
        let rows = unit(&features).expect("unit");
        let mean = rows.mean(0).expect("mean");
        let distance = |indices: Vec<u32>| {
            let chosen = rows
                .index_select(&Tensor::new(indices, &Device::Cpu).expect("indices"), 0)
                .expect("rows")
                .mean(0)
                .expect("mean");
            (chosen - &mean)
                .expect("sub")
                .sqr()
                .expect("sqr")
                .sum_all()
                .expect("sum")
                .to_scalar::<f64>()
                .expect("scalar")
        };
        let herded =
            herding(&features, 10).expect("herding").into_iter().map(|i| i as u32).collect();
        assert!(distance(herded) * 2.0 < distance((0..10).collect()));
    }
}
