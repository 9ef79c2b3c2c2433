//! What was tried, as a page: how hard each setting is against how many false negatives it likely has.

use std::path::Path;

use maud::{Markup, html};

use super::{describe, verdict};
use crate::cli::page::{Plots, Point, number, page as page_of, percent};
use crate::cli::progress::thousands;
use crate::report::Hardness;
use crate::tune::Tuning;

/// The page. `max_false` is the largest share of likely false negatives that a recommended setting may have.
pub(super) fn page(pipeline: &Path, tuning: &Tuning, max_false: f64) -> String {
    let name = pipeline.file_name().unwrap_or(pipeline.as_os_str()).to_string_lossy();
    let body = html! {
        h1 { "How hard mini-batches of " (name) " should be" }
        (numbers(tuning))
        (advice(tuning, max_false))
        (picture(tuning, max_false))
        (table(tuning, max_false))
        p.soft {
            "A pair counts as likely false if it is more similar than " (tuning.estimate) ". That is an estimate: only \
             labels know."
            @if let Some(correlation) = tuning.rank_correlation {
                " Over these settings its rank correlation with the pairs of the same label is "
                (format!("{correlation:.2}")) "."
            }
        }
        p.soft { "Made by prosampler " (env!("CARGO_PKG_VERSION")) "." }
    };
    page_of(&format!("Settings for {name}"), &body)
}

fn numbers(tuning: &Tuning) -> Markup {
    let similarity = |of: &Hardness| format!("{:.3}", of.mean_similarity);
    html! {
        div.numbers {
            (number(&format!("{} of {}", thousands(tuning.samples as u64), thousands(tuning.total as u64)), "samples"))
            (number(&similarity(&tuning.uniform), "in-batch similarity of a plain shuffle"))
            (number(&similarity(&tuning.tried[0].hardness), "of the present settings"))
            @if let Some(index) = tuning.recommended {
                (number(&similarity(&tuning.tried[index].hardness), "of the recommended ones"))
            }
        }
    }
}

fn advice(tuning: &Tuning, max_false: f64) -> Markup {
    let labels = if tuning.uniform.same_label.is_some() { ", and not many pairs of one label" } else { "" };
    let bound = format!("{} likely false{labels}", percent(max_false));
    html! {
        @match tuning.recommended {
            Some(0) => p { "The present settings are the hardest with at most " (bound) ": keep them." },
            Some(index) => {
                p { "The hardest with at most " (bound) ":" }
                pre { @for (key, value) in &tuning.tried[index].changes { (key) " = " (value) "\n" } }
            },
            None => p.warning { "None of the settings has at most " (bound) "." },
        }
    }
}

fn picture(tuning: &Tuning, max_false: f64) -> Markup {
    let place = |of: &Hardness| (of.mean_similarity, 100.0 * of.likely_false);
    let point = |of: &Hardness, label, is_eligible: bool| {
        let (x, y) = place(of);
        Point { x, y, label, is_refused: !is_eligible }
    };
    let label = |index: usize| match (index, tuning.recommended) {
        (0, Some(0)) => "present, recommended",
        (0, _) => "present",
        (index, Some(recommended)) if index == recommended => "recommended",
        _ => "",
    };
    let tried = tuning.tried.iter().enumerate().map(|(index, of)| point(&of.hardness, label(index), of.is_eligible));
    let points: Vec<_> = tried.chain([point(&tuning.uniform, "plain shuffle", true)]).collect();
    let along: Vec<_> = tuning.frontier.iter().map(|&index| place(&tuning.tried[index].hardness)).collect();
    let axes = ("in-batch similarity", "likely false negatives, %");
    html! {
        h2 { "Harder, and at which price" }
        div.scroll.plot { (Plots::default().frontier(&points, &along, 100.0 * max_false, axes)) }
        p.soft {
            "Each point is a setting; those with too many false negatives are gray. On the line are those than which no \
             other is harder with as few likely false negatives"
            @if tuning.uniform.same_label.is_some() { ", all without too many pairs of one label" }
            ". The bound, --max-false, is a dashed line where it is within the picture."
        }
    }
}

fn table(tuning: &Tuning, max_false: f64) -> Markup {
    let has_labels = tuning.uniform.same_label.is_some();
    let mut order: Vec<usize> = (0..tuning.tried.len()).collect();
    let similarity = |index: usize| tuning.tried[index].hardness.mean_similarity;
    order.sort_by(|&a, &b| similarity(a).total_cmp(&similarity(b)));
    let row = |name: &str, of: &Hardness, mark: &str| {
        html! { tr {
            td { (name) }
            td.number { (format!("{:.3}", of.mean_similarity)) }
            td.number { (percent(of.likely_false)) }
            td.number { (percent(of.near_copies)) }
            @if has_labels { td.number { (of.same_label.map_or_else(String::new, percent)) } }
            td { (mark) }
        } }
    };
    html! {
        h2 { "All settings" }
        div.scroll { table {
            tr {
                th { "settings" }
                th.number { "in-batch similarity" }
                th.number { "likely false" }
                th.number { "near copies" }
                @if has_labels { th.number { "same label" } }
                th { "" }
            }
            (row("a plain shuffle", &tuning.uniform, ""))
            @for index in order {
                @let tried = &tuning.tried[index];
                (row(&describe(tried), &tried.hardness, verdict(tuning, index, max_false).trim_start_matches("<- ")))
            }
        } }
    }
}
