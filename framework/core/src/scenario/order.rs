//! The order in which classes appear: natural, or numpy's permutation of a seed, so that 1993 means what it means in every PyCIL-like code base.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// An order of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClassOrder {
    /// As the data set numbers them.
    Natural,
    /// `numpy.random.RandomState(seed).permutation(classes)`.
    Seed(u32),
}

impl ClassOrder {
    /// The classes `0..n` in this order.
    pub fn permutation(self, n: usize) -> Vec<usize> {
        match self {
            Self::Natural => (0..n).collect(),
            Self::Seed(seed) => numpy_permutation(seed, n),
        }
    }
}

impl fmt::Display for ClassOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Natural => f.write_str("natural"),
            Self::Seed(seed) => write!(f, "seed:{seed}"),
        }
    }
}

impl FromStr for ClassOrder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let seed = text.strip_prefix("seed:").and_then(|s| s.parse().ok());
        match (text, seed) {
            ("natural", _) => Ok(Self::Natural),
            (_, Some(seed)) => Ok(Self::Seed(seed)),
            _ => {
                Err(Error::usage(format!("class order '{text}': use natural, or seed:<n> with n from 0 to {}, as in seed:1993", u32::MAX)))
            }
        }
    }
}

impl TryFrom<String> for ClassOrder {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ClassOrder> for String {
    fn from(order: ClassOrder) -> Self {
        order.to_string()
    }
}

/// numpy's legacy `RandomState(seed).permutation(n)`: Fisher and Yates from the end, each index by masked rejection of 32-bit draws.
fn numpy_permutation(seed: u32, n: usize) -> Vec<usize> {
    let mut rng = rand_mt::Mt::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let draw = rng.next_u32() & mask;
            if draw <= i as u32 {
                break draw as usize;
            }
        };
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `python3 -c "import numpy; print(numpy.random.RandomState(SEED).permutation(N).tolist())"`
    #[test]
    fn equals_numpy() {
        assert_eq!(ClassOrder::Seed(1993).permutation(10), [4, 2, 7, 6, 0, 3, 5, 8, 9, 1]);
        assert_eq!(ClassOrder::Seed(0).permutation(7), [6, 2, 1, 3, 0, 5, 4]);
        assert_eq!(ClassOrder::Seed(42).permutation(13), [11, 9, 0, 8, 5, 2, 1, 12, 4, 7, 10, 3, 6]);
        assert_eq!(ClassOrder::Seed(4294967295).permutation(9), [5, 1, 8, 7, 0, 6, 4, 2, 3]);
        let hundred = ClassOrder::Seed(1993).permutation(100);
        assert_eq!(hundred[..20], [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]);
        assert_eq!(hundred[80..], [62, 69, 36, 61, 7, 63, 75, 5, 32, 4, 51, 48, 73, 93, 39, 67, 29, 49, 57, 33]);
    }

    #[test]
    fn text_goes_there_and_back() {
        for text in ["natural", "seed:1993"] {
            assert_eq!(text.parse::<ClassOrder>().expect("valid").to_string(), text);
        }
        for bad in ["random", "seed:", "seed:-1", "seed:x", ""] {
            assert!(bad.parse::<ClassOrder>().expect_err("must be refused").to_string().contains("seed:1993"), "{bad}");
        }
    }
}
