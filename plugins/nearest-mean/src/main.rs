//! The command `cilbench` with one more method in it: `cargo run --release -p nearest-mean -- run
//! --method nearest-mean`.

use nearest_mean as _;

fn main() -> std::process::ExitCode {
    cilbench_cli::main()
}
