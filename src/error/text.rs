//! Parts of messages.

use super::Cause;

/// `` `a`, `b` and `c` ``
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<_> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The same, of which no more than a line is shown.
pub(super) fn some_quoted(names: &[String]) -> String {
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => {
            let shown: Vec<_> = names[..SHOWN].iter().map(|name| format!("`{name}`")).collect();
            format!("{} and {more} more", shown.join(", "))
        }
        _ => quoted(names),
    }
}

/// Names in a message, at most.
const SHOWN: usize = 30;

pub(super) fn said(cause: Option<&Cause>) -> String {
    cause.map(|c| format!(" (ONNX Runtime says: {c})")).unwrap_or_default()
}

pub(super) fn remedy_of(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

pub(super) fn kept(filter: &Option<String>) -> String {
    filter.as_ref().map(|filter| format!(" for which `{filter}` holds")).unwrap_or_default()
}

pub(super) fn place(after: &str) -> String {
    if after.is_empty() { "at its begin".into() } else { format!("after `{after}`") }
}

pub(super) fn bullets(lines: &[String]) -> String {
    lines.iter().map(|l| format!("  - {l}")).collect::<Vec<_>>().join("\n")
}
