//! The command `cilbench` with a data set, a scenario and a backbone more: `cargo run --release -p
//! own-data-and-backbone -- run --scenario stripes-3 --backbone pixel-grid --method simplecil`.

use own_data_and_backbone as _;

fn main() -> std::process::ExitCode {
    cilbench_cli::main()
}
