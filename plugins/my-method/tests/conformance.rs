//! Whether the method keeps the rules: small real runs, stopped and resumed, rebuilt from its
//! state, behind a plugin boundary.

use my_method as _;

#[test]
fn it_keeps_the_rules() {
    let entry = cilbench::method::find("my-method").expect("it is registered");
    for case in cilbench::conformance::cases() {
        (case.check)(entry).unwrap_or_else(|error| panic!("{}: {error}", case.rule));
    }
}
