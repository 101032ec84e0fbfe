//! The command `cilbench` with one more method in it: `cargo run --release -- run --method
//! my-method`.

use my_method as _; // named here, so that the linker keeps its registry entry

fn main() -> std::process::ExitCode {
    cilbench_cli::main()
}
