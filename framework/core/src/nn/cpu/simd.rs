//! The floating-point types of the CPU kernels, f32 and f64; loops that are compiled for the
//! vectors of the processor; and sums whose order is fixed.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

use candle_core::CpuStorage;

/// Lanes of a sum: one AVX-512 register of f32.
const LANES: usize = 16;

/// A floating-point type of the CPU kernels.
pub(crate) trait Float:
    Copy
    + Send
    + Sync
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + 'static
{
    const ZERO: Self;
    const ONE: Self;
    const LOWEST: Self;
    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
    fn sqrt(self) -> Self;
    /// eˣ. For f32 the error is about one unit in the last place, and no result is below 1e-38.
    fn exp(self) -> Self;
    /// The normal distribution function Φ(x), and its density φ(x).
    fn normal(self) -> (Self, Self);
    fn wrap(values: Vec<Self>) -> CpuStorage;
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// Runs `f` with a buffer of `n` numbers that this thread keeps, with whatever values are in
    /// it. The system would have to clear new memory each time.
    fn with_room<R>(n: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;
}

macro_rules! room {
    ($t:ident) => {
        fn with_room<R>(n: usize, f: impl FnOnce(&mut [Self]) -> R) -> R {
            thread_local!(static ROOMS: Cell<Vec<Vec<$t>>> = const { Cell::new(Vec::new()) });
            // The buffers are taken out meanwhile: `f` may ask for another one, and while it waits
            // for other threads, this thread may run other work that does.
            let mut rooms = ROOMS.take();
            let mut room = rooms.pop().unwrap_or_default();
            ROOMS.set(rooms);
            if room.len() < n {
                room = vec![0.0; n];
            }
            let result = f(&mut room[..n]);
            let mut rooms = ROOMS.take();
            rooms.push(room);
            ROOMS.set(rooms);
            result
        }
    };
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f32::MIN;

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    /// 2ⁿ·eʳ with x = n·ln 2 + r, by Taylor's series to the seventh power for |r| ≤ ln 2 / 2. It
    /// has no branches, so that loops of it become vector code.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding 1.5·2²³ rounds to an integer, which then lies in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with so few bits that n times it is exact.
        const HIGH: f32 = 0.693_359_4;
        const LOW: f32 = -2.121_944_4e-4;
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * HIGH) - n * LOW;
        let mut y = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            y = y * r + c;
        }
        y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
    }

    /// Φ by Abramowitz and Stegun, formula 7.1.26. Its error with rounding is 3e-7.
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let z = self.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let e = Float::exp(-0.5 * self * self);
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let mut p = 1.061_405_4;
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = p * t + c;
        }
        let tail = 0.5 * p * t * e;
        (if self < 0.0 { tail } else { 1.0 - tail }, e * 0.398_942_3)
    }

    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }

    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }

    room!(f32);
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f64::MIN;

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn normal(self) -> (Self, Self) {
        let phi = (-0.5 * self * self).exp() * 0.398_942_280_401_432_7;
        (0.5 * (1.0 + libm::erf(self * std::f64::consts::FRAC_1_SQRT_2)), phi)
    }

    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F64(values)
    }

    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F64(values) = storage { Some(values) } else { None }
    }

    room!(f64);
}

/// Defines a function over slices of `T` that is compiled for the widest vectors of the processor.
/// Its body is inlined into the function that carries the processor's features. Functions that it
/// calls must be `#[inline(always)]`, or they are compiled for the baseline processor.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name<'a, T: Float>($($arg: $ty),*) {
            struct Rows<'a, T> { $($arg: $ty),* }
            impl<'a, T: Float> pulp::WithSimd for Rows<'a, T> {
                type Output = ();
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) {
                    let Self { $($arg),* } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Rows { $($arg),* });
        }
    };
}
pub(crate) use vectorised;

/// Σᵢ f(aᵢ, bᵢ, …) over slices of one length. The sum has a fixed number of lanes, so the order of
/// the additions depends on the length alone.
#[inline(always)]
pub(crate) fn lane_sum<T: Float, const N: usize>(slices: [&[T]; N], f: impl Fn([T; N]) -> T) -> T {
    let parts = slices.map(|s| s.as_chunks::<LANES>());
    let chunks = parts.map(|(chunks, _)| chunks);
    let mut lanes = [T::ZERO; LANES];
    for i in 0..chunks[0].len() {
        let part: [&[T; LANES]; N] = chunks.map(|c| &c[i]);
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(part.map(|p| p[l]));
        }
    }
    let rests = parts.map(|(_, rest)| rest);
    for (l, lane) in lanes.iter_mut().enumerate().take(rests[0].len()) {
        *lane += f(rests.map(|r| r[l]));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest element; [`Float::LOWEST`] if there is none.
#[inline(always)]
pub(crate) fn lane_max<T: Float>(values: &[T]) -> T {
    let larger = |a: T, b: T| if a > b { a } else { b };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [T::LOWEST; LANES];
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *v);
        }
    }
    lanes.iter().chain(rest).fold(T::LOWEST, |a, b| larger(a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_of_f32_is_right_to_rounding() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01 + 0.003;
            let exact = f64::from(x).exp();
            let error = (f64::from(Float::exp(x)) - exact).abs() / exact;
            assert!(error < 2.5e-7, "exp({x}): off by {error}");
        }
        assert_eq!(Float::exp(0f32), 1.0);
        assert!(Float::exp(-1e4f32) < 1e-37 && Float::exp(1e4f32) > 1e38);
    }

    #[test]
    fn the_normal_distribution_of_f32_is_right_to_rounding() {
        for i in -1000..1000 {
            let x = i as f32 * 0.01;
            let ((cdf, pdf), (c, p)) = (x.normal(), f64::from(x).normal());
            assert!((f64::from(cdf) - c).abs() < 3e-7, "Φ({x}) = {cdf}, not {c}");
            assert!((f64::from(pdf) - p).abs() < 1e-7, "φ({x}) = {pdf}, not {p}");
        }
    }

    #[test]
    fn sums_and_maxima_count_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f64> = (0..n).map(f64::from).collect();
            assert_eq!(
                lane_sum([&values, &values], |[a, b]| a * b),
                values.iter().map(|v| v * v).sum::<f64>()
            );
            assert_eq!(lane_max(&values), values.last().copied().unwrap_or(f64::MIN));
        }
    }

    #[test]
    fn not_a_number_stays_one() {
        assert!(Float::exp(f32::NAN).is_nan() && f32::NAN.normal().0.is_nan());
    }
}
