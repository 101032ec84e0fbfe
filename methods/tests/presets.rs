//! Settings by data set that come from papers.

use cilbench::method;
use cilbench::parts::Training;
use cilbench_methods as _;

#[test]
fn inflora_on_domainnet_steps_down_at_its_last_epoch_and_trains_the_head_twice_as_fast() {
    let table =
        method::find("inflora").expect("inflora").configure("domainnet", &[]).expect("valid");
    assert_eq!((table["rank"].as_integer(), table["threshold"].as_float()), (Some(30), Some(0.95)));
    let training: Training = table.try_into().expect("the training's settings");
    let rates: Vec<f64> = (0..training.epochs).map(|epoch| training.rate(epoch)).collect();
    assert_eq!(rates.len(), 5);
    rates[..4]
        .iter()
        .chain([&(10.0 * rates[4])])
        .for_each(|rate| assert!((rate - 5e-3).abs() < 1e-12, "{rates:?}"));
    assert!((training.head_rate_factor * 5e-3 - 1e-2).abs() < 1e-12);
    training.check().expect("the settings go together");
}

#[test]
fn inflora_s_threshold_and_epochs_are_the_authors_for_each_data_set() {
    for (dataset, epochs, threshold) in [("cifar100", 20, 0.95), ("imagenet-r", 50, 0.98)] {
        let table =
            method::find("inflora").expect("inflora").configure(dataset, &[]).expect("valid");
        assert_eq!(
            (table["epochs"].as_integer(), table["threshold"].as_float()),
            (Some(epochs), Some(threshold)),
            "{dataset}"
        );
    }
}
