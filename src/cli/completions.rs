//! `prosampler completions`: what a shell needs to complete the command's words.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Cli;
use super::ending::Ending;
use crate::{Error, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<Ending> {
        let mut text = Vec::new();
        generate(self.shell, &mut Cli::command(), "prosampler", &mut text);
        let written = std::io::stdout().write_all(&text).and_then(|()| std::io::stdout().flush());
        written.map_err(|cause| Error::Io { action: "write to", path: "standard output".into(), cause })?;
        Ok(Ending::Done)
    }
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler completions bash > prosampler.bash
  prosampler completions zsh > _prosampler";
