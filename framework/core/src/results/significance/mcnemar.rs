//! McNemar's exact test on two classifiers' answers to the same images (McNemar 1947; Dietterich
//! 1998 recommends it where each classifier was trained once).

use statrs::distribution::{Binomial, DiscreteCDF};

/// The two-sided p-value, from the number of images that only the first answers rightly and the
/// number that only the second does.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    // Under the null hypothesis the smaller number is binomial with probability 1/2.
    match Binomial::new(0.5, n) {
        Ok(binomial) if n > 0 => (2.0 * binomial.cdf(only_first.min(only_second))).min(1.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_binomial_test_says() {
        // R: binom.test(2, 12)$p.value is 0.03857422; binom.test(5, 10)$p.value is 1.
        assert!((mcnemar(2, 10) - 0.038_574_218_75).abs() < 1e-9);
        assert!((mcnemar(10, 2) - mcnemar(2, 10)).abs() < 1e-12);
        assert_eq!(mcnemar(5, 5), 1.0);
        assert_eq!(mcnemar(0, 0), 1.0);
    }
}
