//! Pages that need nothing else: no network, and their style and plots within them.

mod plots;

use std::io::Write;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub(super) use self::plots::{COLORS, Plots, Point};
use super::out::unfinished;
use crate::{Error, Result};

/// A page of this title.
pub(super) fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A number in large type, with what it is of.
pub(super) fn number(value: &str, what: &str) -> Markup {
    html! { div { b { (value) } span { (what) } } }
}

/// `0.0123` as `1.2 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Writes a file that is whole or not there.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |cause| Error::Io { action: "write", path: path.to_owned(), cause };
    let mut file = unfinished(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

const STYLE: &str = include_str!("../../assets/style.css");
