//! The `prosampler` command, one file a command.

mod doctor;
mod inspect;
mod progress;
mod run;
mod state;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Hard-negative mini-batches for contrastive learning.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Says more: -v what happens, -vv every mini-batch. RUST_LOG, if set, decides instead.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a pipeline file: reads, embeds, builds the graph, streams mini-batches, and says how hard they are.
    Run(run::Run),
    /// Says what is in a file, folder or pattern: columns, types, nulls, a few rows, and what the columns can serve as.
    Inspect(inspect::Inspect),
    /// Says which ONNX Runtime is found, what it needs for CUDA, and which execution providers work.
    Doctor(doctor::Doctor),
}

/// Parses the command line, runs the command, and prints what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => "warn",
        1 => "warn,prosampler=info",
        _ => "warn,prosampler=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();

    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the async runtime: {error}")),
    };
    let result = match cli.command {
        Command::Run(run) => runtime.block_on(run.run()),
        Command::Inspect(inspect) => runtime.block_on(inspect.run()),
        Command::Doctor(doctor) => doctor.run(),
    };
    // Work in the compute pool cannot be stopped half-way; do not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
