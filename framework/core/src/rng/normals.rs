//! Standard normal numbers from ChaCha12, sixteen blocks at a time in the vectors of the processor.
//!
//! Definition: a group of 256 numbers uses 16 consecutive blocks of the stream. Words 2p and 2p + 1
//! of block b give the numbers 32p + b and 32p + 16 + b of the group, which are x and y of the
//! Box–Muller transform (A Note on the Generation of Random Normal Deviates, 1958). The first word
//! gives the radius √(−2 ln u) with u = (word + ½) / 2³². The second word gives the angle
//! π·(q / 2 + f): q is its two highest bits, and f is its other 30 bits as a signed number divided
//! by 2³², between −¼ and ¼. The results have the bits of `pair` below, which computes in f32
//! without fused operations, on every processor.

use pulp::Simd;

/// Blocks per group, and words per block.
const BLOCKS: usize = 16;
const WORDS: usize = 16;
/// Numbers per group.
pub(crate) const GROUP: usize = BLOCKS * WORDS;
/// Double rounds of ChaCha12.
const DOUBLE_ROUNDS: usize = 6;

/// A sequence of standard normal numbers, of which any part can be computed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalStream {
    key: [u32; 8],
}

impl NormalStream {
    /// The sequence of the generator with this seed, from its beginning.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let (words, _) = seed.as_chunks::<4>();
        Self { key: std::array::from_fn(|i| u32::from_le_bytes(words[i])) }
    }

    /// Fills `out` with the numbers from number `start` on.
    pub fn fill(&self, start: usize, out: &mut [f32]) {
        pulp::Arch::new().dispatch(Fill { key: &self.key, start, out });
    }
}

struct Fill<'a> {
    key: &'a [u32; 8],
    start: usize,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { key, start, mut out } = self;
        let (mut group, mut skip) = (start / GROUP, start % GROUP);
        while !out.is_empty() {
            let words = keystream(simd, key, group as u64);
            let (part, rest) = out.split_at_mut(out.len().min(GROUP - skip));
            match <&mut [f32; GROUP]>::try_from(&mut *part) {
                Ok(whole) => normals(&words, whole),
                Err(_) => {
                    let mut whole = [0.0; GROUP];
                    normals(&words, &mut whole);
                    part.copy_from_slice(&whole[skip..skip + part.len()]);
                }
            }
            (out, group, skip) = (rest, group + 1, 0);
        }
    }
}

/// The words of a group, by word and block.
#[inline(always)]
fn keystream<S: Simd>(simd: S, key: &[u32; 8], group: u64) -> [[u32; BLOCKS]; WORDS] {
    let first = group * BLOCKS as u64;
    // A group begins at a multiple of 16, so its block counters differ in the low word alone.
    let low: [u32; BLOCKS] = std::array::from_fn(|b| first as u32 + b as u32);
    let constants = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let mut out = [[0; BLOCKS]; WORDS];
    for (i, low) in S::as_simd_u32s(&low).0.iter().enumerate() {
        let mut input = [simd.splat_u32s(0); WORDS];
        for (v, word) in input.iter_mut().zip(constants.iter().chain(key)) {
            *v = simd.splat_u32s(*word);
        }
        input[12] = *low;
        input[13] = simd.splat_u32s((first >> 32) as u32);
        let mut state = input;
        for _ in 0..DOUBLE_ROUNDS {
            for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                quarter_round(simd, &mut state, [a, b, c, d]);
            }
            for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                quarter_round(simd, &mut state, [a, b, c, d]);
            }
        }
        for ((out, state), input) in out.iter_mut().zip(state).zip(input) {
            S::as_mut_simd_u32s(out).0[i] = simd.add_u32s(state, input);
        }
    }
    out
}

#[inline(always)]
fn quarter_round<S: Simd>(simd: S, state: &mut [S::u32s; WORDS], [a, b, c, d]: [usize; 4]) {
    let mut step = |to: usize, from: usize, turned: usize, by: u32| {
        state[to] = simd.add_u32s(state[to], state[from]);
        let bits = simd.xor_u32s(state[turned], state[to]);
        let left = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(by));
        state[turned] =
            simd.or_u32s(left, simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(32 - by)));
    };
    step(a, b, d, 16);
    step(c, d, b, 12);
    step(a, b, d, 8);
    step(c, d, b, 7);
}

#[inline(always)]
fn normals(words: &[[u32; BLOCKS]; WORDS], out: &mut [f32; GROUP]) {
    let (rows, _) = out.as_chunks_mut::<BLOCKS>();
    for (words, rows) in words.as_chunks::<2>().0.iter().zip(rows.as_chunks_mut::<2>().0) {
        let [x, y] = rows;
        for b in 0..BLOCKS {
            (x[b], y[b]) = pair(words[0][b], words[1][b]);
        }
    }
}

/// The two normal numbers of two words. It has no branches, so that a loop of it becomes vector
/// code.
#[inline(always)]
fn pair(radius: u32, angle: u32) -> (f32, f32) {
    // Above 0 and at most 1.
    let u = (radius as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let r = (-2.0 * ln(u)).sqrt();
    // A quarter of the circle, and a part of it between −¼ and ¼ of π.
    let (quarter, f) = (angle >> 30, (angle << 2).cast_signed() as f32 * (1.0 / 8_589_934_592.0));
    let t = f * f;
    // Minimax polynomials of sin πf and cos πf, with errors of 1e-8 and 3e-8.
    let sine = f * (((-0.589_078_66 * t + 2.549_767_3) * t - 5.167_708) * t + std::f32::consts::PI);
    let cosine = ((-1.306_134_6 * t + 4.057_578) * t - 4.934_788) * t + 1.0;
    let (x, y) = if quarter & 1 == 0 { (cosine, sine) } else { (-sine, cosine) };
    let r = if quarter & 2 == 0 { r } else { -r };
    (r * x, r * y)
}

/// ln u for a normal number u above 0: e·ln 2 + ln(1 + x) with √½ ≤ 1 + x < √2. The logarithm is x
/// − x²/2 + x³·P(x), with a minimax polynomial P of error 6e-9.
#[inline(always)]
fn ln(u: f32) -> f32 {
    const ROOT_OF_HALF: u32 = 0x3f35_04f3;
    // ln 2 in two parts, the first with so few bits that e times it is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let bits = u.to_bits().wrapping_sub(ROOT_OF_HALF);
    let e = (bits.cast_signed() >> 23) as f32;
    let x = f32::from_bits((bits & 0x007f_ffff) + ROOT_OF_HALF) - 1.0;
    let mut p = -0.078_594_565;
    for c in [
        0.128_815_89,
        -0.131_287_84,
        0.141_812_01,
        -0.166_245_52,
        0.200_022_86,
        -0.250_008_1,
        0.333_333_16,
    ] {
        p = p * x + c;
    }
    let square = x * x;
    ((p * x * square + e * LOW) - 0.5 * square) + x + e * HIGH
}

#[cfg(test)]
mod tests {
    use rand::{RngCore, SeedableRng};

    use super::super::Stream;
    use super::*;

    const SEED: [u8; 32] = *b"a seed of thirty-two bytes, sure";

    /// The definition, one number at a time, in f64 after u is rounded.
    fn exact(n: usize) -> Vec<f64> {
        let mut rng = Stream::from_seed(SEED);
        let mut out = vec![0.0; n];
        for group in out.chunks_mut(GROUP) {
            for b in 0..BLOCKS {
                for p in 0..WORDS / 2 {
                    let (radius, angle) = (rng.next_u32(), rng.next_u32());
                    let r = (-2.0 * f64::from((radius as f32 + 0.5) / 2f32.powi(32)).ln()).sqrt();
                    let turn = f64::from(angle >> 30) * 0.25
                        + f64::from((angle << 2).cast_signed()) / 2f64.powi(34);
                    let (sine, cosine) = (turn * std::f64::consts::TAU).sin_cos();
                    group[32 * p + b] = r * cosine;
                    group[32 * p + 16 + b] = r * sine;
                }
            }
        }
        out
    }

    #[test]
    fn are_what_box_and_muller_make_of_the_words_of_the_stream() {
        let n = 400 * GROUP;
        let mut ours = vec![0.0; n];
        NormalStream::from_seed(SEED).fill(0, &mut ours);
        for (i, (a, b)) in ours.iter().zip(exact(n)).enumerate() {
            assert!((f64::from(*a) - b).abs() < 1e-6, "number {i}: {a}, not {b}");
        }
    }

    #[test]
    fn any_part_has_the_same_bits_on_every_kind_of_processor() {
        let stream = NormalStream::from_seed(SEED);
        let mut all = vec![0.0; 10 * GROUP];
        stream.fill(0, &mut all);
        for (start, n) in [
            (0, 1),
            (1, GROUP),
            (255, 2),
            (GROUP, GROUP),
            (300, 1000),
            (7, 0),
            (5 * GROUP - 1, 5 * GROUP + 1),
        ] {
            let mut part = vec![f32::NAN; n];
            stream.fill(start, &mut part);
            assert!(
                part.iter().zip(&all[start..]).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{n} from {start} on"
            );
            pulp::Scalar.vectorize(Fill { key: &stream.key, start, out: &mut part });
            assert!(
                part.iter().zip(&all[start..]).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{n} from {start} on, one at a time"
            );
        }
    }

    #[test]
    fn have_the_moments_and_tails_of_the_standard_normal_distribution() {
        let n = 1 << 22;
        let mut numbers = vec![0.0; n];
        NormalStream::from_seed([7; 32]).fill(0, &mut numbers);
        let mean = |f: &dyn Fn(f64) -> f64| {
            numbers.iter().map(|v| f(f64::from(*v))).sum::<f64>() / n as f64
        };
        // Five standard errors of each.
        for (power, expected, variance) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
        {
            let (found, error) = (mean(&|v| v.powi(power)), 5.0 * (variance / n as f64).sqrt());
            assert!((found - expected).abs() < error, "moment {power}: {found}");
        }
        for bound in [-3.0, -1.5, -0.2, 0.0, 0.7, 2.0, 3.5, 4.5] {
            let p = 0.5 * libm::erfc(-bound * std::f64::consts::FRAC_1_SQRT_2);
            let found = mean(&|v| f64::from(u8::from(v < bound)));
            assert!(
                (found - p).abs() < 5.0 * (p * (1.0 - p) / n as f64).sqrt(),
                "below {bound}: {found}, not {p}"
            );
        }
        let neighbours =
            numbers.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum::<f64>() / n as f64;
        assert!(neighbours.abs() < 5.0 / (n as f64).sqrt(), "neighbours: {neighbours}");
    }

    #[test]
    fn the_least_and_the_largest_words_give_finite_numbers() {
        for word in [0, 1, u32::MAX - 1, u32::MAX] {
            for angle in [0, 1 << 29, 1 << 30, 1 << 31, u32::MAX] {
                let (x, y) = pair(word, angle);
                assert!(
                    x.is_finite() && y.is_finite() && x.hypot(y) < 6.77,
                    "{word} {angle}: {x}, {y}"
                );
            }
        }
    }
}
