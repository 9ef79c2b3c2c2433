//! TOML to settings, keeping on after a fault.
//!
//! serde stops at the first error. So each key is first deserialised alone; the keys that pass are then deserialised
//! together, and the values are checked last.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Deserializer, Visitor, value::Error as AnyError};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::PipelineConfig;
use super::check::{Check, Checker};
use crate::error::{Fault, Faults, quoted};

/// Where a section came from, to name lines.
pub(super) struct Input<'a> {
    text: &'a str,
    /// Overrides have no lines.
    has_lines: bool,
}

impl Input<'_> {
    fn line(&self, offset: usize) -> Option<usize> {
        self.has_lines.then(|| self.text[..offset.min(self.text.len())].matches('\n').count() + 1)
    }
}

/// Keys that were given, and those whose value was refused (whose checks would only confuse).
#[derive(Default)]
pub(super) struct Seen {
    lines: HashMap<String, Option<usize>>,
    refused: Vec<String>,
}

pub(super) fn read(
    text: &str,
    origin: &str,
    base: Option<&Path>,
    overrides: &[String],
) -> Result<PipelineConfig, Faults> {
    let mut faults = Vec::new();
    let mut seen = Seen::default();
    let mut config = PipelineConfig::default();

    let input = Input { text, has_lines: true };
    merge(&mut config, &input, &mut seen, &mut faults);
    if let Some(base) = base {
        config.make_relative_to(base);
    }
    for text in overrides {
        merge_override(&mut config, text, &mut seen, &mut faults);
    }
    config.expand_home();

    let mut found = config.faults();
    found.retain(|f| !seen.refused.contains(&f.key));
    for fault in &mut found {
        fault.line = seen.lines.get(&fault.key).copied().flatten();
    }
    faults.extend(found);
    Faults::none_or(origin, faults)?;
    Ok(config)
}

fn merge_override(config: &mut PipelineConfig, text: &str, seen: &mut Seen, faults: &mut Vec<Fault>) {
    let Some((key, value)) = text.split_once('=') else {
        let message = format!("`{text}` is no setting; write KEY=VALUE, for example graph.neighbors=50");
        faults.push(Fault { key: String::new(), line: None, message });
        return;
    };
    // A bare word on the command line is a string: `walk.sampler=uniform`.
    let (key, value) = (key.trim(), value.trim());
    let quoted = DeValue::parse(value).is_err().then(|| format!("{key} = {value:?}"));
    let text = quoted.unwrap_or_else(|| format!("{key} = {value}"));
    merge(config, &Input { text: &text, has_lines: false }, seen, faults);
}

/// Lays what `input` says over `config`.
fn merge(config: &mut PipelineConfig, input: &Input<'_>, seen: &mut Seen, faults: &mut Vec<Fault>) {
    let (root, errors) = DeTable::parse_recoverable(input.text);
    for error in errors {
        let line = error.span().and_then(|span| input.line(span.start));
        faults.push(Fault { key: String::new(), line, message: format!("not TOML: {}", error.message()) });
    }
    let sections = fields::<PipelineConfig>();
    for (key, value) in root.get_ref() {
        let name = key.get_ref().as_ref();
        let line = input.line(key.span().start);
        let mut section = Section { name, line, value, input, seen, faults };
        match name {
            "seed" => section.scalar(&mut config.seed),
            "source" => section.table(&mut config.source),
            "store" => section.table(&mut config.store),
            "encode" => section.table(&mut config.encode),
            "pairs" => section.table(&mut config.pairs),
            "graph" => section.table(&mut config.graph),
            "walk" => section.table(&mut config.walk),
            "guards" => section.table(&mut config.guards),
            "refresh" => section.table(&mut config.refresh),
            "stream" => section.table(&mut config.stream),
            "checkpoint" => section.table(&mut config.checkpoint),
            "compute" => section.table(&mut config.compute),
            "report" => section.table(&mut config.report),
            _ => section.unknown(name.to_owned(), name, line, sections),
        }
    }
}

pub(super) struct Section<'a, 'i> {
    name: &'a str,
    line: Option<usize>,
    value: &'a Spanned<DeValue<'i>>,
    input: &'a Input<'i>,
    seen: &'a mut Seen,
    faults: &'a mut Vec<Fault>,
}

impl<'i> Section<'_, 'i> {
    fn scalar<T: DeserializeOwned>(&mut self, target: &mut T) {
        match T::deserialize(ValueDeserializer::from(self.value.clone())) {
            Ok(value) => *target = value,
            Err(e) => self.fault(self.name.to_owned(), self.line, &in_words(e.message())),
        }
    }

    pub(super) fn table<T: DeserializeOwned + Layer>(&mut self, target: &mut T) {
        let Some(table) = self.value.get_ref().as_table() else {
            let message =
                format!("is no section but {}; write [{}]", article(self.value.get_ref().type_str()), self.name);
            return self.fault(self.name.to_owned(), self.line, &message);
        };
        let known = fields::<T>();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{}.{name}", self.name);
            let line = self.input.line(key.span().start);
            if !known.contains(&name) {
                self.unknown(path, name, line, known);
                continue;
            }
            self.seen.lines.insert(path.clone(), line);
            let nested = Section { name: &path, line, value, input: self.input, seen: self.seen, faults: self.faults };
            if target.descend(name, nested) {
                continue;
            }
            let mut single = DeTable::new();
            single.insert(key.clone(), value.clone());
            let single = Spanned::new(self.value.span(), DeValue::Table(single));
            match T::deserialize(ValueDeserializer::from(single)) {
                Ok(parsed) => target.take(name, parsed),
                Err(e) => {
                    self.seen.refused.push(path.clone());
                    self.fault(path, line, &in_words(e.message()));
                }
            }
        }
    }

    /// A list of tables, each laid over its type's default.
    pub(super) fn tables<T: Default + DeserializeOwned + Layer>(&mut self, target: &mut Vec<T>) {
        let Some(tables) = self.value.get_ref().as_array() else {
            let message =
                format!("is no list but {}; write [[{}]]", article(self.value.get_ref().type_str()), self.name);
            return self.fault(self.name.to_owned(), self.line, &message);
        };
        target.clear();
        for (place, value) in tables.iter().enumerate() {
            let name = format!("{}[{place}]", self.name);
            let line = self.input.line(value.span().start);
            let mut one = T::default();
            Section { name: &name, line, value, input: self.input, seen: self.seen, faults: self.faults }
                .table(&mut one);
            target.push(one);
        }
    }

    fn unknown(&mut self, path: String, name: &str, line: Option<usize>, known: &[&str]) {
        let nearest = known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(k, name), *k))
            .filter(|(distance, k)| *distance <= 1 + k.len() / 3)
            .min();
        let renamed = RENAMED.iter().find(|(old, _)| *old == path);
        let message = match nearest {
            _ if let Some((_, new)) = renamed => format!("is called `{new}` now"),
            Some((_, nearest)) => format!("unknown key; did you mean `{nearest}`?"),
            None => format!("unknown key; there are {}", quoted(known)),
        };
        self.fault(path, line, &message);
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

/// Settings of one stage that can take a single field over from another value of their type.
pub(super) trait Layer {
    fn take(&mut self, field: &str, from: Self);

    /// Lays what `section` says over a field that is a table, or a list of tables, itself; false for any other.
    fn descend(&mut self, _field: &str, _section: Section<'_, '_>) -> bool {
        false
    }
}

/// Implements [`Layer`] by field name, so that an override changes one setting and leaves the others.
macro_rules! layer {
    ($type:ty: $($field:ident),+ $(; tables $($table:ident),*; lists $($list:ident),*)?) => {
        impl crate::config::read::Layer for $type {
            fn take(&mut self, field: &str, from: Self) {
                match field {
                    $(stringify!($field) => self.$field = from.$field,)+
                    _ => debug_assert!(false, "layer! lacks `{field}`"),
                }
            }

            $(fn descend(&mut self, field: &str, mut section: crate::config::read::Section<'_, '_>) -> bool {
                match field {
                    $(stringify!($table) => section.table(self.$table.get_or_insert_default()),)*
                    $(stringify!($list) => section.tables(&mut self.$list),)*
                    _ => return false,
                }
                true
            })?
        }
    };
}
pub(super) use layer;

impl PipelineConfig {
    /// What is wrong with the values, stage by stage.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        fn check<T: Check>(section: &T, faults: &mut Vec<Fault>) {
            section.check(&mut Checker { section: T::SECTION, faults });
        }
        let mut faults = Vec::new();
        check(&self.source, &mut faults);
        check(&self.store, &mut faults);
        check(&self.encode, &mut faults);
        check(&self.pairs, &mut faults);
        check(&self.graph, &mut faults);
        check(&self.walk, &mut faults);
        check(&self.guards, &mut faults);
        check(&self.refresh, &mut faults);
        check(&self.stream, &mut faults);
        check(&self.checkpoint, &mut faults);
        check(&self.compute, &mut faults);
        check(&self.report, &mut faults);
        if let (Some(label), Some(columns)) = (&self.report.label, &self.source.columns)
            && !columns.contains(label)
        {
            let message = format!("`{label}` is not among source.columns; add it there");
            faults.push(Fault { key: "report.label".into(), line: None, message });
        }
        let (skipped, neighbors) = (self.guards.skip_nearest, self.graph.neighbors);
        if skipped > 0 && skipped >= neighbors {
            let message =
                format!("is {skipped}, but samples have {neighbors} neighbors; skip fewer, or raise graph.neighbors");
            faults.push(Fault { key: "guards.skip_nearest".into(), line: None, message });
        }
        if self.guards.max_relative_to_positive.is_some() && self.pairs.columns().is_none() {
            let message = "needs pairs; name pairs.anchor and pairs.positive, or use guards.max_similarity".into();
            faults.push(Fault { key: "guards.max_relative_to_positive".into(), line: None, message });
        }
        let (size, ranks) = (self.walk.batch_size, self.stream.world_size);
        if ranks > 1 && !size.is_multiple_of(ranks) {
            let message = format!("does not divide walk.batch_size ({size}) into equal shares; choose one that does");
            faults.push(Fault { key: "stream.world_size".into(), line: None, message });
        }
        faults
    }

    /// All settings that are paths.
    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (encode, store, checkpoint) = (&mut self.encode, &mut self.store, &mut self.checkpoint);
        let views = encode.views.iter_mut().flat_map(|view| [&mut view.model, &mut view.tokenizer]);
        let cuda = encode.cuda.iter_mut().map(|cuda| &mut cuda.tensorrt_cache);
        let of_encode = [&mut encode.model, &mut encode.tokenizer, &mut encode.runtime, &mut encode.cache_dir];
        let all = of_encode.into_iter().chain([&mut store.cache_dir, &mut checkpoint.dir]).chain(views).chain(cuda);
        all.flatten()
    }

    /// `~` is the home folder, where that is known.
    fn expand_home(&mut self) {
        let Some(home) = std::env::home_dir().filter(|home| !home.as_os_str().is_empty()) else { return };
        for path in self.paths() {
            if let Ok(rest) = path.strip_prefix("~") {
                *path = home.join(rest);
            }
        }
    }

    fn make_relative_to(&mut self, base: &Path) {
        self.paths().filter(|path| !path.starts_with("~")).for_each(|path| *path = base.join(&*path));
        for uri in &mut self.source.uri {
            let is_home = uri == "~" || uri.starts_with("~/");
            let is_absolute = uri.contains("://") || uri.to_ascii_lowercase().starts_with("file:/");
            if !is_home && !is_absolute && uri != "-" {
                *uri = joined(base, uri);
            }
        }
    }
}

/// A uri relative to a folder. One whose name is no UTF-8 has to be encoded.
fn joined(base: &Path, uri: &str) -> String {
    let path = base.join(uri);
    if let Some(path) = path.to_str() {
        return path.to_owned();
    }
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let mut text = String::from("file://");
    for byte in base.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{text}/{}", uri.replace('%', "%25"))
}

/// The field names of a struct that derives `Deserialize`.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = AnyError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, AnyError> {
            Err(serde::de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, AnyError> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // Only the visit counts; it always ends in the error above.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field without its line in `layer!` would be read and then dropped.
    #[test]
    fn every_field_is_layered() {
        fn all<T: DeserializeOwned + Layer + Default>() {
            for field in fields::<T>() {
                T::default().take(field, T::default());
            }
        }
        all::<crate::config::SourceConfig>();
        all::<crate::config::StoreConfig>();
        all::<crate::config::EncodeConfig>();
        all::<crate::config::ViewConfig>();
        all::<crate::config::ImageConfig>();
        all::<crate::config::TensorConfig>();
        all::<crate::config::GraphInputConfig>();
        all::<crate::config::GraphConfig>();
        all::<crate::config::WalkConfig>();
        all::<crate::config::GuardsConfig>();
        all::<crate::config::PairsConfig>();
        all::<crate::config::RefreshConfig>();
        all::<crate::config::StreamConfig>();
        all::<crate::config::CheckpointConfig>();
        all::<crate::config::ComputeConfig>();
        all::<crate::config::ReportConfig>();
    }

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
        let overrides = ["store.cache_dir = 'd'".to_owned()];
        let read = |overrides: &[String]| {
            let mut config = PipelineConfig::default();
            let input = Input { text, has_lines: true };
            let (mut seen, mut faults) = <(Seen, Vec<Fault>)>::default();
            merge(&mut config, &input, &mut seen, &mut faults);
            config.make_relative_to(Path::new("/base"));
            overrides.iter().for_each(|text| merge_override(&mut config, text, &mut seen, &mut faults));
            config.expand_home();
            assert!(faults.is_empty(), "{faults:?}");
            let mut found: Vec<_> = config.paths().map(|path| path.display().to_string()).collect();
            found.sort();
            found
        };
        let home = std::env::home_dir().unwrap().display().to_string();
        let expected = |cache: &str| {
            let mut all = [
                "/base/a.onnx",
                &format!("{home}/t.json"),
                "/r.so",
                "/base/e",
                "/base/v.onnx",
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
        assert_eq!(read(&[]), expected("/base/c"));
        assert_eq!(read(&overrides), expected("d"));
    }

    #[test]
    fn a_setting_that_was_renamed_says_so() {
        for (old, new) in RENAMED {
            let (section, key) = new.split_once('.').unwrap();
            assert!(section == "refresh" && fields::<crate::config::RefreshConfig>().contains(&key), "{new}");
            let (mut seen, mut faults) = <(Seen, Vec<Fault>)>::default();
            let input = Input { text: &format!("{old} = 1"), has_lines: true };
            merge(&mut PipelineConfig::default(), &input, &mut seen, &mut faults);
            let found: Vec<_> = faults.iter().map(|fault| (fault.key.as_str(), fault.message.clone())).collect();
            assert_eq!(found, [(*old, format!("is called `{new}` now"))]);
        }
    }

    #[test]
    fn every_section_is_read() {
        for section in fields::<PipelineConfig>().iter().filter(|&&name| name != "seed") {
            let (mut seen, mut faults) = <(Seen, Vec<Fault>)>::default();
            let input = Input { text: &format!("{section} = {{}}"), has_lines: false };
            merge(&mut PipelineConfig::default(), &input, &mut seen, &mut faults);
            assert!(faults.is_empty(), "{section}: {faults:?}");
        }
    }
}
