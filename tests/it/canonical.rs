//! Writes values as texts that do not depend on their layout, as tests/data/conformance/write.py does.

use std::io::Write;

use prosampler::arrow::array::{Array, AsArray};
use prosampler::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type, UnionMode,
};
use prosampler::arrow::{array::ArrayRef, compute::cast};

/// 64 bits of FNV-1a over the texts of a column, each with a line feed behind it.
#[derive(Clone)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn add(&mut self, column: &ArrayRef) {
        let mut bytes = Vec::new();
        for row in 0..column.len() {
            text(column, row, &mut bytes);
            bytes.push(b'\n');
        }
        self.0 = bytes.iter().fold(self.0, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }

    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

fn text(array: &dyn Array, row: usize, to: &mut Vec<u8>) {
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match dictionary.is_null(row) {
                true => to.extend(b"null"),
                false => {
                    let key = cast(&dictionary.keys().slice(row, 1), &DataType::UInt64).unwrap();
                    text(dictionary.values(), key.as_primitive::<UInt64Type>().value(0) as usize, to);
                }
            }
        }
        DataType::RunEndEncoded(ends, _) => {
            let (values, place) = match ends.data_type() {
                DataType::Int16 => run::<Int16Type>(array, row),
                DataType::Int32 => run::<Int32Type>(array, row),
                _ => run::<Int64Type>(array, row),
            };
            text(&values, place, to);
        }
        DataType::Union(_, mode) => {
            let union = array.as_union();
            let code = union.type_id(row);
            write!(to, "u{code}:").unwrap();
            let place = if *mode == UnionMode::Dense { union.value_offset(row) } else { row };
            text(union.child(code), place, to);
        }
        DataType::Null => to.extend(b"null"),
        _ if array.is_null(row) => to.extend(b"null"),
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            list(columns.iter().map(|column| (column, row)), [b'{', b'}'], to);
        }
        DataType::List(_) => items(&array.as_list::<i32>().value(row), to),
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(row), to),
        DataType::ListView(_) => items(&array.as_list_view::<i32>().value(row), to),
        DataType::LargeListView(_) => items(&array.as_list_view::<i64>().value(row), to),
        DataType::FixedSizeList(..) => items(&array.as_fixed_size_list().value(row), to),
        DataType::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(array.as_map().value(row));
            items(&entries, to);
        }
        _ => scalar(array, row, to),
    }
}

fn run<R: prosampler::arrow::datatypes::RunEndIndexType>(array: &dyn Array, row: usize) -> (ArrayRef, usize) {
    let run = array.as_run::<R>();
    (run.values().clone(), run.get_physical_index(row))
}

fn items(array: &ArrayRef, to: &mut Vec<u8>) {
    list((0..array.len()).map(|row| (array, row)), [b'[', b']'], to);
}

fn list<'a>(values: impl Iterator<Item = (&'a ArrayRef, usize)>, [open, close]: [u8; 2], to: &mut Vec<u8>) {
    to.push(open);
    for (number, (array, row)) in values.enumerate() {
        if number > 0 {
            to.push(b',');
        }
        text(array, row, to);
    }
    to.push(close);
}

fn scalar(array: &dyn Array, row: usize, to: &mut Vec<u8>) {
    macro_rules! whole {
        ($type:ty) => {
            array.as_primitive::<$type>().value(row).to_string()
        };
    }
    macro_rules! decimal {
        ($type:ty, $scale:expr) => {
            format!("d{}e{}", array.as_primitive::<$type>().value(row), $scale)
        };
    }
    let float = |value: f64| if value.is_nan() { "nan".to_owned() } else { format!("{:016x}", value.to_bits()) };
    let bytes = |bytes: &[u8], to: &mut Vec<u8>| {
        write!(to, "s{}:", bytes.len()).unwrap();
        to.extend(bytes);
        String::new()
    };
    let said = match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::Date32 => whole!(Date32Type),
        DataType::Date64 => whole!(Date64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(_, scale) => decimal!(Decimal32Type, scale),
        DataType::Decimal64(_, scale) => decimal!(Decimal64Type, scale),
        DataType::Decimal128(_, scale) => decimal!(Decimal128Type, scale),
        DataType::Decimal256(_, scale) => decimal!(Decimal256Type, scale),
        DataType::Utf8 => bytes(array.as_string::<i32>().value(row).as_bytes(), to),
        DataType::LargeUtf8 => bytes(array.as_string::<i64>().value(row).as_bytes(), to),
        DataType::Utf8View => bytes(array.as_string_view().value(row).as_bytes(), to),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row), to),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row), to),
        DataType::BinaryView => bytes(array.as_binary_view().value(row), to),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().value(row), to),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            format!("i{},{},{}", value.months, value.days, value.nanoseconds)
        }
        // pyarrow cannot print these, so there is nothing to compare with.
        DataType::Interval(_) => "?".to_owned(),
        DataType::Timestamp(unit, _) | DataType::Duration(unit) | DataType::Time32(unit) | DataType::Time64(unit) => {
            let value = cast(&array.slice(row, 1), &DataType::Int64).unwrap();
            format!("t{}", i128::from(value.as_primitive::<Int64Type>().value(0)) * nanoseconds(*unit))
        }
        other => panic!("no text for {other}"),
    };
    to.extend(said.bytes());
}

fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    }
}
