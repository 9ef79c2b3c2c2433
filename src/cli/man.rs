//! `prosampler man`: a manual page of each command.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Cli;
use super::ending::Ending;
use crate::{Error, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Man {
    /// The folder, made if missing. Files of the same names are overwritten.
    dir: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<Ending> {
        let written =
            std::fs::create_dir_all(&self.dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &self.dir));
        written.map_err(|cause| Error::Io { action: "write manual pages in", path: self.dir.clone(), cause })?;
        say!("read them by: man {}", self.dir.join("prosampler.1").display())?;
        Ok(Ending::Done)
    }
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler man man1";
