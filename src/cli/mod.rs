//! The `prosampler` command, one file a command.

#[macro_use]
mod out;

mod cache;
mod completions;
mod doctor;
mod ending;
mod export;
mod init;
mod inspect;
mod json;
mod man;
mod output;
mod output_apart;
mod page;
mod progress;
mod report;
mod resume;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod state;
mod summary;
mod tune;
mod watch;

use std::ffi::OsString;
use std::io::IsTerminal;

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
    Run(run::Run),
    /// Serves the mini-batches of a pipeline file over Arrow Flight, to trainers elsewhere.
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Runs a pipeline file and writes a page that shows how hard its mini-batches are, and who is in them.
    Report(report::Report),
    /// Tries settings of how hard mini-batches are on a sample of the data, and recommends one.
    Tune(tune::Tune),
    /// Writes rows, their embeddings and their neighbors, for tools that browse data.
    Export(export::Export),
    /// Says what is in a file, folder or pattern: columns, types, nulls, a few rows, and what the columns can serve as.
    Inspect(inspect::Inspect),
    /// Lists, checks or removes the rows and embeddings that runs keep for later ones.
    Cache(cache::Cache),
    /// Says what the machine has, what works on it, and whether a pipeline file can be run; if not, what to do.
    Doctor(doctor::Doctor),
    /// Prints completions of this command for a shell.
    Completions(completions::Completions),
    /// Writes a manual page of each command into a folder.
    Man(man::Man),
}

/// Runs the command of these arguments, the first of which is its own name, and prints what went wrong.
///
/// Returns the exit status. Call it once a process.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // If nobody reads what is wrong, or the help, there is nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(1);
        }
    };
    log(cli.verbose, matches!(&cli.command, Command::Run(run) if run.is_quiet()));
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
        Command::Run(run) => runtime.block_on(run.run(&arguments)),
        #[cfg(feature = "serve")]
        Command::Serve(serve) => runtime.block_on(serve.run()),
        Command::Report(report) => runtime.block_on(report.run()),
        Command::Tune(tune) => runtime.block_on(tune.run()),
        Command::Export(export) => runtime.block_on(export.run()),
        Command::Inspect(inspect) => runtime.block_on(inspect.run()),
        Command::Cache(cache) => cache.run(),
        Command::Doctor(doctor) => runtime.block_on(doctor.run()),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    // Work in the compute pool cannot be stopped halfway, so this does not wait for it.
    runtime.shutdown_background();
    exit_code(&result)
}

/// Logs to standard error, in colors if that is a terminal.
fn log(verbose: u8, is_quiet: bool) {
    let level = match verbose {
        0 if is_quiet => "error",
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declarations_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    /// Each command's help ends with examples that can be typed in the root of the repository.
    #[test]
    fn examples_are_commands_over_files_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut commands = Cli::command().disable_help_subcommand(true);
        commands.build();
        for command in commands.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            let examples = help.split_once("\nExamples:\n").map(|(_, examples)| examples);
            let examples = examples.unwrap_or_else(|| panic!("the help of {name} has no examples: {help}"));
            assert!((1..=2).contains(&examples.lines().count()), "{examples}");
            for example in examples.lines() {
                // What a shell does with the output is not the command's.
                let words = words(example.trim().split(" > ").next().unwrap());
                assert_eq!(words[..2], ["prosampler", &name], "{example}");
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
                let is_input = |word: &&String| word.starts_with("data/") || word.starts_with("pipelines/");
                words.iter().filter(is_input).for_each(|file| assert!(root.join(file).exists(), "{example}"));
            }
        }
    }

    /// The words of a line as a shell has them; examples quote by `"` only, and not within words.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (i, part) in line.split('"').enumerate() {
            let is_quoted = i % 2 == 1;
            if is_quoted {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }
}
