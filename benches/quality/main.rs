//! How hard mini-batches are, and how many of their pairs are false negatives by label: random walks over M and α, with
//! nearest first and a uniform shuffle to compare with; and how that goes over the course of an epoch, with exact
//! coverage and the paper's. Each row ends with the prefix bias: the percentages of the tenth of samples with the
//! lowest in-degree, and of the tenth with the highest, that have come by half of the epoch's mini-batches.
//!
//! `cargo bench --bench quality -- [PIPELINE] [--vectors COLUMN] [--plot FILE.svg] [--dials FOLDER]`: rows, encoder, B,
//! K (or 32) and label are those of the pipeline file (default `pipelines/text.toml`); with `--vectors` the embeddings
//! are read from a column of the rows instead. Prints Markdown, and with `--dials` draws a picture for each dial. Every
//! number is the mean over one epoch's mini-batches, seed 1; every graph is built once.

mod data;
mod dials;
mod plot;
mod tables;

use std::path::{Path, PathBuf};

use prosampler::{ComputePool, PipelineConfig};

use crate::data::Data;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut file, mut vectors, mut plot, mut dials_to) = (None, None, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--vectors" => vectors = arguments.next(),
            "--plot" => plot = arguments.next().map(PathBuf::from),
            "--dials" => dials_to = arguments.next().map(PathBuf::from),
            _ => file = Some(argument),
        }
    }
    let file = file.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/text.toml").into());
    let config = PipelineConfig::from_file(&file).unwrap_or_else(|e| panic!("{e}"));
    let pool = ComputePool::new(config.compute.threads).expect("a pool");
    let data = Data::load(&config, vectors.as_deref(), &pool);
    let (n, k, b) = (data.table.len(), data.neighbors, data.batch_size);
    println!("N = {n}, d = {}, K = {k}, B = {b}\n", data.table.dimension());
    tables::hardness(&data, &pool);
    let curves = tables::course(&data, &pool);
    if let Some(file) = plot {
        write(&file, &plot::course(&curves));
    }
    let (dials, uniform) = dials::all(&data, &pool);
    dials::print(&dials, uniform);
    for (folder, dial) in dials_to.iter().flat_map(|folder| dials.iter().map(move |dial| (folder, dial))) {
        let name = dial.name.rsplit('.').next().unwrap_or(dial.name);
        write(&folder.join(format!("dial-{name}.svg")), &plot::dial(dial, uniform));
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
}
