//! Every exported method, opened as a library, through every rule: all that a method may call
//! crosses the C ABI here.

use builtin_binary as _;
use cilbench::conformance;
use libtest_mimic::{Arguments, Trial};

fn main() {
    let folder = std::env::current_exe().expect("a path").parent().expect("a folder").to_owned();
    let name =
        format!("{}builtin_binary{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let opened = cilbench::plugin::open(&folder.join(name)).expect("a plugin");
    let mut tests = Vec::new();
    for entry in opened.register().expect("free names") {
        for case in conformance::cases() {
            let check = move || (case.check)(entry).map_err(|e| e.to_string().into());
            tests.push(Trial::test(format!("{}: {}", entry.about.name, case.rule), check));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
