//! Parses the uris of local files.

use std::path::{Path, PathBuf};

use super::pattern::{Characters, is_wildcard, unescaped};

/// A uri without a scheme or with `file:`, parsed.
#[derive(Debug)]
pub(super) struct Local {
    /// The uri as a path without wildcards.
    pub path: PathBuf,
    /// The uri as a pattern.
    pub characters: Characters,
}

impl Local {
    /// Parses paths, `~` for the home folder, and RFC 8089's `file:///percent%20encoded`.
    ///
    /// Encoded wildcards are literal. The error is the reason why it is not the uri of a file.
    pub fn parse(uri: &str) -> Result<Self, String> {
        if uri == "-" {
            let reason = "rows are read from several places at once, which standard input does not allow; write them \
                          to a file and name it (./- for a file of that name)";
            return Err(reason.to_owned());
        }
        let bytes: Characters = match after_scheme(uri) {
            Some(rest) => percent_decoded(path_of(rest)?)?,
            None => with_home(uri)?,
        };
        Ok(Self { path: path(bytes.iter().map(|(byte, _)| *byte)), characters: unescaped(bytes) })
    }

    /// Returns the path that the pattern names if it has no wildcards.
    pub fn unescaped(&self) -> PathBuf {
        path(self.characters.iter().map(|(byte, _)| *byte))
    }

    /// Splits the pattern into the folder before the first wildcard, and the components from there on.
    ///
    /// There are no components if there is no wildcard. The name of a folder may contain brackets: a component that
    /// exists as it is written is not a pattern.
    pub fn split(&self) -> (PathBuf, Vec<&[(u8, bool)]>) {
        let parts = self.characters.split(|(byte, _)| *byte == b'/').enumerate();
        let mut folder = PathBuf::new();
        let mut components = Vec::new();
        for (index, part) in parts.filter(|(index, part)| *index == 0 || !part.is_empty()) {
            let name = path(part.iter().map(|(byte, _)| *byte));
            let name = if index == 0 && part.is_empty() { PathBuf::from("/") } else { name };
            let literal = components.is_empty() && (!part.iter().any(is_wildcard) || folder.join(&name).exists());
            if literal { folder.push(name) } else { components.push(part) }
        }
        (folder, components)
    }
}

/// Whether a uri names files of this machine.
pub(super) fn is_local(uri: &str) -> bool {
    after_scheme(uri).is_some() || !uri.contains("://")
}

/// Makes a uri independent of the working directory.
pub(in crate::source) fn absolute(uri: &str) -> String {
    if !is_local(uri) {
        return uri.to_owned();
    }
    let path = Local::parse(uri).map_or_else(|_| uri.into(), |local| local.path);
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// Returns what follows `file:`, if the uri has that scheme.
fn after_scheme(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    (scheme.eq_ignore_ascii_case("file") && rest.starts_with('/')).then_some(rest)
}

/// Returns the path of a `file:` uri, without `//` and the name of this machine.
fn path_of(rest: &str) -> Result<&str, String> {
    let Some(rest) = rest.strip_prefix("//") else { return Ok(rest) };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return Ok(path);
    }
    Err(format!(
        "`{host}` stands where another computer is named; write file:///… for a path from the root, or {host}{path} \
         without file:// for one from the working directory"
    ))
}

/// Decodes a percent-encoded path.
fn percent_decoded(text: &str) -> Result<Characters, String> {
    let mut bytes = Characters::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push((*first, false));
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let byte = byte.ok_or("a `%` that two hexadecimal digits do not follow; write %25 for a percent sign")?;
        bytes.push((byte, true));
        rest = &after[2..];
    }
    Ok(bytes)
}

/// Reads a path, with `~` replaced by the home folder.
fn with_home(uri: &str) -> Result<Characters, String> {
    let rest = uri.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(rest) = rest else { return Ok(uri.bytes().map(|byte| (byte, false)).collect()) };
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.ok_or("`~` is the home folder, which is not known (HOME is not set); write the whole path")?;
    let home = home.as_os_str().as_encoded_bytes().iter().map(|byte| (*byte, true));
    Ok(home.chain(rest.bytes().map(|byte| (byte, false))).collect())
}

#[cfg(unix)]
fn path(bytes: impl Iterator<Item = u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes.collect()).into()
}

#[cfg(not(unix))]
fn path(bytes: impl Iterator<Item = u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned().into()
}

/// Says what to try instead of a path that does not exist.
pub(super) fn nearby(path: &Path) -> String {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return format!("the folder `{}` does not exist either", parent.display());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let nearest = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .map(|other| (strsim::damerau_levenshtein(&name, &other), other))
        .filter(|(distance, other)| *distance <= 1 + other.len() / 3)
        .min();
    match nearest {
        Some((_, other)) => format!("did you mean `{}`?", parent.join(other).display()),
        None => "check the path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_uris_are_paths() {
        for (uri, path) in [
            ("file:///a%20b/c.parquet", "/a b/c.parquet"),
            ("file://localhost/a/b", "/a/b"),
            ("FILE:///a", "/a"),
            ("file:/a", "/a"),
            ("file:///a%5B1%5D/%25", "/a[1]/%"),
            ("file:a", "file:a"),
            ("./~", "./~"),
            ("~x/y", "~x/y"),
            ("a b/%20", "a b/%20"),
        ] {
            assert_eq!(Local::parse(uri).unwrap().path, Path::new(path), "{uri}");
        }
        let home = std::env::home_dir().unwrap();
        assert_eq!(Local::parse("~/x.parquet").unwrap().path, home.join("x.parquet"));
        assert_eq!(absolute("file:///a%20b"), "/a b");
        assert_eq!(absolute("s3://a%20b/c"), "s3://a%20b/c");
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_reason() {
        for (uri, reason) in [
            ("file://host/a", "write file:///… for a path from the root, or host/a without file://"),
            ("file:///a%2", "write %25 for a percent sign"),
            ("file:///a%zz", "write %25 for a percent sign"),
            ("-", "standard input"),
        ] {
            let said = Local::parse(uri).unwrap_err();
            assert!(said.contains(reason), "{uri}: {said}");
        }
    }
}
