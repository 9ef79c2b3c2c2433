//! A pipeline file with the recommended settings in it.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table};

use crate::tune::{Tried, Tuning};
use crate::{Error, Result};

/// The pipeline file with other settings, each with a comment.
pub(super) fn rewritten(pipeline: &Path, tuning: &Tuning, tried: &Tried) -> Result<String> {
    let failed = |cause| Error::Io { action: "read", path: pipeline.to_owned(), cause };
    let text = std::fs::read_to_string(pipeline).map_err(failed)?;
    let not_toml =
        |e: toml_edit::TomlError| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()));
    let mut document: DocumentMut = text.parse().map_err(not_toml)?;
    let because = format!(
        "# From `prosampler tune`: in-batch similarity {:.3} instead of {:.3}, {:.1} % likely false negatives.\n",
        tried.hardness.mean_similarity,
        tuning.tried[0].hardness.mean_similarity,
        100.0 * tried.hardness.likely_false
    );
    for (number, (key, value)) in tried.changes.iter().enumerate() {
        let Some((section, key)) = key.split_once('.') else { continue };
        let table = document.entry(section).or_insert(Item::Table(Table::new()));
        let has_room = number == 0 && !table.is_inline_table();
        let Some(table) = table.as_table_like_mut() else { continue };
        let value: toml_edit::Value = value.parse().map_err(not_toml)?;
        // A key that is there keeps its comments.
        match table.get_mut(key) {
            Some(item) => *item = Item::Value(value),
            None => drop(table.insert(key, Item::Value(value))),
        }
        if let Some(mut key) = table.key_mut(key).filter(|_| has_room) {
            let before = key.leaf_decor().prefix().and_then(|text| text.as_str()).unwrap_or("").to_owned();
            key.leaf_decor_mut().set_prefix(format!("{before}{because}"));
        }
    }
    Ok(document.to_string())
}
