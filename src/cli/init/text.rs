//! A guess as a pipeline file.

use std::fmt::Write as _;
use std::path::Path;

use super::guess::{Embedded, Guess};

/// What a pipeline file is made of.
pub(super) struct Facts<'a> {
    pub name: &'a str,
    pub uri: &'a [String],
    pub rows: Option<usize>,
    pub model: Option<&'a Path>,
    pub guess: &'a Guess,
}

/// The file's text.
pub(super) fn text(facts: &Facts<'_>) -> String {
    let Facts { name, uri, rows, model, guess } = facts;
    let mut text = format!(
        "# Hard-negative mini-batches, as `prosampler init` guessed them from the data.\n\
         #   prosampler run {name}       streams them, and says how hard they are\n\
         #   prosampler tune {name}      finds how hard they should be\n\
         #   prosampler report {name}    shows who is in them\n\
         # Paths are relative to this file.\n\
         seed = 42\n\n[source]\n"
    );
    let quoted: Vec<String> = uri.iter().map(|uri| quote(uri)).collect();
    let uri = if let [uri] = &quoted[..] { uri.clone() } else { format!("[{}]", quoted.join(", ")) };
    let mut line = |line: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(&format!("uri = {uri}"));
    line("# The columns that the trainer gets; without this line all.");
    line("# columns = [\"id\"]");
    line("\n[store]\n# Rows and embeddings are kept here for later runs.\ncache_dir = \".cache\"");

    line("\n[encode]");
    line(&format!("# {}.", sentence(&guess.why)));
    if !matches!(guess.embedded, Embedded::Vector { .. }) {
        match model {
            Some(model) => line(&format!("model = {}", quote(&model.to_string_lossy()))),
            None => {
                line("# Export your encoder to ONNX and put it here; a tokenizer.json of texts belongs beside it.");
                line("model = \"model.onnx\"");
            }
        }
    }
    match &guess.embedded {
        Embedded::Pairs { .. } => {}
        Embedded::Text { column } | Embedded::Image { column } => line(&format!("column = {}", quote(column))),
        Embedded::Graph => line(
            "[encode.graph]\n# The columns of each graph; these names are the defaults.\n\
             node_features = \"node_features\"\nedge_sources = \"edge_sources\"\nedge_targets = \"edge_targets\"",
        ),
        Embedded::Tensor { inputs } => {
            let inputs: Vec<_> = inputs.iter().map(|input| format!("{} = {}", quote(input), quote(input))).collect();
            line(&format!("[encode.tensor]\ninputs = {{ {} }}", inputs.join(", ")));
        }
        Embedded::Vector { column, dimension } => {
            line("feature = \"vector\"");
            line(&format!("column = {}", quote(column)));
            if let Some(dimension) = dimension {
                line(&format!("dimension = {dimension}"));
            }
        }
    }
    match &guess.embedded {
        Embedded::Image { .. } => line(
            "\n[encode.image]\n# What the model was trained with; these are ImageNet's.\n\
             # mean = [0.485, 0.456, 0.406]\n# std = [0.229, 0.224, 0.225]",
        ),
        Embedded::Pairs { anchor, positive } => {
            line("\n[pairs]");
            line(&format!("anchor = {}\npositive = {}", quote(anchor), quote(positive)));
        }
        _ => {}
    }

    let batch_size = batch_size(*rows);
    line("\n[walk]\n# Samples of a mini-batch, of all ranks together.");
    line(&format!("batch_size = {batch_size}"));
    line("# An untrained model knows no neighbors: begin with an epoch of uniform mini-batches if yours is.");
    line("# warm_up = { epochs = 1 }");
    line("\n# How hard mini-batches are follows the data by default; `prosampler tune` compares settings.");
    line("# [graph]\n# candidates = \"1 %\"");
    if matches!(guess.embedded, Embedded::Pairs { .. }) {
        line("\n[guards]\n# A text that is nearly as similar as the own positive is likely no negative.");
        line("max_relative_to_positive = 0.95");
    } else {
        line("\n# [guards]\n# Near copies of a sample are not its negatives; rows with the same content never are.");
        line("# duplicate_similarity = 0.95");
    }
    if !matches!(guess.embedded, Embedded::Vector { .. }) {
        line("\n[refresh]\n# Embeds all samples anew when the trainer replaces the model.\nwatch_model = true");
    }
    if let Some((label, why)) = &guess.label {
        line(&format!("\n[report]\n# {}. It is not used for sampling.", sentence(why)));
        line(&format!("label = {}", quote(label)));
    }
    text
}

/// The largest power of two up to 128 of which eight mini-batches have all rows; 64 if it is not known how many.
fn batch_size(rows: Option<usize>) -> usize {
    let rows = rows.unwrap_or(512);
    (rows / 8).clamp(2, 128).checked_ilog2().map_or(2, |log| 1 << log)
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// A text as TOML.
fn quote(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
