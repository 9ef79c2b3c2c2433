//! `prosampler init`: looks at data and a model, and writes a pipeline file.

mod guess;
mod text;

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use clap::Args;
use futures::TryStreamExt;

use self::guess::guess;
use self::text::{Facts, text};
use super::ending::Ending;
use super::progress::thousands;
use crate::compute::ComputePool;
use crate::config::{EncodeConfig, PipelineConfig, SourceConfig};
use crate::encode::declared_inputs;
use crate::pipeline::open_source;
use crate::source::{self, Source, column_indices};
use crate::store::decoded_schema;
use crate::{Error, Fault, Faults, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Init {
    /// Files, folders or shell patterns, as `source.uri` takes them.
    #[arg(required = true)]
    uri: Vec<String>,

    /// The ONNX model that embeds the rows. Without one, rows must hold vectors, or the file names a model to be put
    /// beside it.
    #[arg(long)]
    model: Option<PathBuf>,

    /// The file to write; it must not be there.
    #[arg(long, short, value_name = "FILE", default_value = "pipeline.toml")]
    out: PathBuf,
}

impl Init {
    pub async fn run(self) -> Result<Ending> {
        if self.out.exists() {
            let cause = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there; name another by --out");
            return Err(Error::Io { action: "create", path: self.out, cause });
        }
        let config = SourceConfig { uri: self.uri.clone(), ..SourceConfig::default() };
        let source = source::open(&config).await?;
        let rows = first_rows(source.as_ref()).await?;
        let inputs = self.model.as_deref().map(model_inputs).transpose()?;
        let guess = guess(&rows.schema(), &rows, inputs.as_deref())
            .map_err(|message| Faults::one(Faults::COMMAND_LINE, Fault::new("URI", message)))?;

        let uri = self.uri.iter().map(|uri| self.as_written(uri)).collect::<Result<Vec<_>>>()?;
        let model = self.model.as_ref().map(|model| self.as_written(&model.to_string_lossy())).transpose()?;
        let name = self.out.display().to_string();
        let facts = Facts {
            name: &name,
            uri: &uri,
            rows: source.rows(),
            model: model.as_deref().map(Path::new),
            guess: &guess,
        };
        let failed = |cause| Error::Io { action: "create", path: self.out.clone(), cause };
        let mut file = std::fs::File::create_new(&self.out).map_err(failed)?;
        std::io::Write::write_all(&mut file, text(&facts).as_bytes()).map_err(failed)?;

        let count = source.rows().map(|rows| format!("{} rows: ", thousands(rows as u64))).unwrap_or_default();
        note!("{count}{}", guess.why);
        if let Some((_, why)) = &guess.label {
            note!("label for the summary: {why}");
        }
        self.try_it(&guess).await
    }

    /// Opens what the file names, so that what does not fit is known now.
    async fn try_it(&self, guess: &guess::Guess) -> Result<Ending> {
        let out = self.out.display();
        let needs_model = self.model.is_none() && !matches!(guess.embedded, guess::Embedded::Vector { .. });
        if needs_model {
            note!("{out} is written, and needs a model: see `model` in it, and docs/models.md for what it may be");
            return Ok(Ending::Done);
        }
        let config = PipelineConfig::from_file(&self.out)?;
        let pool = ComputePool::new(config.compute.threads)?;
        match open_source(&config, &pool).await {
            Ok(_) => note!("{out} is written; try it: prosampler run {out}"),
            Err(error) => {
                note!("{out} is written, but must be changed before it runs:");
                return Err(error);
            }
        }
        Ok(Ending::Done)
    }

    /// A path as a file beside `out` has it: the same if `out` is in the current folder, else an absolute one.
    fn as_written(&self, path: &str) -> Result<String> {
        let is_here = self.out.parent().is_none_or(|folder| folder.as_os_str().is_empty());
        if is_here || path.contains("://") {
            return Ok(path.to_owned());
        }
        let absolute = std::path::absolute(path);
        let absolute = absolute.map_err(|cause| Error::Io { action: "find", path: path.into(), cause })?;
        Ok(absolute.to_string_lossy().into_owned())
    }
}

/// The names of a model's inputs.
fn model_inputs(model: &Path) -> Result<Vec<String>> {
    declared_inputs(&EncodeConfig { model: Some(model.to_owned()), sessions: 1, ..EncodeConfig::default() })
}

/// The first rows, with all columns whose name is theirs alone.
async fn first_rows(source: &dyn Source) -> Result<RecordBatch> {
    let schema = decoded_schema(&source.schema());
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    column_indices(source.uri(), &schema, &names)?;
    let mut batches = source.read(&names)?;
    let mut first: Vec<RecordBatch> = Vec::new();
    while first.iter().map(RecordBatch::num_rows).sum::<usize>() < LOOKED_AT
        && let Some(batch) = batches.try_next().await?
    {
        first.push(batch);
    }
    let schema = first.first().map_or_else(|| source.schema(), RecordBatch::schema);
    concat_batches(&schema, &first).map_err(|cause| Error::Arrow { action: "look at the first rows", cause })
}

/// How many rows are looked at, about.
const LOOKED_AT: usize = 2000;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler init data/wordnet/glosses.parquet --model data/models/gloss-encoder/model.onnx --out glosses.toml
  prosampler init data/fashion-mnist/embeddings.parquet";
