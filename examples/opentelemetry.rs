//! What a run spends its time on, as spans of OpenTelemetry: reading, embedding, the graph, and each refresh.
//!
//! `cargo run --release --example opentelemetry`
//!
//! The exporter here prints spans; that of the crate `opentelemetry-otlp` in its place sends them to a collector, and
//! nothing else changes. `RUST_LOG=prosampler=debug` has a span for each mini-batch, too.

use futures::TryStreamExt;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prosampler::{Pipeline, PipelineConfig};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(opentelemetry_stdout::SpanExporter::default());
    let provider = provider.build();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("prosampler=info"));
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("prosampler")).with_filter(filter);
    tracing_subscriber::registry().with(spans).init();

    // Mini-batches wait for the graph that they are to come from, so that no refresh is cut off by the end of the run.
    let settings = ["refresh.swap_after_steps=10".to_owned()];
    let config = PipelineConfig::from_file_with("pipelines/precomputed.toml", &settings)?;
    let mut stream = Pipeline::from_config(config).start().await?;
    while stream.try_next().await?.is_some() {
        // A training step goes here.
    }
    drop(stream);
    provider.shutdown()?;
    Ok(())
}
