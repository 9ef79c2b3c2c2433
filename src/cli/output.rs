//! The file to which `prosampler run --output` writes its mini-batches.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use arrow::ipc::writer::StreamWriter;

use super::out::system_error;
use crate::config::PipelineConfig;
use crate::encode::external_data::named_files;
use crate::encode::{FileState, tokenizer_of};
use crate::source::{column_indices, local_files};
use crate::{Error, Fault, Faults, MiniBatch, MiniBatchStream, Result};

/// An Arrow IPC stream of mini-batches.
///
/// The file is opened before anything is read or embedded, so that no hours are spent if it cannot be written. It is
/// emptied when the stream has started.
pub(super) struct Output {
    path: PathBuf,
    is_new: bool,
    /// The file before [`begin`](Self::begin).
    file: Option<File>,
    writer: Option<StreamWriter<BufWriter<File>>>,
}

impl Output {
    pub fn open(path: PathBuf) -> Result<Self> {
        let failed = |cause: std::io::Error| Error::Io { action: "create", path: path.clone(), cause };
        if path.as_os_str() == "-" {
            let remedy = "name a file; /dev/stdout is standard output, and ./- a file of that name";
            return Err(failed(std::io::Error::new(ErrorKind::InvalidInput, remedy)));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let reason = format!("there is no folder `{}`", folder.display());
            return Err(failed(std::io::Error::new(ErrorKind::NotFound, reason)));
        }
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        Ok(Self { path, is_new, file: Some(file), writer: None })
    }

    /// Refuses to overwrite what the run reads or keeps: its data, its model, the pipeline file, and these `others`.
    pub fn must_be_apart(&self, config: &PipelineConfig, others: &[&Path]) -> Result<()> {
        let Ok(own) = FileState::of(&self.path) else { return Ok(()) };
        let is_own = |path: &Path| FileState::of(path).is_ok_and(|state| state.is_same_file(&own));
        let refused = |what: &str| {
            let message = format!("`{}` is {what}; name another file", self.path.display());
            Err(Faults::one("the command line", Fault::new("--output", message)).into())
        };
        // Faults of the uris are reported when the source is opened.
        if local_files(&config.source.uri).unwrap_or_default().iter().any(|file| is_own(file)) {
            return refused("among the files that the run reads (source.uri)");
        }
        let encode = &config.encode;
        let views = encode.views.iter().map(|view| (&view.model, &view.tokenizer));
        for (model, tokenizer) in views.chain([(&encode.model, &encode.tokenizer)]) {
            let model_files = model.iter().flat_map(|model| named_files(model).unwrap_or_default());
            let tokenizers = model.iter().map(|model| tokenizer_of(model));
            let mut files = model_files.chain(tokenizers).chain(tokenizer.clone()).chain(encode.runtime.clone());
            if files.any(|file| is_own(&file)) {
                return refused("a file of the model");
            }
        }
        if others.iter().any(|file| is_own(file)) {
            return refused("a file of the run itself");
        }
        let folder = own.resolved().parent();
        for (key, kept) in [("checkpoint.dir", &config.checkpoint.dir), ("store.cache_dir", &config.store.cache_dir)] {
            if let Some(kept) = kept
                && kept.canonicalize().is_ok_and(|kept| folder == Some(&kept))
            {
                return refused(&format!("in a folder that the run keeps for itself ({key})"));
            }
        }
        Ok(())
    }

    /// Empties the file and writes the schema of the mini-batches that follow.
    pub fn begin(&mut self, stream: &MiniBatchStream) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        // Pipes and devices have no length.
        if file.metadata().is_ok_and(|about| about.is_file()) {
            file.set_len(0).map_err(|cause| Error::Io { action: "empty", path: self.path.clone(), cause })?;
        }
        let schema = MiniBatch::schema(&stream.schema());
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        column_indices("the file of mini-batches", &schema, &names)?;
        self.writer = Some(StreamWriter::try_new_buffered(file, &schema).map_err(|e| self.failed(e))?);
        Ok(())
    }

    pub fn write(&mut self, mini_batch: &MiniBatch) -> Result<()> {
        let rows = mini_batch.to_record_batch()?;
        let written = self.writer.as_mut().map_or(Ok(()), |writer| writer.write(&rows));
        written.map_err(|e| self.failed(e))
    }

    pub fn finish(mut self) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().and_then(|()| writer.flush()).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: arrow::error::ArrowError) -> Error {
        Error::Io { action: "write", path: self.path.clone(), cause: system_error(error) }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new && self.file.is_some() {
            // The file is empty; if it stays, nothing is lost.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
