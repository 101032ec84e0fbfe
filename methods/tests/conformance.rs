//! One generated test for every registered method and every rule.

use cilbench::{conformance, method};
use cilbench_methods as _;
use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut tests = Vec::new();
    for entry in method::all() {
        for case in conformance::cases() {
            let check = move || (case.check)(entry).map_err(|e| e.to_string().into());
            tests.push(Trial::test(format!("{}: {}", entry.about.name, case.rule), check));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
