//! The `prosampler` command, one file a command.

#[macro_use]
mod out;

mod cache;
mod doctor;
mod ending;
mod export;
mod init;
mod inspect;
mod map;
mod output;
mod progress;
mod report;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod state;
mod summary;
mod tune;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::ending::{EXIT_CODES, exit_code};
use crate::Error;

/// Hard-negative mini-batches for contrastive learning.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Says more: -v what happens, -vv every mini-batch. RUST_LOG, if set, decides instead.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks at data and a model, and writes a pipeline file that runs.
    Init(init::Init),
    /// Runs a pipeline file: reads, embeds, builds the graph, streams mini-batches, and says how hard they are.
    #[command(after_help = EXIT_CODES)]
    Run(run::Run),
    /// Serves the mini-batches of a pipeline file over Arrow Flight, to trainers elsewhere.
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Runs a pipeline file and writes a page that shows how hard its mini-batches are, and who is in them.
    #[command(after_help = EXIT_CODES)]
    Report(report::Report),
    /// Tries settings of how hard mini-batches are on a sample of the data, and recommends one.
    Tune(tune::Tune),
    /// Writes rows, a map of their embeddings and their neighbors, for tools that browse data.
    Export(export::Export),
    /// Says what is in a file, folder or pattern: columns, types, nulls, a few rows, and what the columns can serve as.
    Inspect(inspect::Inspect),
    /// Lists, checks or removes the rows and embeddings that runs keep for later ones.
    Cache(cache::Cache),
    /// Says which ONNX Runtime is found, what it needs for CUDA, and which execution providers work.
    Doctor(doctor::Doctor),
}

/// Parses the command line, runs the command, and prints what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.verbose);
    #[cfg(unix)]
    // SAFETY: the signal is ignored, so no handler is installed. A file that exceeds the limit of the process then is
    // an error that names it, as a full disk is, and does not end the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit_code(&Err(Error::System { action: "start the async runtime", cause: error.into() }));
        }
    };
    let result = match cli.command {
        Command::Init(init) => runtime.block_on(init.run()),
        Command::Run(run) => runtime.block_on(run.run()),
        #[cfg(feature = "serve")]
        Command::Serve(serve) => runtime.block_on(serve.run()),
        Command::Report(report) => runtime.block_on(report.run()),
        Command::Tune(tune) => runtime.block_on(tune.run()),
        Command::Export(export) => runtime.block_on(export.run()),
        Command::Inspect(inspect) => runtime.block_on(inspect.run()),
        Command::Cache(cache) => cache.run(),
        Command::Doctor(doctor) => doctor.run(),
    };
    // Work in the compute pool cannot be stopped halfway, so this does not wait for it.
    runtime.shutdown_background();
    exit_code(&result)
}

/// Logs to standard error, in colors if that is a terminal.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "warn,prosampler=info",
        _ => "warn,prosampler=debug",
    };
    let wanted = std::env::var_os(EnvFilter::DEFAULT_ENV).map(|_| EnvFilter::try_from_default_env()).transpose();
    let filter = wanted.unwrap_or_else(|error| {
        note!("{} is not understood: {error}; -v and -vv say more, too", EnvFilter::DEFAULT_ENV);
        None
    });
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(level)))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR"))
        .log_internal_errors(false)
        .with_target(false)
        .init();
}
