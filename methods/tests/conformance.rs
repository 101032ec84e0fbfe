//! One generated test for every registered method and every rule, and for settings that make a
//! method another one.

use cilbench::method::MethodEntry;
use cilbench::{conformance, method};
use cilbench_methods::{
    DerPlusPlus, Er, Icarl, InfLora, Joint, Lwf, PerturbAndMerge, RanPac, Sr2Lora,
};
use libtest_mimic::{Arguments, Trial};

/// Methods with other settings than their defaults, as TOML: the suite's data set has no name.
fn variants() -> Vec<(&'static str, MethodEntry)> {
    let with = |mut entry: MethodEntry, presets| {
        entry.about.presets = presets;
        entry
    };
    vec![
        (
            "head",
            with(
                MethodEntry::of::<Er>(),
                "[\"\"]\ntrainable = 'head'\nselection = 'random'\nmemory_per_class = 2",
            ),
        ),
        (
            "all",
            with(
                MethodEntry::of::<Er>(),
                "[\"\"]\ntrainable = 'all'\nlearning_rate = 1e-4\nmemory_total = 6\nmemory_per_class = 0",
            ),
        ),
        (
            "reservoir",
            with(
                MethodEntry::of::<DerPlusPlus>(),
                "[\"\"]\nselection = 'reservoir'\nmemory_total = 5\nmemory_per_class = 0",
            ),
        ),
        (
            "all, softmax",
            with(
                MethodEntry::of::<Icarl>(),
                "[\"\"]\ntrainable = 'all'\ndistillation = 'softmax'\nmemory_per_class = 2",
            ),
        ),
        (
            "all",
            with(MethodEntry::of::<Joint>(), "[\"\"]\ntrainable = 'all'\nlearning_rate = 1e-4"),
        ),
        ("all", with(MethodEntry::of::<Lwf>(), "[\"\"]\ntrainable = 'all'\nlearning_rate = 1e-4")),
        ("head", with(MethodEntry::of::<Lwf>(), "[\"\"]\ntrainable = 'head'")),
        (
            "last blocks, alignment",
            with(
                MethodEntry::of::<InfLora>(),
                "[\"\"]\nlast_blocks = 1\nclassifier_alignment = true",
            ),
        ),
        (
            "the schedule for DomainNet",
            with(
                MethodEntry::of::<InfLora>(),
                "[\"\"]\noptimiser = 'sgd'\nlearning_rate = 5e-3\nhead_rate_factor = 2.0\nschedule = 'step'\nmilestones = [1]\nepochs = 2",
            ),
        ),
        (
            "each site, batches",
            with(
                MethodEntry::of::<PerturbAndMerge>(),
                "[\"\"]\nperturb_each_site = true\nfisher_batch_size = 3",
            ),
        ),
        (
            "entrywise",
            with(
                MethodEntry::of::<Sr2Lora>(),
                "[\"\"]\nalignment = 'entrywise'\ntask_loss = 'normalised'",
            ),
        ),
        ("first session", with(MethodEntry::of::<RanPac>(), "[\"\"]\nfirst_session = true")),
    ]
}

fn main() {
    let variants: &'static [(&str, MethodEntry)] = variants().leak();
    let plain = method::all().into_iter().map(|entry| (entry.about.name.to_owned(), entry));
    let varied =
        variants.iter().map(|(what, entry)| (format!("{} ({what})", entry.about.name), entry));
    let mut tests = Vec::new();
    for (name, entry) in plain.chain(varied) {
        for case in conformance::cases() {
            let check = move || (case.check)(entry).map_err(|e| e.to_string().into());
            tests.push(Trial::test(format!("{name}: {}", case.rule), check));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
