//! Finds a type that holds the values of two types exactly.
//!
//! Shards of one data set may be written by several tools, or years apart, and differ in their types.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;

/// Where two types cannot be brought together: a path within the column, and what each has there.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    /// The path: empty for the column itself, `.width` for a field of a struct, `[]` for the items of a list.
    pub path: String,
    pub first: String,
    pub second: String,
}

/// Returns a type that holds the values of both, which is `first` if it does.
///
/// - Whole numbers widen, and become floating-point numbers if these hold all of them.
/// - Times take the finer unit.
/// - Large offsets win over small ones, and lists of any length over lists of a fixed one.
/// - Fields of structs are matched by name. The names of list items do not matter.
/// - Dictionaries and runs only pack values; the result is the type of their values.
pub(super) fn common(first: &DataType, second: &DataType) -> Result<DataType, Difference> {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal128, Dictionary, Duration, FixedSizeList, LargeBinary, LargeUtf8,
        Map, Null, RunEndEncoded, Struct, Time32, Time64, Timestamp, Utf8, Utf8View,
    };
    if first == second {
        return Ok(first.clone());
    }
    Ok(match (first, second) {
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(_, value), other) => common(value, other)?,
        (other, Dictionary(_, value)) => common(other, value)?,
        (RunEndEncoded(_, value), other) => common(value.data_type(), other)?,
        (other, RunEndEncoded(_, value)) => common(other, value.data_type())?,
        (Utf8 | Utf8View, LargeUtf8) | (LargeUtf8, Utf8 | Utf8View) => LargeUtf8,
        (Utf8 | Utf8View, Utf8 | Utf8View) => first.clone(),
        (Binary | BinaryView, LargeBinary) | (LargeBinary, Binary | BinaryView) => LargeBinary,
        (Binary | BinaryView, Binary | BinaryView) => first.clone(),
        (Timestamp(a, zone), Timestamp(b, other)) if zone == other => Timestamp(finer(*a, *b), zone.clone()),
        (Duration(a), Duration(b)) => Duration(finer(*a, *b)),
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => match finer(*a, *b) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Decimal128(a, scale), Decimal128(b, other)) if scale == other => Decimal128(*a.max(b), *scale),
        (FixedSizeList(a, length), FixedSizeList(b, other)) if length == other => {
            FixedSizeList(item(a, b, "[]")?, *length)
        }
        (Struct(a), Struct(b)) => Struct(fields(a, b)?),
        (Map(a, sorted), Map(b, other)) => Map(entries(a, b)?, *sorted && *other),
        _ => match (items(first), items(second)) {
            (Some((a, large)), Some((b, other))) => {
                let item = item(a, b, "[]")?;
                if large || other { DataType::LargeList(item) } else { DataType::List(item) }
            }
            _ => return number(first, second).ok_or_else(|| difference(first, second)),
        },
    })
}

/// Casts an array without loss: a value that the type `to` does not hold is an error.
pub(super) fn exactly(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn difference(first: &DataType, second: &DataType) -> Difference {
    Difference { path: String::new(), first: first.to_string(), second: second.to_string() }
}

/// Returns the item field of a list of any kind, and whether the list has large offsets.
fn items(data_type: &DataType) -> Option<(&FieldRef, bool)> {
    match data_type {
        DataType::List(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => Some((item, false)),
        DataType::LargeList(item) | DataType::LargeListView(item) => Some((item, true)),
        _ => None,
    }
}

/// Returns a field with the name of `first` and a type that holds the values of both. `step` is its part of the path.
pub(super) fn item(first: &Field, second: &Field, step: &str) -> Result<FieldRef, Difference> {
    let data_type = common(first.data_type(), second.data_type())
        .map_err(|inner| Difference { path: format!("{step}{}", inner.path), ..inner })?;
    let nullable = first.is_nullable() || second.is_nullable() || data_type == DataType::Null;
    Ok(Arc::new(first.clone().with_data_type(data_type).with_nullable(nullable)))
}

/// Combines the fields of two structs by name, in the order of the first.
fn fields(first: &Fields, second: &Fields) -> Result<Fields, Difference> {
    let lacks = |name: &str, at_first: bool| {
        let (here, lacking) = ("there".to_owned(), "missing".to_owned());
        let (first, second) = if at_first { (lacking, here) } else { (here, lacking) };
        Difference { path: format!(".{name}"), first, second }
    };
    if let Some(more) = second.iter().find(|field| first.find(field.name()).is_none()) {
        return Err(lacks(more.name(), true));
    }
    let both = |field: &FieldRef| {
        let (_, other) = second.find(field.name()).ok_or_else(|| lacks(field.name(), false))?;
        item(field, other, &format!(".{}", field.name()))
    };
    first.iter().map(both).collect()
}

/// Combines the entries of two maps, key with key and value with value, whatever their names.
fn entries(first: &FieldRef, second: &FieldRef) -> Result<FieldRef, Difference> {
    let (DataType::Struct(a), DataType::Struct(b)) = (first.data_type(), second.data_type()) else {
        return Err(difference(first.data_type(), second.data_type()));
    };
    if a.len() != b.len() {
        return Err(difference(first.data_type(), second.data_type()));
    }
    let both = a.iter().zip(b).map(|(a, b)| item(a, b, &format!(".{}", a.name()))).collect::<Result<_, _>>()?;
    Ok(Arc::new(first.as_ref().clone().with_data_type(DataType::Struct(both))))
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    [Nanosecond, Microsecond, Millisecond, Second].into_iter().find(|unit| [a, b].contains(unit)).unwrap_or(a)
}

/// Returns the narrowest type of numbers that holds both: their sign, whole numbers and fractions.
fn number(first: &DataType, second: &DataType) -> Option<DataType> {
    let [a, b] = [Bits::of(first)?, Bits::of(second)?];
    let holds = |wide: &Bits, narrow: &Bits| {
        (wide.signed || !narrow.signed) && wide.whole >= narrow.whole && (wide.floating || !narrow.floating)
    };
    let both = |candidate: &&DataType| Bits::of(candidate).is_some_and(|of| holds(&of, &a) && holds(&of, &b));
    NUMBERS.iter().find(both).cloned()
}

/// The whole numbers that a numeric type holds exactly, as a number of bits without the sign.
struct Bits {
    signed: bool,
    whole: u32,
    floating: bool,
}

impl Bits {
    fn of(data_type: &DataType) -> Option<Self> {
        use DataType::{Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
        let (signed, whole, floating) = match data_type {
            UInt8 => (false, 8, false),
            UInt16 => (false, 16, false),
            UInt32 => (false, 32, false),
            UInt64 => (false, 64, false),
            Int8 => (true, 7, false),
            Int16 => (true, 15, false),
            Int32 => (true, 31, false),
            Int64 => (true, 63, false),
            Float16 => (true, 11, true),
            Float32 => (true, 24, true),
            Float64 => (true, 53, true),
            _ => return None,
        };
        Some(Self { signed, whole, floating })
    }
}

/// The candidates, from the narrowest to the widest.
const NUMBERS: [DataType; 11] = [
    DataType::UInt8,
    DataType::Int8,
    DataType::UInt16,
    DataType::Int16,
    DataType::UInt32,
    DataType::Int32,
    DataType::UInt64,
    DataType::Int64,
    DataType::Float16,
    DataType::Float32,
    DataType::Float64,
];
