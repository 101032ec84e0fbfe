//! A paired bootstrap of last accuracies (Efron and Tibshirani 1993, chapter 8, for data in
//! levels): each draw takes class orders, then seeds within each order, then test images, all with
//! replacement. Class orders and images are drawn once for all rows of a board, so that differences
//! of rows are paired.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use super::answers::{Answers, by_order};

/// The number of draws.
pub const DRAWS: usize = 10_000;

/// Every draw's accuracies, percent, one for each row: (draws, rows). The same rows give the same
/// numbers on every machine. All rows must have the same class orders and be of the same images.
pub fn bootstrap(rows: &[&[Answers]], draws: usize) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<Vec<&Answers>>> =
        rows.iter().map(|row| by_order(row).into_values().collect()).collect();
    (0..draws as u64).into_par_iter().map(|draw| one(&rows, draw)).collect()
}

/// One draw. `rows` is (rows, orders, seeds).
fn one(rows: &[Vec<Vec<&Answers>>], draw: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(draw);
    let orders = rows.first().map_or(0, Vec::len);
    let images = rows.first().and_then(|r| r.first()?.first()).map_or(0, |a| a.count);
    let chosen: Vec<usize> = (0..orders).map(|_| below(&mut random, orders)).collect();
    let weights = levels(&mut random, images);
    let mut accuracy = |row: &Vec<Vec<&Answers>>| {
        let (mut sum, mut runs) = (0.0, 0.0f64);
        for order in &chosen {
            let seeds = &row[*order];
            let within: f64 = (0..seeds.len())
                .map(|_| hits(seeds[below(&mut random, seeds.len())], &weights))
                .sum();
            sum += within / seeds.len() as f64;
            runs += 1.0;
        }
        100.0 * sum / (runs.max(1.0) * images.max(1) as f64)
    };
    rows.iter().map(&mut accuracy).collect()
}

/// A number below `n`, by the same arithmetic in every version of the random-number library.
fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(random.next_u32()) * n as u64) >> 32) as usize
}

/// Draws `images` images with replacement. Bit i of level k says whether image i was drawn more
/// than k times: sums over drawn images are then counts of bits.
fn levels(random: &mut ChaCha8Rng, images: usize) -> Vec<Vec<u64>> {
    let mut times = vec![0usize; images];
    (0..images).for_each(|_| times[below(random, images)] += 1);
    let most = times.iter().copied().max().unwrap_or_default();
    let mut levels = vec![vec![0u64; images.div_ceil(64)]; most];
    for (i, n) in times.into_iter().enumerate() {
        levels[..n].iter_mut().for_each(|level| level[i / 64] |= 1 << (i % 64));
    }
    levels
}

/// The number of drawn images that were answered rightly.
fn hits(answers: &Answers, levels: &[Vec<u64>]) -> f64 {
    let level = |level: &Vec<u64>| -> u32 {
        level.iter().zip(&answers.right).map(|(a, b)| (a & b).count_ones()).sum()
    };
    levels.iter().map(|l| f64::from(level(l))).sum()
}
