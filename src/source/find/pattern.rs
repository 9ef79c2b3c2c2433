//! Matches shell patterns, component by component: `*`, `?`, `[…]`, and `**` for folders at any depth.

/// A part of a pattern, between two slashes.
#[derive(Clone, Debug)]
pub(super) enum Component {
    /// `**`: any number of folders, none of them hidden.
    Folders,
    /// A name without wildcards.
    Name(String),
    /// A pattern with wildcards; `prefix` is what stands before the first of them.
    Wild { pattern: glob::Pattern, prefix: String },
}

/// The bytes of a pattern, each with whether it is literal: a literal `*` is no wildcard.
pub(super) type Characters = Vec<(u8, bool)>;

impl Component {
    /// Parses a component. The error is the reason why it is not a pattern.
    pub fn new(characters: &[(u8, bool)]) -> Result<Self, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "a pattern must be UTF-8".to_owned());
        if characters == [(b'*', false), (b'*', false)] {
            return Ok(Self::Folders);
        }
        let prefix = characters.iter().take_while(|character| !is_wildcard(character));
        let prefix = text(prefix.map(|(byte, _)| *byte).collect())?;
        if prefix.len() == characters.len() {
            return Ok(Self::Name(prefix));
        }
        let mut pattern = Vec::new();
        for &(byte, literal) in characters {
            if literal && b"*?[]".contains(&byte) {
                pattern.extend([b'[', byte, b']']);
            } else {
                pattern.push(byte);
            }
        }
        let pattern = glob::Pattern::new(&text(pattern)?).map_err(|e| format!("not a shell pattern: {e}"))?;
        Ok(Self::Wild { pattern, prefix })
    }

    /// Whether the component matches a name. Wildcards do not match hidden names, except in `.*` and `_*`.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Self::Folders => !is_hidden(name),
            Self::Name(text) => text == name,
            Self::Wild { pattern, prefix } => (!is_hidden(name) || is_hidden(prefix)) && pattern.matches(name),
        }
    }

    /// Whether all names that the component matches prefix with `text`.
    pub fn begins_with(&self, text: &str) -> bool {
        match self {
            Self::Folders => false,
            Self::Name(prefix) | Self::Wild { prefix, .. } => prefix.starts_with(text),
        }
    }
}

/// Whether a pattern matches these names, from the outermost folder to the file.
#[cfg(feature = "cloud")]
pub(super) fn matches(names: &[&str], pattern: &[Component]) -> bool {
    match (pattern, names) {
        ([], []) => true,
        ([Component::Folders, rest @ ..], _) if matches(names, rest) => true,
        ([Component::Folders, ..], [folder, below @ .., _]) => {
            !is_hidden(folder) && matches(&names[names.len() - below.len() - 1..], pattern)
        }
        ([first, rest @ ..], [name, below @ ..]) => first.admits(name) && matches(below, rest),
        _ => false,
    }
}

/// Resolves backslashes: the character after one is literal.
pub(super) fn unescaped(text: impl IntoIterator<Item = (u8, bool)>) -> Characters {
    let mut characters = Characters::new();
    let mut text = text.into_iter().peekable();
    while let Some((byte, literal)) = text.next() {
        match text.next_if(|_| byte == b'\\' && !literal && cfg!(unix)) {
            Some((escaped, _)) => characters.push((escaped, true)),
            None => characters.push((byte, literal)),
        }
    }
    characters
}

pub(super) fn is_wildcard(&(byte, literal): &(u8, bool)) -> bool {
    !literal && b"*?[".contains(&byte)
}

/// Whether tools hide a file of this name or use it themselves: `._part.parquet`, `_metadata`, `_temporary`.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(text: &str) -> Component {
        Component::new(&unescaped(text.bytes().map(|byte| (byte, false)))).unwrap()
    }

    #[test]
    fn wildcards_do_not_mean_hidden_names() {
        for (pattern, name, meant) in [
            ("*.parquet", "a.parquet", true),
            ("*.parquet", "._a.parquet", false),
            ("*", "_metadata", false),
            ("_*", "_metadata", true),
            ("._*", "._a.parquet", true),
            ("?a", "_a", false),
            ("[_]a", "_a", false),
            (r"\*a", "*a", true),
            (r"\*a", "xa", false),
            (r"a\[1\]*", "a[1].parquet", true),
            (r"a\[1\]*", "a1.parquet", false),
            ("a[1]*", "a1.parquet", true),
            ("**", "year=2020", true),
            ("**", ".git", false),
        ] {
            assert_eq!(component(pattern).admits(name), meant, "{pattern} and {name}");
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn folders_at_any_depth_may_be_meant() {
        let pattern = ["data", "**", "*.parquet"].map(component);
        for (names, meant) in [
            ("data/a.parquet", true),
            ("data/x/y/a.parquet", true),
            ("data/_temporary/a.parquet", false),
            ("data/x/.git/a.parquet", false),
            ("data/x/y/a.csv", false),
            ("other/a.parquet", false),
        ] {
            assert_eq!(matches(&names.split('/').collect::<Vec<_>>(), &pattern), meant, "{names}");
        }
    }
}
