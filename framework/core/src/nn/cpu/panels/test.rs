use super::*;
use crate::nn::cpu::product::{View, product};

fn numbers<T: Float>(n: usize, seed: usize) -> Vec<T> {
    (0..n).map(|i| T::narrow(((i * 7919 + seed * 104_729) % 2003) as f64 / 1000.0 - 1.0)).collect()
}

/// Compares both layouts with the plain product, and the bits of a row computed alone with those
/// computed among others. Rows of x are farther apart than they are long, and NaN lies between
/// them.
fn agrees<S: Simd, T: Multiplied + Lanes<S> + std::fmt::Debug>(simd: S, tolerance: f64) {
    let mut room = Aligned::default();
    for (rows, inputs, outputs) in [
        (1, 1, 1),
        (5, 7, 50),
        (8, 128, 48),
        (17, 300, 97),
        (33, 257, 24),
        (2, 1100, 5),
        (25, 96, 192),
        (3, 2100, 7),
    ] {
        let (mut x, weight) =
            (numbers::<T>(rows * (inputs + 2), 1), numbers::<T>(outputs * inputs, 2));
        x.chunks_exact_mut(inputs + 2).for_each(|row| row[inputs..].fill(T::narrow(f64::NAN)));
        let panels = Panels::of(&weight, (outputs, inputs), Sizes::of::<S, T>());
        let mut across = vec![T::ZERO; outputs * inputs];
        for (o, row) in weight.chunks_exact(inputs).enumerate() {
            row.iter().enumerate().for_each(|(i, v)| across[i * outputs + o] = *v);
        }
        for (first, columns) in
            [(0, outputs), (outputs / 3, outputs - outputs / 3), (outputs / 2, 1)]
        {
            let width = columns + 3;
            let (before, bias) = (numbers::<T>(rows * width, 3), numbers::<T>(columns, 5));
            for base in [Base::Zero, Base::Destination, Base::Row(&bias)] {
                let mut expected = before.clone();
                for row in expected.chunks_exact_mut(width) {
                    match base {
                        Base::Zero => row[..columns].fill(T::ZERO),
                        Base::Destination => {}
                        Base::Row(bias) => row[..columns].copy_from_slice(bias),
                    }
                }
                let b = View::rows(outputs).after(first).of(&across);
                let (dst, left) =
                    (View::rows(width).added_to(&mut expected), View::rows(inputs + 2).of(&x));
                product((rows, columns, inputs), dst, left, b, 1.0);
                let mut multiplied =
                    |rows: std::ops::Range<usize>, right: Right<T>, out: &mut [T]| {
                        let left = Left {
                            rows: rows.len(),
                            values: &x[rows.start * (inputs + 2)..],
                            width: inputs + 2,
                        };
                        let out = &mut out[rows.start * width..];
                        let job = Job {
                            left,
                            right,
                            depth: inputs,
                            out,
                            out_width: width,
                            base,
                            room: &mut room,
                        };
                        assert!(job.has_work());
                        job.run(simd);
                    };
                let panels = Right::Panels(&panels, Columns { first, count: columns });
                let mut found = before.clone();
                multiplied(0..rows, panels, &mut found);
                for (f, e) in found.iter().zip(&expected) {
                    let (f, e) = (f.wide(), e.wide());
                    let near = (f - e).abs() < tolerance * (1.0 + inputs as f64);
                    assert!(near, "{rows} {inputs} {outputs} {first} {columns}: {f}, not {e}");
                }
                let mut alone = before.clone();
                (0..rows).for_each(|row| multiplied(row..row + 1, panels, &mut alone));
                assert_eq!(alone, found, "bits of a row by itself");
                if first == 0 {
                    let mut rowwise = before.clone();
                    multiplied(0..rows, Right::Rows(&across, outputs), &mut rowwise);
                    assert_eq!(rowwise, found, "bits of a matrix that is not in panels");
                }
            }
        }
    }
}

/// Runs on all kinds of vectors that this processor has, and without vectors.
#[test]
fn agrees_with_the_plain_product() {
    struct Here;
    impl pulp::WithSimd for Here {
        type Output = ();
        fn with_simd<S: Simd>(self, simd: S) {
            agrees::<S, f32>(simd, 1e-6);
            agrees::<S, f64>(simd, 2e-15);
        }
    }
    use pulp::WithSimd;
    pulp::Arch::new().dispatch(Here);
    Here.with_simd(pulp::Scalar::new());
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        Here.with_simd(v3);
    }
}

#[test]
#[should_panic(expected = "reaches out of its slice")]
fn refuses_rows_that_are_not_there() {
    let panels = Panels::transposed(&[1f32; 6], (2, 3));
    let left = Left { rows: 2, values: &[0.0; 5], width: 3 };
    let right = Right::Panels(&panels, Columns { first: 0, count: 2 });
    let (out, room) = (&mut [0.0; 4], &mut Aligned::default());
    multiply(Job { left, right, depth: 3, out, out_width: 2, base: Base::Zero, room });
}
