//! TOML to settings, with every fault told at once.
//!
//! 1. The file, and then each override, is laid over the settings before it, table by table. serde would stop at the
//!    first error, so each setting is deserialized alone first, and only laid if that works; the others are faults.
//! 2. What has been laid is deserialized as a whole.
//! 3. Paths from the file become relative to its folder, and the values are checked.

use std::collections::HashMap;
use std::mem;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::PipelineConfig;
use super::shape::{self, Shape};
use crate::error::{Fault, Faults, quoted};

/// Settings from the text of a file, relative to the folder `base`, and `KEY=VALUE` overrides.
pub(super) fn read(
    text: &str,
    origin: &str,
    base: Option<&Path>,
    overrides: &[String],
) -> Result<PipelineConfig, Faults> {
    let overrides: Vec<_> = overrides.iter().map(|text| as_toml(text)).collect();
    let mut reader = Reader::default();
    reader.lay_file(text);
    reader.lay_overrides(&overrides);
    let config = reader.config(base);

    let Reader { lines, refused, mut faults, .. } = reader;
    let mut found = config.faults();
    found.retain(|fault| !refused.contains(&fault.key));
    for fault in &mut found {
        fault.line = lines.get(&fault.key).copied().flatten();
    }
    faults.extend(found);
    Faults::none_or(origin, faults)?;
    Ok(config)
}

/// An override as a line of TOML. A bare word on the command line is a string: `walk.sampler=uniform`.
fn as_toml(text: &str) -> Result<String, Fault> {
    let Some((key, value)) = text.split_once('=') else {
        let message = format!("`{text}` is no setting; write KEY=VALUE, for example graph.neighbors=50");
        return Err(Fault::new("", message));
    };
    let (key, value) = (key.trim(), value.trim());
    match DeValue::parse(value) {
        Ok(_) => Ok(format!("{key} = {value}")),
        Err(_) => Ok(format!("{key} = {value:?}")),
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader<'i> {
    /// The settings that were given, of the file and the overrides together: only those that can be deserialized.
    settings: DeTable<'i>,
    /// The settings that were given, with their lines in the file; without a line if an override gave them last.
    lines: HashMap<String, Option<usize>>,
    /// The settings whose value was refused: their checks would only confuse.
    refused: Vec<String>,
    faults: Vec<Fault>,
}

/// A text of TOML that is being read.
#[derive(Clone, Copy)]
struct Text<'i> {
    text: &'i str,
    /// Overrides have no lines.
    has_lines: bool,
}

impl Text<'_> {
    fn line(self, offset: usize) -> Option<usize> {
        self.has_lines.then(|| self.text[..offset.min(self.text.len())].matches('\n').count() + 1)
    }
}

impl<'i> Reader<'i> {
    fn lay_file(&mut self, text: &'i str) {
        self.lay(Text { text, has_lines: true });
    }

    fn lay_overrides(&mut self, overrides: &'i [Result<String, Fault>]) {
        for line in overrides {
            match line {
                Ok(text) => self.lay(Text { text, has_lines: false }),
                Err(fault) => self.faults.push(fault.clone()),
            }
        }
    }

    /// The settings that were given, over the defaults.
    fn config(&mut self, base: Option<&Path>) -> PipelineConfig {
        let settings = Spanned::new(0..0, DeValue::Table(mem::take(&mut self.settings)));
        let mut config = PipelineConfig::deserialize(ValueDeserializer::from(settings)).unwrap_or_else(|error| {
            // Each setting can be deserialized alone, so they all can.
            self.faults.push(Fault::new("", error.message()));
            PipelineConfig::default()
        });
        if let Some(base) = base {
            config.make_relative_to(base, |key| self.lines.get(key).is_some_and(Option::is_some));
        }
        config.expand_home();
        config
    }

    /// Lays what `text` says over the settings.
    fn lay(&mut self, text: Text<'i>) {
        let (root, errors) = DeTable::parse_recoverable(text.text);
        for error in errors {
            let line = error.span().and_then(|span| text.line(span.start));
            self.fault(String::new(), line, &format!("not TOML: {}", error.message()));
        }
        let Shape::Table(known) = Shape::at(&[]) else { return };
        let under = mem::take(&mut self.settings);
        self.settings = self.laid(under, root.get_ref(), known, &[], text);
    }

    /// The settings of `under` at `path`, with those of `over`, of which there are the `known` ones, over them.
    fn laid(
        &mut self,
        mut under: DeTable<'i>,
        over: &DeTable<'i>,
        known: &[&str],
        path: &[String],
        text: Text<'i>,
    ) -> DeTable<'i> {
        for (name, value) in over {
            let path = [path, &[name.get_ref().to_string()]].concat();
            let key = key(&path);
            let line = text.line(name.span().start);
            if !known.contains(&name.get_ref().as_ref()) {
                self.unknown(key, name.get_ref(), line, known);
                continue;
            }
            self.lines.insert(key.clone(), line);
            let laid = match (Shape::at(&path), value.get_ref()) {
                (Shape::Table(known), DeValue::Table(over)) => {
                    let under = match under.remove(name).map(Spanned::into_inner) {
                        Some(DeValue::Table(under)) => under,
                        _ => DeTable::new(),
                    };
                    DeValue::Table(self.laid(under, over, known, &path, text))
                }
                (Shape::Tables(known), DeValue::Array(items)) => {
                    // A list replaces the one before it, and no line of that one counts any more.
                    self.lines.retain(|other, _| !other.starts_with(&format!("{key}[")));
                    let items = items.iter().enumerate();
                    DeValue::Array(items.map(|(place, item)| self.item(place, item, known, &path, text)).collect())
                }
                (Shape::Table(_), other) => {
                    let message = format!("is no section but {}; write [{key}]", article(other.type_str()));
                    self.fault(key, line, &message);
                    continue;
                }
                (Shape::Tables(_), other) => {
                    let message = format!("is no list but {}; write [[{key}]]", article(other.type_str()));
                    self.fault(key, line, &message);
                    continue;
                }
                (Shape::Value, value_given) => match shape::check(&path, value) {
                    Ok(()) => value_given.clone(),
                    Err(error) => {
                        self.refused.push(key.clone());
                        self.fault(key, line, &in_words(error.message()));
                        continue;
                    }
                },
            };
            under.insert(name.clone(), Spanned::new(value.span(), laid));
        }
        under
    }

    /// A table of a list of tables, laid over the defaults. One that is at fault keeps its place in the list.
    fn item(
        &mut self,
        place: usize,
        item: &Spanned<DeValue<'i>>,
        known: &[&str],
        list: &[String],
        text: Text<'i>,
    ) -> Spanned<DeValue<'i>> {
        let path = [list, &[format!("[{place}]")]].concat();
        let table = match item.get_ref() {
            DeValue::Table(over) => self.laid(DeTable::new(), over, known, &path, text),
            other => {
                let key = key(&path);
                let message = format!("is no section but {}; write [{key}]", article(other.type_str()));
                self.fault(key, text.line(item.span().start), &message);
                DeTable::new()
            }
        };
        Spanned::new(item.span(), DeValue::Table(table))
    }

    fn unknown(&mut self, key: String, name: &str, line: Option<usize>, known: &[&str]) {
        let nearest = known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(k, name), *k))
            .filter(|(distance, k)| *distance <= 1 + k.len() / 3)
            .min();
        let renamed = RENAMED.iter().find(|(old, _)| *old == key);
        let message = match (renamed, nearest) {
            (Some((_, new)), _) => format!("is called `{new}` now"),
            (None, Some((_, nearest))) => format!("unknown key; did you mean `{nearest}`?"),
            (None, None) => format!("unknown key; there are {}", quoted(known)),
        };
        self.fault(key, line, &message);
    }

    fn fault(&mut self, key: String, line: Option<usize>, message: &str) {
        self.faults.push(Fault { key, line, message: message.trim_end().replace('\n', "; ") });
    }
}

/// Settings that had another name before: that one, and today's.
const RENAMED: &[(&str, &str)] = &[
    ("refresh.swap_at_step", "refresh.swap_after_steps"),
    ("refresh.budget", "refresh.cpu_share"),
    ("refresh.overtaken", "refresh.on_newer_model"),
    ("refresh.skip_below", "refresh.min_drift"),
];

/// A path as users write it, such as `encode.views[0].model`.
fn key(path: &[String]) -> String {
    path.join(".").replace(".[", "[")
}

/// A deserializer's message, whose types are Rust's, for those who write TOML.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let expected = match expected.trim_end() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0",
        "f32" | "f64" => "a number",
        other => other,
    };
    format!("{found}expected {expected}")
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a file they are relative to its folder, in an override to the current one; `~` is the home folder in both.
    #[test]
    fn paths_are_found_from_the_file_and_from_home() {
        let text = "
            encode.model = 'a.onnx'
            encode.tokenizer = '~/t.json'
            encode.runtime = '/r.so'
            encode.cache_dir = 'e'
            encode.views = [{ model = 'v.onnx', tokenizer = 'u.json' }, { model = '~' }]
            encode.cuda = { tensorrt_cache = 'trt' }
            store.cache_dir = 'c'
            checkpoint.dir = '~a/b'";
        let read = |overrides: &[&str]| {
            let overrides: Vec<_> = overrides.iter().map(|text| as_toml(text)).collect();
            let mut reader = Reader::default();
            reader.lay_file(text);
            reader.lay_overrides(&overrides);
            let mut config = reader.config(Some(Path::new("/base")));
            assert!(reader.faults.is_empty(), "{:?}", reader.faults);
            let mut found: Vec<_> = config.paths().map(|(_, path)| path.display().to_string()).collect();
            found.sort();
            found
        };
        let home = std::env::home_dir().unwrap().display().to_string();
        let expected = |cache: &str, view: &str| {
            let mut all = [
                "/base/a.onnx",
                &format!("{home}/t.json"),
                "/r.so",
                "/base/e",
                view,
                "/base/u.json",
                &format!("{home}/"),
                "/base/trt",
                cache,
                "/base/~a/b",
            ]
            .map(ToOwned::to_owned);
            all.sort();
            all
        };
        assert_eq!(read(&[]), expected("/base/c", "/base/v.onnx"));
        assert_eq!(read(&["store.cache_dir = 'd'"]), expected("d", "/base/v.onnx"));
        // A list of an override replaces that of the file.
        let mut views = expected("/base/c", "w.onnx").to_vec();
        views.retain(|path| path != "/base/u.json" && *path != format!("{home}/"));
        assert_eq!(read(&["encode.views = [{ model = 'w.onnx' }]"]), views);
    }

    #[test]
    fn tables_are_merged_and_values_are_replaced() {
        let text = "
            encode.cuda = { devices = [1, 2], memory_limit = 100_000_000 }
            encode.image.mean = [0.5]
            source.options = { region = 'x', timeout = 5 }
            walk.restart_probability = { from = 0.2, to = 0.1, epochs = 2 }";
        let overrides =
            ["encode.cuda.tf32=true", "source.options={ region = 'y' }", "walk.restart_probability=0.3"].map(as_toml);
        let mut reader = Reader::default();
        reader.lay_file(text);
        reader.lay_overrides(&overrides);
        let config = reader.config(None);
        assert!(reader.faults.is_empty(), "{:?}", reader.faults);
        let cuda = config.encode.cuda.unwrap();
        assert_eq!((cuda.devices, cuda.memory_limit, cuda.tf32), (vec![1, 2], Some(100_000_000), true));
        assert_eq!(config.encode.image.unwrap().mean, [0.5]);
        assert_eq!(config.source.options, [("region".to_owned(), "y".to_owned())].into());
        assert_eq!(config.walk.restart_probability, Some(0.3.into()));
    }

    #[test]
    fn all_faults_of_inline_tables_are_told_with_their_lines() {
        let text = "encode.cuda = { tf32 = 1, devises = [0],\n memory_limit = 'much' }\n\
            encode.views = [{ prefx = 'a' },\n 5,\n { max_tokens = 'b' }]";
        let mut reader = Reader::default();
        reader.lay_file(text);
        reader.faults.sort_by_key(|fault| fault.line);
        let mut found: Vec<_> = reader.faults.iter().map(|f| (f.line.unwrap(), f.key.as_str())).collect();
        found.sort_unstable();
        let expected = [
            (1, "encode.cuda.devises"),
            (1, "encode.cuda.tf32"),
            (2, "encode.cuda.memory_limit"),
            (3, "encode.views[0].prefx"),
            (4, "encode.views[1]"),
            (5, "encode.views[2].max_tokens"),
        ];
        assert_eq!(found, expected);
        let devises = reader.faults.iter().find(|fault| fault.key == "encode.cuda.devises").unwrap();
        assert_eq!(devises.message, "unknown key; did you mean `devices`?");
        assert_eq!(reader.config(None).encode.views.len(), 3);
    }

    #[test]
    fn a_setting_that_was_renamed_says_so() {
        for (old, new) in RENAMED {
            let path: Vec<_> = new.split('.').map(ToOwned::to_owned).collect();
            let Shape::Table(known) = Shape::at(&path[..1]) else { panic!("{new}") };
            assert!(known.contains(&path[1].as_str()), "{new}");
            let text = format!("{old} = 1");
            let mut reader = Reader::default();
            reader.lay_file(&text);
            let found: Vec<_> = reader.faults.iter().map(|fault| (fault.key.as_str(), &fault.message)).collect();
            assert_eq!(found, [(*old, &format!("is called `{new}` now"))]);
        }
    }
}
