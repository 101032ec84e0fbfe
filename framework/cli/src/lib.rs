//! The command line of cilbench as a library, so that a third party's crate can run it with methods of its own:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     cilbench_cli::main()
//! }
//! ```
#![deny(missing_docs)]

mod args;
mod bench;
mod conformance;
mod data;
mod finished;
mod hub;
mod leaderboard;
mod list;
mod parity;
mod plugin;
mod prepare;
mod progress;
mod reproduce;
mod run;
mod verify;

use std::process::ExitCode;

use cilbench::{Error, Result};
// Named here so that the linker keeps these crates' registry entries.
use cilbench_benchmarks as _;
use cilbench_methods as _;
use clap::Parser;

use args::{Args, BenchCommand, Command, DataCommand, PluginCommand, RunArgs};
use plugin::Loader;

// Batches and activations are large and short-lived: the system's allocator would return each to the kernel and fault it in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command line of this process: 0 done, 1 failed, 2 bad usage or configuration, 130 stopped by Ctrl-C.
pub fn main() -> ExitCode {
    quiet_when_nobody_reads();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers; everything else is bad usage. Either way clap's text is the message.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if let Some(threads) = args.threads {
        if threads == 0 {
            eprintln!("error: --threads 0: at least one thread is needed");
            return ExitCode::from(2);
        }
        // SAFETY: this is the first thing the process does; no other thread exists that could read the environment.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    if args.offline {
        // SAFETY: as above.
        unsafe { std::env::set_var("HF_HUB_OFFLINE", "1") };
    }
    let outcome = open_plugins(&args).and_then(|()| execute(args));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(Error::exit_code(&error))
        }
    }
}

/// Opens the plugins of the command line and of the environment, for commands that have to do with methods.
fn open_plugins(args: &Args) -> Result<()> {
    use Command::{Data, Leaderboard, Plugin, Verify};
    // A run that goes on, or is looked at again, is opened as it was begun.
    let begun = match &args.command {
        Command::Run(run) => run.resume.as_ref(),
        Command::Eval(args) => Some(&args.run),
        Command::Export(args) => Some(&args.run),
        Command::Reproduce(args) => Some(&args.run),
        _ => None,
    };
    let (isolate, begun) = match (&args.command, begun) {
        (_, Some(folder)) => prepare::started_with(folder).map(|a| (a.isolate, a.plugin_timeout))?,
        (Command::Run(run), None) => (run.isolate, None),
        _ => (false, None),
    };
    Loader::timeout(args.plugin_timeout.or(begun).unwrap_or(600.0))?;
    let loader = Loader { isolate };
    args.plugin.iter().try_for_each(|name| loader.open(name))?;
    match args.command {
        Data { .. }
        | Leaderboard(_)
        | Verify(_)
        | Plugin { what: PluginCommand::New(_) | PluginCommand::Check { .. } | PluginCommand::Serve { .. } } => Ok(()),
        _ => loader.open_folder(),
    }
}

fn execute(args: Args) -> Result<()> {
    match args.command {
        Command::Run(run) => run::run(&RunArgs { plugins: args.plugin, plugin_timeout: args.plugin_timeout, ..*run }),
        Command::Plugin { what } => plugin::plugin(what),
        Command::List { what } => list::list(what),
        Command::Describe { name } => list::describe(&name),
        Command::Data { what: DataCommand::Check(args) } => data::check(&args),
        Command::Data { what: DataCommand::Fetch { dataset } } => hub::fetch(&dataset),
        Command::Bench { what: BenchCommand::Data(args) } => data::bench(&args),
        Command::Bench { what: BenchCommand::Step(args) } => bench::step(&args),
        Command::Bench { what: BenchCommand::Products(args) } => bench::products(&args),
        Command::Bench { what: BenchCommand::TaskEnd(args) } => bench::task_end(&args),
        Command::Verify(verify) => verify::verify(&verify),
        Command::Parity(args) => parity::parity(&args),
        Command::Leaderboard(args) => leaderboard::leaderboard(&args),
        Command::Eval(args) => finished::eval(&args),
        Command::Export(args) => finished::export(&args),
        Command::Reproduce(args) => reproduce::reproduce(&args),
        Command::Conformance { method } => conformance::conformance(&method),
    }
}

/// Ends the process when what reads its output has gone (`cilbench … | head`), instead of a panic's report.
fn quiet_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic
            .payload()
            .downcast_ref::<String>()
            .is_some_and(|text| text.starts_with("failed printing to stdout") && text.contains("Broken pipe"))
        {
            // What a shell reports of a process that SIGPIPE ended.
            std::process::exit(141);
        }
        usual(panic);
    }));
}
