use super::*;
use crate::metrics::Prediction;

/// Answers to `n` images; image i is right where `right(i)`.
fn answers(order: &str, n: usize, right: impl Fn(usize) -> bool) -> Answers {
    let one = |i: usize| Prediction {
        // The order in the file does not matter.
        key: format!("{:05}", (i * 7919) % n),
        task: 0,
        label: 1,
        prediction: usize::from(right((i * 7919) % n)),
        confidence: 1.0,
        task_aware: 1,
        rank: None,
    };
    Answers::new(order, &(0..n).map(one).collect::<Vec<_>>())
}

#[test]
fn one_run_each_is_mcnemar_and_more_are_bootstrapped() {
    // 12 images in which they differ: 10 for the first, 2 for the second.
    let a = answers("o", 101, |i| i < 60);
    let b = answers("o", 101, |i| (10..62).contains(&i));
    assert!((a.accuracy() - 6000.0 / 101.0).abs() < 1e-12);
    let one = Significance::of(&[vec![a.clone()], vec![b.clone()]]);
    assert_eq!((one.pairs.len(), one.pairs[0].test), (1, Test::McNemar));
    assert!((one.pairs[0].p - 0.038_574_218_75).abs() < 1e-9);
    assert!(one.caption().expect("tested").contains("McNemar"));
    let several = Significance::of(&[vec![a.clone(), a], vec![b]]);
    assert_eq!(several.pairs[0].test, Test::Bootstrap);
    assert!(several.caption().expect("tested").contains("bootstrap (10000 draws"));
}

#[test]
fn the_bootstrap_has_the_standard_error_of_the_paired_difference() {
    // Each seed of a row gives the same answers, so that images are all the variance there is.
    let n = 400;
    let (a, b) = (answers("o", n, |i| i < 240), answers("o", n, |i| (40..264).contains(&i)));
    let both = Significance::of(&[vec![a.clone(), a], vec![b.clone(), b]]);
    // 40 images for the first, 24 for the second: the variance of a mean of +1, −1 and 0.
    let (plus, minus) = (40.0 / 400.0, 24.0 / 400.0);
    let error = ((plus + minus - (plus - minus) * (plus - minus)) / n as f64).sqrt();
    let expected = 2.0 * Normal::standard().cdf(-(plus - minus) / error);
    let p = both.pairs[0].p;
    assert!((p - expected).abs() < 0.15 * expected, "{p} {expected}");
    assert!((both.pairs[0].difference - 4.0).abs() < 1e-9);
    let (low, high) = both.intervals[0].expect("interval");
    // 60 % ± 1.96 · sqrt(0.6 · 0.4 / 400).
    assert!((low - 55.2).abs() < 0.5 && (high - 64.8).abs() < 0.5, "{low} {high}");
}

#[test]
fn seeds_and_class_orders_add_to_the_variance() {
    let good = |order: &str| answers(order, 400, |i| i < 300);
    let bad = |order: &str| answers(order, 400, |i| i < 200);
    let middle = |order: &str| answers(order, 400, |i| i < 250);
    let sure = Significance::of(&[vec![middle("o"), middle("o")], vec![bad("o"), bad("o")]]);
    // The same means, but each mean is of one high and one low value.
    let unsure = Significance::of(&[vec![good("o"), bad("o")], vec![bad("o"), bad("o")]]);
    assert!(sure.pairs[0].p < 1e-6 && unsure.pairs[0].p > 0.05, "{sure:?} {unsure:?}");
    let orders = Significance::of(&[vec![good("o"), bad("p")], vec![bad("o"), bad("p")]]);
    assert!(orders.pairs[0].p > 0.05, "{orders:?}");
}

#[test]
fn only_the_same_images_and_orders_are_compared() {
    let rows = [
        vec![answers("o", 100, |i| i < 50)],
        vec![],
        vec![answers("o", 99, |i| i < 50)],
        vec![answers("p", 100, |i| i < 50)],
        vec![answers("o", 100, |i| i < 90)],
    ];
    let found = Significance::of(&rows);
    assert_eq!(found.pairs.iter().map(|p| (p.a, p.b)).collect::<Vec<_>>(), [(0, 4)]);
    assert!(found.intervals[0].is_some() && found.intervals[1..4].iter().all(Option::is_none));
    assert!(found.pair(4, 0).is_some() && found.pair(0, 1).is_none());
    assert_eq!(Significance::of(&[vec![], vec![]]).caption(), None);
}
