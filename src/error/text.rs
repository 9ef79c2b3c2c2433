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

/// A part of a message that may be missing, with what sets it off.
pub(super) fn after(separator: &str, part: &Option<String>) -> String {
    part.as_ref().map(|part| format!("{separator}{part}")).unwrap_or_default()
}

pub(super) fn kept(filter: &Option<String>) -> String {
    filter.as_ref().map(|filter| format!(" for which `{filter}` holds")).unwrap_or_default()
}

/// Where in a text something is expected.
pub(super) fn behind(understood: &str) -> String {
    if understood.is_empty() { "at its start".into() } else { format!("after `{understood}`") }
}

pub(super) fn bullets(lines: &[String]) -> String {
    lines.iter().map(|l| format!("  - {l}")).collect::<Vec<_>>().join("\n")
}
