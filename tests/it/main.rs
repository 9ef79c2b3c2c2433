//! One binary, one promise a file.

mod bad_input;
mod bad_samples;
mod bad_vectors;
#[cfg(feature = "cloud")]
mod cloud;
mod config;
mod coverage;
mod determinism;
mod device;
mod encoders;
mod ending;
mod examples;
mod features_images;
mod features_numbers;
mod features_texts;
mod graph;
mod graph_file;
mod graph_statistics;
mod guards;
mod hnsw;
mod layers;
mod mini_batches;
mod nearest;
mod odd_images;
mod odd_values;
mod pairs;
mod pipelines;
mod providers;
mod refresh;
mod resume;
mod run;
mod sources;
mod store;
mod support;
mod updates;
mod views;
