//! What settings there are, and of which shape, as the settings' own `Deserialize` tells.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::PipelineConfig;

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A value, which is set as a whole.
    Value,
    /// Settings of these names.
    Table(&'static [&'static str]),
    /// A list of tables, each with settings of these names.
    Tables(&'static [&'static str]),
}

impl Shape {
    /// The shape of the setting at `path`: the names on the way from the root, and one of any name for a list's item.
    pub fn at(path: &[String]) -> Self {
        let mut shape = Self::Value;
        // Only the question counts: the answer is always an error.
        let _ = deserialize(path, Ask(&mut shape));
        shape
    }
}

/// Whether the setting at `path` takes `value`, whatever the others hold.
pub(super) fn check(path: &[String], value: &Spanned<DeValue<'_>>) -> Result<(), TomlError> {
    deserialize(path, ValueDeserializer::from(value.clone())).map(drop)
}

type TomlError = toml::de::Error;

/// All settings at their defaults but the one at `path`, which is deserialized from `end`.
fn deserialize<'de, D>(path: &[String], end: D) -> Result<PipelineConfig, TomlError>
where
    D: Deserializer<'de, Error = TomlError>,
{
    match path {
        [] => PipelineConfig::deserialize(end),
        _ => PipelineConfig::deserialize(Below { path, end }),
    }
}

/// A table or a list that holds nothing but what is at `path`, which is not empty.
struct Below<'p, D> {
    path: &'p [String],
    end: D,
}

impl<'de, D: Deserializer<'de, Error = TomlError>> Deserializer<'de> for Below<'_, D> {
    type Error = TomlError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, TomlError> {
        Err(TomlError::custom("a value holds no settings"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TomlError> {
        visitor.visit_map(Single(Some(self)))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TomlError> {
        visitor.visit_seq(Single(Some(self)))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TomlError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map enum identifier ignored_any
    }
}

/// The single entry of a table or a list, until it has been taken.
struct Single<'p, D>(Option<Below<'p, D>>);

impl<'de, D: Deserializer<'de, Error = TomlError>> Single<'_, D> {
    fn take<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TomlError> {
        let Some(Below { path, end }) = self.0.take() else { return Ok(None) };
        match &path[1..] {
            [] => seed.deserialize(end),
            path => seed.deserialize(Below { path, end }),
        }
        .map(Some)
    }
}

impl<'de, D: Deserializer<'de, Error = TomlError>> MapAccess<'de> for Single<'_, D> {
    type Error = TomlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TomlError> {
        let Some(below) = &self.0 else { return Ok(None) };
        let key: StrDeserializer<'_, TomlError> = below.path[0].as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TomlError> {
        self.take(seed)?.ok_or_else(|| TomlError::custom("there is one entry"))
    }
}

impl<'de, D: Deserializer<'de, Error = TomlError>> SeqAccess<'de> for Single<'_, D> {
    type Error = TomlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TomlError> {
        self.take(seed)
    }
}

/// Notes the shape that is asked for, and then fails.
struct Ask<'a>(&'a mut Shape);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = TomlError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, TomlError> {
        Err(TomlError::custom("there is no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TomlError> {
        *self.0 = Shape::Table(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TomlError> {
        let item = Single(Some(Below { path: &[String::new()], end: Ask(&mut *self.0) }));
        let result = visitor.visit_seq(item);
        if let Shape::Table(fields) = *self.0 {
            *self.0 = Shape::Tables(fields);
        }
        result
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TomlError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Shape {
        let path: Vec<_> = path.split('/').map(ToOwned::to_owned).collect();
        Shape::at(&path)
    }

    fn has(shape: Shape, name: &str) -> bool {
        matches!(shape, Shape::Table(names) | Shape::Tables(names) if names.contains(&name))
    }

    #[test]
    fn tables_are_told_from_values() {
        assert!(has(Shape::at(&[]), "encode"));
        assert!(has(at("graph"), "neighbors"));
        assert!(has(at("encode/cuda"), "memory_limit"));
        assert!(matches!(at("encode/views"), Shape::Tables(_)));
        assert!(has(at("encode/views/[0]"), "model"));
        assert!(has(at("encode/views/[1]/image"), "crop"));
        for value in [
            "seed",
            "graph/neighbors",
            "source/uri",
            "source/columns",
            "source/options",
            "walk/restart_probability",
            "walk/starts",
            "walk/warm_up",
            "encode/tensor/inputs",
            "encode/image/size",
            "encode/providers",
        ] {
            assert_eq!(at(value), Shape::Value, "{value}");
        }
    }
}
