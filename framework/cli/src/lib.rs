//! The command line of cilbench as a library. A third party's crate runs it with its own methods:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     cilbench_cli::main()
//! }
//! ```
#![deny(missing_docs)]

mod args;
mod command_file;
mod commands;
mod finished;
mod hub;
mod output;
mod paths;
mod plugins;
mod prepare;
mod progress;
mod settings;
mod signals;

use std::process::ExitCode;

use cilbench::Error;
// Named here so that the linker keeps these crates' registry entries.
use cilbench_benchmarks as _;
use cilbench_methods as _;
use clap::Parser;

use args::GlobalArgs;
use commands::Args;

// Batches and activations are large and short-lived. The system's allocator would return each to
// the kernel and fault it in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 bad usage or
/// configuration, 75 stopped by a scheduler or a time limit (the same command goes on), 130 stopped
/// by Ctrl-C.
pub fn main() -> ExitCode {
    exit_quietly_on_broken_pipe();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers. Everything else is bad usage, and clap's text is the
            // message.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if args.global.threads == Some(0) {
        eprintln!("error: --threads 0: at least one thread is needed");
        return ExitCode::from(2);
    }
    set_environment(&args.global);
    let command = args.command.given();
    let outcome = command
        .plugins()
        .and_then(|policy| policy.open(&args.global))
        .and_then(|()| command.execute(&args.global));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                Error::Interrupted(_) if signals::made_room() => {
                    ExitCode::from(signals::GO_ON_LATER)
                }
                error => ExitCode::from(error.exit_code()),
            }
        }
    }
}

/// Passes the global options on to the libraries that read them from the environment.
fn set_environment(global: &GlobalArgs) {
    if let Some(threads) = global.threads {
        // SAFETY: no other thread exists yet that could read the environment.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    if global.offline {
        // SAFETY: no other thread exists yet that could read the environment.
        unsafe { std::env::set_var("HF_HUB_OFFLINE", "1") };
    }
}

/// Ends the process without a panic's report when the reader of its output has gone, as in
/// `cilbench … | head`.
fn exit_quietly_on_broken_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<String>().is_some_and(|text| {
            text.starts_with("failed printing to stdout") && text.contains("Broken pipe")
        }) {
            // The code with which a shell reports a process that SIGPIPE ended.
            std::process::exit(141);
        }
        usual(panic);
    }));
}
