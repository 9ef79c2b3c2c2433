//! A report as one page, without a script but the one that draws molecules.

use maud::{Markup, PreEscaped, html};

use super::content::Content;
use super::{Course, Settings};
use crate::cli::page::{COLORS, Plots, number, page as page_of, percent};
use crate::cli::progress::thousands;
use crate::config::PipelineConfig;
use crate::report::{Audit, GraphFacts, Report};

/// The page.
pub(super) fn page(report: &Report, course: &Course, settings: &Settings, config: &PipelineConfig) -> String {
    let content = Content::new(report, config);
    let mut plots = Plots::default();
    let plots = &mut plots;
    let body = html! {
        (header(report, settings))
        (hardness(report, plots))
        (audit(report, &content, plots))
        (graph(&report.graph, report, &content, plots))
        (drift(report))
        (examples(report, &content, plots))
        (cost(report, course))
        (used(settings))
        @if content.has_molecules() {
            script { (PreEscaped(MOLECULES)) }
            script { (PreEscaped(DRAW_MOLECULES)) }
        }
    };
    page_of(&format!("Mini-batches of {}", settings.name), &body)
}

fn header(report: &Report, settings: &Settings) -> Markup {
    let data = &report.data;
    let run = &report.hardness[0];
    let uniform = report.hardness.iter().find(|hardness| hardness.sampler == "uniform");
    html! {
        h1 { "Mini-batches of " (settings.name) }
        div.soft.uri { (data.uri) }
        div.numbers {
            (number(&thousands(data.samples as u64), "samples"))
            (number(&thousands(report.audit.mini_batches as u64), &format!("mini-batches of {}", data.batch_size)))
            (number(&format!("{:.3}", run.mean_similarity), "mean in-batch similarity"))
            @if let Some(uniform) = uniform {
                (number(&format!("{:.3}", uniform.mean_similarity), "of uniform mini-batches"))
            }
            (number(&percent(run.likely_false), "of pairs likely false negatives"))
            @if let Some(same) = run.same_label { (number(&percent(same), "of pairs share their label")) }
        }
        @if data.skipped > 0 {
            p.warning { (thousands(data.skipped as u64)) " samples could not be encoded, and are in no mini-batch." }
        }
        @if data.inconsistent > 0 {
            p { (thousands(data.inconsistent as u64)) " pairs are left out of epochs by pairs.within." }
        }
        @if data.in_corpus > 0 {
            p { (thousands(data.in_corpus as u64)) " samples are of pairs.corpus: explicit negatives, and in no epoch." }
        }
    }
}

fn hardness(report: &Report, plots: &mut Plots) -> Markup {
    let has_labels = report.hardness.iter().any(|hardness| hardness.same_label.is_some());
    html! {
        h2 { "How hard the mini-batches are" }
        p {
            "Hard mini-batches hold samples that are similar to each other. Those of this run are beside what nearest \
             first and a plain shuffle make of the same embeddings and the same graph."
        }
        p.legend {
            @for (of, color) in report.hardness.iter().zip(COLORS) {
                span style=(format!("color: {color}")) { "■ " } (of.sampler.replace('_', " ")) " "
            }
        }
        div.scroll.plot { (plots.distributions(&report.hardness)) }
        div.scroll.plot { (plots.course(&report.hardness)) }
        div.scroll { table {
            tr {
                th { "sampler" }
                th.number { "in-batch similarity" }
                th.number { "half of the pairs above" }
                th.number { "one in twenty above" }
                th.number { "likely false" }
                th.number { "near copies" }
                @if has_labels { th.number { "same label" } }
            }
            @for of in &report.hardness {
                tr {
                    td { (of.sampler.replace('_', " ")) }
                    td.number { (format!("{:.3}", of.mean_similarity)) }
                    td.number { (percentile(&of.pairs.percentiles, 2)) }
                    td.number { (percentile(&of.pairs.percentiles, 4)) }
                    td.number { (percent(of.likely_false)) }
                    td.number { (percent(of.near_copies)) }
                    @if has_labels { td.number { (of.same_label.map_or_else(String::new, percent)) } }
                }
            }
        } }
        p.soft {
            "A pair counts as likely false if it is more similar than " (report.estimate) ". That is an estimate: only \
             labels know. Near copies have a similarity of 0.999 or more."
        }
    }
}

fn audit(report: &Report, content: &Content<'_>, plots: &mut Plots) -> Markup {
    let Audit { pairs, likely_false, near_copies, refused, short, worst, .. } = &report.audit;
    html! {
        h2 { "Who is together" }
        p {
            "Of " (thousands(*pairs)) " pairs, " (thousands(*likely_false)) " are likely false negatives, and "
            (thousands(*near_copies)) " near copies. Guards refused " (thousands(*refused)) " samples, and left "
            (thousands(*short)) " places empty."
        }
        h3 { "The most similar pairs" }
        p.soft { "If these are no negatives of each other, a guard can keep them apart: [guards] in the settings." }
        @for pair in worst.iter().take(SHOWN_PAIRS) {
            div.pair {
                b { (format!("{:.3}", pair.similarity)) }
                (content.sample(plots, pair.a))
                (content.sample(plots, pair.b))
            }
        }
    }
}

fn graph(graph: &GraphFacts, report: &Report, content: &Content<'_>, plots: &mut Plots) -> Markup {
    let statistics = &graph.statistics;
    let rows = [
        ("candidates of each sample (M)", thousands(report.data.candidates as u64)),
        ("neighbors of each sample (K)", thousands(report.data.neighbors as u64)),
        ("exact nearest neighbors that it has", percent(graph.recall)),
        ("mean similarity of an edge", format!("{:.3}", statistics.mean_similarity)),
        ("edges that lead both ways", percent(statistics.reciprocity)),
        ("edges that lead to the top 1 % of hubs", percent(statistics.hub_share)),
        ("largest in-degree", thousands(statistics.in_degree_max as u64)),
        ("samples that are nobody's neighbor", thousands(statistics.without_in_edges as u64)),
        ("components", thousands(statistics.components as u64)),
        ("samples in the largest one", thousands(statistics.largest_component as u64)),
    ];
    html! {
        h2 { "The graph" }
        div.scroll { table { @for (what, value) in &rows { tr { td { (what) } td.number { (value) } } } } }
        h3 { "In-degrees" }
        div.scroll.plot { (plots.in_degrees(graph)) }
        h3 { "The greatest hubs" }
        div.samples {
            @for hub in &graph.hubs {
                div {
                    (content.sample(plots, hub.id))
                    span.soft { "neighbor of " (thousands(u64::from(hub.in_degree))) }
                }
            }
        }
    }
}

fn drift(report: &Report) -> Markup {
    html! {
        h2 { "Drift" }
        @if report.drift.is_empty() {
            p { "The run had one graph." }
        } @else {
            div.scroll { table {
                tr { th.number { "from mini-batch" } th.number { "graph" } th.number { "model" }
                     th.number { "1 − cosine" } th.number { "nearest that stayed" } }
                @for of in &report.drift {
                    tr {
                        td.number { (thousands(of.step)) }
                        td.number { (of.graph_version) }
                        td.number { (of.model_version) }
                        td.number { (format!("{:.4}", of.cosine_shift)) }
                        td.number { (percent(of.overlap)) }
                    }
                }
            } }
            p.soft { "Between a snapshot and the one before, on at most 512 samples." }
        }
    }
}

fn examples(report: &Report, content: &Content<'_>, plots: &mut Plots) -> Markup {
    html! {
        h2 { "Mini-batches" }
        @for example in &report.examples {
            h3 {
                "The " (example.why) " one"
                span.soft { " · number " (example.step) ", similarity " (format!("{:.3}", example.similarity)) }
            }
            div.samples { @for &id in &example.ids { (content.sample(plots, id)) } }
        }
    }
}

fn cost(report: &Report, course: &Course) -> Markup {
    let seconds = |value: f64| format!("{value:.2} s");
    html! {
        h2 { "Time and memory" }
        div.scroll { table {
            @for stage in &course.stages { tr { td { (stage.name) } td.number { (seconds(stage.seconds)) } } }
            tr { td { "mini-batches" } td.number { (seconds(course.streaming_seconds)) } }
            tr { td { "samples a second" } td.number { (thousands(course.samples_per_second as u64)) } }
            tr { td { "wait for a mini-batch, median" } td.number { (format!("{:.2} ms", course.wait_ms_median)) } }
            tr { td { "the longest wait" } td.number { (format!("{:.2} ms", course.wait_ms_max)) } }
            tr { td { "embeddings" } td.number { (megabytes(report.memory.embeddings)) } }
            tr { td { "graph" } td.number { (megabytes(report.memory.graph)) } }
            @if let Some(peak) = course.peak_memory {
                tr { td { "peak memory of the process" } td.number { (megabytes(peak)) } }
            }
        } }
    }
}

fn used(settings: &Settings) -> Markup {
    html! {
        h2 { "Settings" }
        pre { (settings.file) }
        @if !settings.overrides.is_empty() { p { "with " code { (settings.overrides.join(" ")) } } }
        p.soft { "Made by prosampler " (env!("CARGO_PKG_VERSION")) "." }
    }
}

fn percentile(percentiles: &[f32], at: usize) -> String {
    percentiles.get(at).map_or_else(String::new, |value| format!("{value:.3}"))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// SmilesDrawer, which draws molecules; its licence is at its top.
const MOLECULES: &str = include_str!("smiles-drawer.min.js");
const DRAW_MOLECULES: &str = include_str!("molecules.js");

/// How many of the most similar pairs are shown.
const SHOWN_PAIRS: usize = 12;
