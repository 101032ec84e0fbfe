//! The command `cilbench`.

fn main() -> std::process::ExitCode {
    cilbench_cli::main()
}
