//! Ways to split a data set into training and test images.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Split, shuffled};
use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// The split whose images are drawn by a seed, per class and domain: 80 % for training.
pub const RANDOM: &str = "random-80-20";

/// The name of a split, with its seed if it is a random one: `coda`, `random-80-20:7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SplitId {
    /// A split by lists or folders.
    Fixed(String),
    /// [`RANDOM`] with its seed.
    Random(u64),
}

impl SplitId {
    /// Its name without a seed.
    pub fn name(&self) -> &str {
        match self {
            Self::Fixed(name) => name,
            Self::Random(_) => RANDOM,
        }
    }
}

impl FromStr for SplitId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == RANDOM => Ok(Self::Random(0)),
            None => Ok(Self::Fixed(text.to_owned())),
            Some((RANDOM, seed)) => seed
                .parse()
                .map(Self::Random)
                .map_err(|_| Error::usage(format!("split '{text}': '{seed}' is no seed"))),
            Some((name, _)) => Err(Error::usage(format!(
                "split '{text}': only {RANDOM} has a seed, as in {RANDOM}:7; '{name}' has none"
            ))),
        }
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(name) => f.write_str(name),
            Self::Random(seed) => write!(f, "{RANDOM}:{seed}"),
        }
    }
}

impl TryFrom<String> for SplitId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SplitId> for String {
    fn from(id: SplitId) -> Self {
        id.to_string()
    }
}

/// Which split each of the images of one class and domain belongs to: round(0.8·n) are drawn for
/// training, at least one stays on either side where there are two. The images are in canonical
/// order; the draw depends on the seed, the class and the domain alone.
pub fn random_split(n: usize, seed: u64, class: usize, domain: usize) -> Vec<Split> {
    let train =
        ((0.8 * n as f64).round() as usize).clamp(n.min(1), n.saturating_sub(1).max(n.min(1)));
    let mut of = vec![Split::Test; n];
    let order = shuffled(n, &mut stream(seed, Purpose::Split, &[&class, &domain]));
    order[..train].iter().for_each(|i| of[*i] = Split::Train);
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for text in ["coda", "folder", "random-80-20:0", "random-80-20:7"] {
            assert_eq!(text.parse::<SplitId>().expect("valid").to_string(), text);
        }
        assert_eq!("random-80-20".parse::<SplitId>().expect("valid"), SplitId::Random(0));
        for bad in ["random-80-20:x", "coda:1"] {
            assert!(bad.parse::<SplitId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn four_of_five_are_for_training_and_the_seed_decides_which() {
        for (n, train) in [(0, 0), (1, 1), (2, 1), (3, 2), (10, 8), (100, 80)] {
            assert_eq!(
                random_split(n, 3, 1, 0).iter().filter(|s| **s == Split::Train).count(),
                train,
                "{n}"
            );
        }
        assert_eq!(random_split(50, 3, 1, 0), random_split(50, 3, 1, 0));
        assert_ne!(random_split(50, 3, 1, 0), random_split(50, 4, 1, 0));
        assert_ne!(random_split(50, 3, 1, 0), random_split(50, 3, 2, 0));
    }
}
