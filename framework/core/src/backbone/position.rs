//! Position embeddings for another image size: bicubic, not antialiased, `align_corners = false`
//! (timm 0.6, PyTorch's a = −0.75).

use candle_core::{DType, Tensor};

use crate::Result;

/// Resizes `embedding` (1, front + old², dim) to (1, front + new², dim); the first tokens, CLS and
/// the like, stay as they are.
pub(super) fn resize(embedding: &Tensor, front: usize, old: usize, new: usize) -> Result<Tensor> {
    if old == new {
        return Ok(embedding.clone());
    }
    let dim = embedding.dim(2)?;
    let weights = Tensor::from_vec(bicubic(old, new), (new, old), embedding.device())?
        .to_dtype(DType::F64)?;
    let grid = embedding.narrow(1, front, old * old)?.to_dtype(DType::F64)?;
    // Rows first, then columns: (new, old) · (old, old·dim), then the same on the transposed grid.
    let rows = weights.matmul(&grid.reshape((old, old * dim))?)?.reshape((new, old, dim))?;
    let columns = rows.transpose(0, 1)?.contiguous()?.reshape((old, new * dim))?;
    let resized =
        weights.matmul(&columns)?.reshape((new, new, dim))?.transpose(0, 1)?.contiguous()?;
    let resized = resized.reshape((1, new * new, dim))?.to_dtype(embedding.dtype())?;
    if front == 0 {
        return Ok(resized);
    }
    Ok(Tensor::cat(&[&embedding.narrow(1, 0, front)?, &resized], 1)?)
}

/// The (new, old) matrix of bicubic interpolation weights, borders repeated.
fn bicubic(old: usize, new: usize) -> Vec<f64> {
    const A: f64 = -0.75;
    let kernel = |x: f64| {
        let x = x.abs();
        if x <= 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
        } else {
            0.0
        }
    };
    let mut matrix = vec![0.0; new * old];
    for i in 0..new {
        let centre = (i as f64 + 0.5) * old as f64 / new as f64 - 0.5;
        let first = centre.floor() as isize - 1;
        for tap in first..first + 4 {
            let source = tap.clamp(0, old as isize - 1) as usize;
            matrix[i * old + source] += kernel(centre - tap as f64);
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// `torch.nn.functional.interpolate(torch.arange(9.).reshape(1,1,3,3)**2, size=(2,2),
    /// mode="bicubic", align_corners=False)` and (4,4).
    #[test]
    fn equals_pytorch_bicubic() {
        let squares: Vec<f64> = (0..9).map(|i| (i * i) as f64).collect();
        let grid = Tensor::from_vec(squares, (1, 9, 1), &Device::Cpu).expect("grid");
        let cls = Tensor::full(-1f64, (1, 1, 1), &Device::Cpu).expect("cls");
        let out = resize(&Tensor::cat(&[cls, grid], 1).expect("cat"), 1, 3, 2).expect("resize");
        let out: Vec<f64> = out.flatten_all().expect("flat").to_vec1().expect("values");
        let expected = oracle(3, 2);
        assert_eq!(out[0], -1.0);
        for (a, b) in out[1..].iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    /// The definition written out point by point, in two dimensions at once.
    fn oracle(old: usize, new: usize) -> Vec<f64> {
        let cubic = |t: f64| {
            let a = -0.75;
            let outer = |x: f64| a * x * x * x - 5.0 * a * x * x + 8.0 * a * x - 4.0 * a;
            let inner = |x: f64| (a + 2.0) * x * x * x - (a + 3.0) * x * x + 1.0;
            [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)]
        };
        let source = |i: usize| (i as f64 + 0.5) * old as f64 / new as f64 - 0.5;
        let mut out = Vec::new();
        for y in 0..new {
            for x in 0..new {
                let (sy, sx) = (source(y), source(x));
                let (wy, wx) = (cubic(sy - sy.floor()), cubic(sx - sx.floor()));
                let mut sum = 0.0;
                for (j, wy) in wy.iter().enumerate() {
                    for (i, wx) in wx.iter().enumerate() {
                        let at = |s: f64, k: usize| {
                            (s.floor() as i64 - 1 + k as i64).clamp(0, old as i64 - 1) as usize
                        };
                        let value = (at(sy, j) * old + at(sx, i)) as f64;
                        sum += wy * wx * value * value;
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn interpolation_weights_sum_to_one() {
        for (old, new) in [(14, 7), (7, 14), (1, 3), (3, 1), (4, 9)] {
            for row in bicubic(old, new).chunks(old) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }
}
