//! A run as Prometheus reads it, in the text format of OpenMetrics 1.0.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::status::{Running, Status};
use super::watched::Watched;

/// What `/metrics` answers.
pub(super) fn exposition(watched: Arc<Watched>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("prosampler");
    registry.register_collector(Box::new(Exposition(watched)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The media type of [`exposition`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
struct Exposition(Arc<Watched>);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = Status::of(&self.0);
        let mut write = Writer(encoder);
        write.gauges("info", "The version, always 1.", "version", &[(status.version, Some(1.0))])?;
        write.seconds("uptime", "Since the run was started or resumed.", MetricType::Gauge, status.seconds)?;
        let progress = status.progress.as_ref();
        let share = progress.and_then(|of| Some((of.stage, Some(of.done as f64 / of.total?.max(1) as f64))));
        let help = "How far the start or the refresh that is running has come, 0 to 1.";
        write.gauges("progress_ratio", help, "stage", share.as_slice())?;
        status.run.as_ref().map_or(Ok(()), |run| write.run(run))
    }
}

/// Writes one metric after another.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn run(&mut self, run: &Running) -> fmt::Result {
        let (walks, refreshes, took) = (&run.counts, &run.refreshes, &run.refresh_seconds);
        self.counter("mini_batches", "Mini-batches taken since the start or resume.", run.mini_batches)?;
        self.counter("samples", "Samples in them.", run.samples)?;
        self.counter("warm_up", "Mini-batches of the warm-up among them.", run.warm_up)?;
        self.gauge("delivered", "Mini-batches taken, before a resume too.", Some(run.delivered as f64))?;
        self.gauge("epoch", "The epoch of the last mini-batch, from 0.", run.epoch.map(|n| n as f64))?;
        self.gauge("similarity", "The mean similarity of the last mini-batch.", run.similarity.map(f64::from))?;
        let help = "Steps since the embeddings of the last mini-batch were made.";
        self.gauge("staleness", help, run.staleness.map(|n| n as f64))?;
        self.gauge("graph_version", "The graph of the last mini-batch.", run.graph_version.map(|n| n as f64))?;
        self.gauge("model_version", "The model of the last mini-batch.", run.model_version.map(|n| n as f64))?;
        self.gauge("ready", "Mini-batches that wait for the trainer.", run.ready.map(|n| n as f64))?;
        self.gauge("prefetch", "Mini-batches that can wait.", run.prefetch.map(|n| n as f64))?;
        let help = "How long the trainer has waited for mini-batches.";
        self.seconds("trainer_wait", help, MetricType::Counter, run.trainer_wait)?;
        let help = "How long the producer has waited for the trainer.";
        self.seconds("producer_wait", help, MetricType::Counter, run.producer_wait)?;

        let refused = [
            ("duplicates", walks.refused_duplicates),
            ("distinct", walks.refused_distinct),
            ("nearest", walks.refused_nearest),
            ("similar", walks.refused_similar),
            ("relative", walks.refused_relative),
        ];
        self.counters("refused", "Samples that guards have refused.", "guard", &refused)?;
        self.counter("short", "Places that guards have left empty.", walks.short)?;
        self.counter("unplaced", "Samples that guards have kept out of epochs that ended.", run.unplaced)?;
        let repeated = "Mini-batches of samples that their epoch had had, to be as long as on other hosts.";
        self.counter("repeated", repeated, run.repeated)?;
        let walked = [
            ("moves", walks.moves),
            ("restarts", walks.restarts),
            ("new_starts", walks.new_starts),
            ("uniform_top_ups", walks.uniform_top_ups),
            ("uniform_draws", walks.uniform_draws),
        ];
        self.counters("walks", "What has happened on walks.", "event", &walked)?;
        let negatives = [("topped_up", walks.negatives_topped_up), ("repeated", walks.negatives_repeated)];
        self.counters("negatives", "Explicit negatives that are not what was asked for.", "event", &negatives)?;

        let ended = [
            ("published", refreshes.published),
            ("skipped", refreshes.skipped),
            ("failed", refreshes.failed),
            ("cancelled", refreshes.cancelled),
        ];
        self.counters("refreshes", "Refreshes, by how they ended.", "ending", &ended)?;
        let stages = [
            ("store", took.store),
            ("model", took.model),
            ("encode", took.encode),
            ("graph", took.graph),
            ("checkpoint", took.checkpoint),
        ];
        self.seconds_by_stage("refresh", "What published refreshes have taken, by stage.", &stages)?;
        self.counter("unsaved", "Graphs that could not be recorded for a resume.", run.unsaved)?;

        self.gauge("data_set_samples", "Samples of the data set.", Some(run.data_set_samples as f64))?;
        self.gauge("skipped_samples", "Samples that could not be encoded.", Some(run.skipped as f64))?;
        let help = "Pairs that pairs.within leaves out.";
        self.gauge("inconsistent_pairs", help, Some(run.inconsistent as f64))?;
        self.gauge("skipped_rows", "Rows in damaged parts.", Some(run.source.skipped_rows as f64))?;
        self.gauge("bad_texts", "Texts that are no UTF-8.", Some(run.source.bad_texts as f64))?;
        let help = "Requests to object stores that failed and were sent again.";
        self.counter("failed_requests", help, run.source.failed_requests as u64)?;
        let help = "Embeddings that were taken from the cache.";
        self.counter("embeddings_reused", help, run.embeddings_reused)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            metric.encode_family(&[(label, *of)])?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }

    /// Leaves out what is not known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| metric.encode_gauge(&value))
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, Option<f64>)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            if let Some(value) = value {
                metric.encode_family(&[(label, *of)])?.encode_gauge(value)?;
            }
        }
        Ok(())
    }

    fn seconds(&mut self, name: &str, help: &str, kind: MetricType, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        match kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => metric.encode_gauge(&value),
        }
    }

    fn seconds_by_stage(&mut self, name: &str, help: &str, values: &[(&str, f64)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (stage, value) in values {
            metric.encode_family(&[("stage", *stage)])?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }
}
